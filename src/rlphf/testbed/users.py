"""The testbed's users: tastes as weights over the preferences, shared in clusters, some against the majority; and their choices.

Everything comes out of one seed. Minority and tastes are dealt among all users, so they change with the number of users; what a
user of a taste says and chooses is drawn from a stream of the user's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from random import Random

import pyarrow as pa

from rlphf.config import load
from rlphf.data.annotate import choose
from rlphf.data.people import MAJORITY, MINORITY, PEOPLE, UNSEEN, check_people
from rlphf.data.records import PAIRS, PROMPTS, RESPONSES, check_pairs, pair_id
from rlphf.derived import shared_preferences
from rlphf.errors import InputError
from rlphf.files import read_parquet, write_parquet
from rlphf.preferences import AXES, PREFERENCES
from rlphf.seeds import derive
from rlphf.settings import Annotator
from rlphf.settings_users import Population
from rlphf.testbed import oracle
from rlphf.tracking.record import step

# Weight of the axis on which minority and majority conflict; the other axes share the rest.
CONFLICT = 0.6
# A user's weight on an axis is that of the taste times 1 +- this, before they are made to sum to 1.
SPREAD = 0.25
# Passes over the prompts, beyond the least number needed, in which a user may find choices that were not made before.
FURTHER = 10
FEWER = "ask for fewer pairs, or sample more rollouts"
# The preferences in other words: how users may describe what they like.
PARAPHRASES = {
    "P1A": ("I like it when you use plain words.", "Please keep to words that a child knows."),
    "P1B": ("I like technical terms.", "Please write as you would for a specialist."),
    "P2A": ("I like short answers.", "Please be brief with me."),
    "P2B": ("I like long answers.", "Please tell me all there is to know."),
    "P3A": ("I like a warm tone.", "Please be as nice to me as a good friend."),
    "P3B": ("I like a cold tone.", "There is no need to be nice to me."),
    "P3C": ("I like a cheeky tone.", "Please answer back a little."),
    "P3D": ("I like irony.", "Please mean the opposite of what you say now and then."),
}
USERS = pa.schema(
    [
        *PEOPLE,
        pa.field("cluster", pa.int64(), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in PREFERENCES),
    ]
)


@dataclass(frozen=True)
class Taste:
    """What the users of a cluster share: {preference: weight}, one per axis, summing to 1; whether it is the minority's."""

    weights: dict[str, float]
    minority: bool


@dataclass(frozen=True)
class User:
    """A user: weights over the preferences, which are positive for at most one of an axis, and what the user says of them."""

    id: int
    group: str
    cluster: int
    weights: dict[str, float]
    text: str

    @property
    def kind(self) -> str:
        """The preferences that the user wants, in the order of the axes, as a combination is named."""
        return "-".join(sorted(self.weights, key=list(PREFERENCES).index))

    def score(self, scores: Mapping[str, float]) -> float:
        """Return how well a response with the oracle's `scores` serves the user, in [0, 1]."""
        return sum(weight * scores[name] for name, weight in self.weights.items())


def minority_of(count: int, share: float) -> int:
    """Return how many of `count` are the minority: the share, rounded, but at least one on each side; none for share 0."""
    return min(max(1, round(share * count)), count - 1) if share else 0


def tastes(settings: Population, preferences: Sequence[str], seed: int) -> list[Taste]:
    """Return the tastes of the clusters, the minority's last.

    On one axis, which is drawn and weighs most, majority and minority want opposing preferences; on every other axis a taste
    wants one of `preferences`. Tastes of one group differ while there are enough combinations. Raises InputError when no axis
    has two preferences.
    """
    rng = Random(derive(seed, "tastes"))
    by_axis = {axis: [p for p in preferences if PREFERENCES[p].axis == axis] for axis in AXES}
    contested = [axis for axis, ids in by_axis.items() if len(ids) > 1]
    if not contested:
        raise InputError("preferences: users conflict on an axis, so one axis needs two preferences; name its other one")
    conflict = rng.choice(contested)
    poles = rng.sample(by_axis[conflict], 2)
    others = [axis for axis in AXES if axis != conflict and by_axis[axis]]
    few = minority_of(settings.clusters, settings.minority)
    made = []
    for pole, count in zip(poles, (settings.clusters - few, few), strict=True):
        combinations: list[list[str]] = [[]]
        for axis in others:
            combinations = [[*c, p] for c in combinations for p in by_axis[axis]]
        order = rng.sample(combinations, len(combinations))
        for number in range(count):
            rest = {name: rng.uniform(0.5, 1.5) for name in order[number % len(order)]}
            scale = (1 - CONFLICT) / sum(rest.values()) if rest else 0.0
            weights = {pole: CONFLICT if rest else 1.0, **{name: value * scale for name, value in rest.items()}}
            made.append(Taste(weights, pole == poles[1]))
    return made


def population(settings: Population, preferences: Sequence[str], seed: int) -> list[User]:
    """Return the users, seen ones first: ids 1 to `users`, then the unseen ones'.

    The minority's share is taken of seen and unseen users alike, and spread over its clusters in turn, as the majority is.
    """
    shared = tastes(settings, preferences, seed)
    sides = [[k for k, taste in enumerate(shared) if taste.minority is side] for side in (False, True)]
    made: list[User] = []
    for first, count, seen in ((1, settings.users, True), (settings.users + 1, settings.unseen, False)):
        few = minority_of(count, settings.minority) if count > 1 else 0
        drawn = Random(derive(seed, "minority", seen)).sample(range(count), few)
        turns = [0, 0]
        for number in range(count):
            minority = number in drawn
            cluster = sides[minority][turns[minority] % len(sides[minority])]
            turns[minority] += 1
            group = (MINORITY if minority else MAJORITY) if seen else UNSEEN
            made.append(_user(first + number, group, cluster, shared[cluster], settings, seed))
    return made


def _user(number: int, group: str, cluster: int, taste: Taste, settings: Population, seed: int) -> User:
    rng = Random(derive(seed, "user", number))
    weights = {name: weight * rng.uniform(1 - SPREAD, 1 + SPREAD) for name, weight in taste.weights.items()}
    weights = {name: weight / sum(weights.values()) for name, weight in weights.items()}
    ordered = sorted(weights, key=list(PREFERENCES).index)
    said = [PREFERENCES[p].prompt if settings.text == "prompts" else rng.choice(PARAPHRASES[p]) for p in ordered]
    return User(number, group, cluster, weights, " ".join(said))


def users_table(users: Sequence[User]) -> pa.Table:
    """Return the users as a USERS table; a preference that a user does not care for weighs 0."""
    rows = [
        {"id": user.id, "group": user.group, "kind": user.kind, "text": user.text, "cluster": user.cluster}
        | {name: user.weights.get(name, 0.0) for name in PREFERENCES}
        for user in users
    ]
    return pa.Table.from_pylist(rows, USERS)


def user_pairs(
    users: Sequence[User],
    prompts: Sequence[dict],
    responses: Sequence[dict],
    counts: Mapping[str, int],
    annotator: Annotator,
    seed: int,
) -> pa.Table:
    """Return what the users chose as a PAIRS table: `preference` is the user's group, the split is the prompt's.

    `counts` are the choices of each user by split. A user goes through the prompts of a split in random order, again and again,
    and at each chooses between two responses of different text, drawn from all that there are, by Bradley-Terry on the user's
    weighted oracle scores. A choice that was made before does not count again. Raises InputError when a split that is to have
    pairs has no prompt with two responses or too few choices, or a prompt is none of the testbed's.
    """
    simulated = annotator.model_copy(update={"kind": "simulated"})
    texts: dict[str, dict[str, None]] = {}
    for row in sorted(responses, key=lambda row: (row["prompt_id"], row["method"], row["combination"], row["sample"])):
        if row["response"].strip():
            texts.setdefault(row["prompt_id"], {})[row["response"]] = None
    scored: dict[tuple[str, str], dict[str, float]] = {}

    def scores(prompt: dict, text: str) -> dict[str, float]:
        if (prompt["topic"], text) not in scored:
            scored[prompt["topic"], text] = oracle.scores(text, prompt["topic"])
        return scored[prompt["topic"], text]

    rows: dict[str, dict] = {}
    for split, count in counts.items():
        asked = [row for row in prompts if row["split"] == split and len(texts.get(row["id"], ())) > 1]
        if count and not asked:
            raise InputError(f"prompts: none of split {split!r} has two different responses; sample more rollouts")
        if any(row["topic"] is None for row in asked):
            raise InputError("prompts: users of the testbed choose between answers to testbed prompts only; leave others out")
        # Each of two responses may be the chosen one.
        if users and count > (most := sum(len(texts[row["id"]]) * (len(texts[row["id"]]) - 1) for row in asked)):
            raise InputError(f"population: split {split!r} has {most} different choices and users need {count}; {FEWER}")
        for user in users:
            rng = Random(derive(seed, "choices", user.id, split))
            order = [row for _ in range(-(-count // max(1, len(asked)))) for row in rng.sample(asked, len(asked))]
            more = (row for _ in range(FURTHER) for row in rng.sample(asked, len(asked)))
            before = len(rows)
            for prompt in chain(order, more):
                if len(rows) - before == count:
                    break
                first, second = rng.sample(list(texts[prompt["id"]]), 2)
                difference = user.score(scores(prompt, first)) - user.score(scores(prompt, second))
                is_first, probability = choose(difference, simulated, rng)
                chosen, rejected = (first, second) if is_first else (second, first)
                name = pair_id(prompt["prompt"], chosen, rejected, user.group, user.id)
                rows[name] = {
                    "id": name,
                    "prompt": prompt["prompt"],
                    "chosen": chosen,
                    "rejected": rejected,
                    "preference": user.group,
                    "user": user.id,
                    "probability": probability,
                    "source": prompt["source"],
                    "split": split,
                }
            if len(rows) - before < count:
                found = f"user {user.id} has {len(rows) - before} different choices of {count} in split {split!r}"
                raise InputError(f"population: {found}; {FEWER}")
    return pa.Table.from_pylist(list(rows.values()), PAIRS)


def users_step(config: Path, prompts: Path, responses: Sequence[Path], out: Path) -> None:
    """Write the testbed's users to `out`/users.parquet, and what they chose among the `responses` to `out`/pairs.parquet.

    Unseen users have no training pairs there; what they chose on training prompts, to be known by, is in `out`/new_pairs.parquet.
    """
    experiment = load(config)
    settings = experiment.population
    inputs = {"prompts": prompts, **{"/".join(path.parts[-2:]): path for path in responses}}
    params = {"population": settings.model_dump(mode="json"), "annotator": experiment.annotator.model_dump(mode="json")}
    with step("users", out, experiment, params, inputs) as run:
        seed = derive(experiment.seed, "population")
        users = population(settings, shared_preferences(experiment), seed)
        rows = [row for path in responses for row in read_parquet(path, RESPONSES).to_pylist()]
        asked = read_parquet(prompts, PROMPTS).to_pylist()
        held_out = {"validation": settings.validation_pairs, "test": settings.test_pairs}
        seen, unseen = ([user for user in users if (user.group == UNSEEN) is new] for new in (False, True))
        trained = user_pairs(seen, asked, rows, {"train": settings.train_pairs, **held_out}, experiment.annotator, seed)
        table = pa.concat_tables([trained, user_pairs(unseen, asked, rows, held_out, experiment.annotator, seed)])
        known_by = user_pairs(unseen, asked, rows, {"train": max(experiment.cold_start.pairs)}, experiment.annotator, seed)
        check_pairs(table, str(out / "pairs.parquet"))
        user_table = users_table(users)
        check_people(user_table, str(out / "users.parquet"))
        write_parquet(out / "users.parquet", user_table)
        write_parquet(out / "pairs.parquet", table)
        write_parquet(out / "new_pairs.parquet", known_by)
        groups = [user.group for user in users]
        run.log({"pairs": len(table), **{group: groups.count(group) for group in (MAJORITY, MINORITY, UNSEEN)}})
        run.output(out / "users.parquet", out / "pairs.parquet", out / "new_pairs.parquet")
