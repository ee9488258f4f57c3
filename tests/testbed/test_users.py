"""The testbed's users: what their tastes are, that the minority conflicts, who chooses what, and that one seed decides."""

import math
from collections import defaultdict
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest

from rlphf.cli import main
from rlphf.data.people import check_people
from rlphf.data.records import PAIRS, PROMPTS, RESPONSES, check_pairs
from rlphf.errors import InputError
from rlphf.files import read_json, read_parquet, sha256, write_parquet
from rlphf.preferences import AXES, PREFERENCES, members
from rlphf.settings import Annotator
from rlphf.settings import Testbed as Prompts
from rlphf.settings_users import Population
from rlphf.testbed import oracle
from rlphf.testbed.language import draw_plan, realise
from rlphf.testbed.prompts import prompts
from rlphf.testbed.users import USERS, User, minority_of, population, tastes, user_pairs, users_table

ALL = list(PREFERENCES)
SETTINGS = Population(users=20, unseen=5, clusters=5, train_pairs=30, validation_pairs=4, test_pairs=10)
COUNTS = {"train": 30, "validation": 4, "test": 10}
NOISY = Annotator(kind="simulated", rationality=20.0)
SMALL = Prompts(train_topics=12, validation_topics=3, test_topics=5, train_phrasings=4, test_phrasings=2, prompts_per_topic=3)


@pytest.fixture(scope="module")
def asked() -> list[dict]:
    return prompts(SMALL, 1).to_pylist()


@pytest.fixture(scope="module")
def said(asked: list[dict]) -> list[dict]:
    """Six responses to each prompt, as the corpus would answer."""
    rng = Random(0)
    return [
        {"prompt_id": row["id"], "method": "rollout", "combination": "", "sample": k, "tokens": 1, "finished": True}
        | {"response": realise(draw_plan(rng, row["topic"]))}
        for row in asked
        for k in range(6)
    ]


def pole(user: User, axis: str) -> str | None:
    found = [p for p in user.weights if PREFERENCES[p].axis == axis]
    assert len(found) < 2
    return found[0] if found else None


def conflict(users: list[User]) -> str:
    """The axis on which the minority wants what no one of the majority does."""
    found = []
    for axis in AXES:
        wanted = [{pole(u, axis) for u in users if u.group == group} for group in ("majority", "minority")]
        if not wanted[0] & wanted[1] and all(len(w) == 1 for w in wanted):
            found.append(axis)
    return found[0]


@pytest.mark.parametrize("seed", range(8))
def test_no_one_wants_both_poles_of_an_axis_and_weights_sum_to_1(seed: int) -> None:
    for user in population(SETTINGS, ALL, seed):
        assert all(pole(user, axis) for axis in AXES)
        assert sum(user.weights.values()) == pytest.approx(1) and min(user.weights.values()) > 0.05


@pytest.mark.parametrize("seed", range(8))
def test_a_minority_of_a_fifth_conflicts_with_the_majority_on_the_axis_that_it_cares_for_most(seed: int) -> None:
    users = population(SETTINGS, ALL, seed)
    groups = [u.group for u in users]
    assert (groups.count("majority"), groups.count("minority"), groups.count("unseen")) == (16, 4, 5)
    axis = conflict(users)
    for user in users:
        assert user.weights[pole(user, axis)] == max(user.weights.values()) > 0.4
    # The majority would choose wrongly for them: the weight against it is more than the rest can make up for.
    others = [pole(u, axis) for u in users if u.group == "minority"]
    assert len(set(others)) == 1


def test_users_of_a_cluster_share_its_taste_and_none_the_other_sides(seed: int = 3) -> None:
    users, shared = population(SETTINGS, ALL, seed), tastes(SETTINGS, ALL, seed)
    assert [t.minority for t in shared] == [False] * 4 + [True]
    for user in users:
        taste = shared[user.cluster]
        assert user.weights.keys() == taste.weights.keys()
        assert all(abs(user.weights[p] - taste.weights[p]) < 0.2 for p in user.weights)
        assert user.group == "unseen" or taste.minority == (user.group == "minority")
    assert {u.cluster for u in users if u.group != "unseen"} == set(range(5))
    # Tastes differ in what they want, and users of one taste in how much.
    assert len({tuple(t.weights) for t in shared}) == 5
    assert len({tuple(u.weights.values()) for u in users}) == 25


def test_unseen_users_have_tastes_that_seen_ones_share_and_ids_behind_theirs() -> None:
    users = population(SETTINGS, ALL, 3)
    assert [u.id for u in users] == list(range(1, 26))
    assert {u.id for u in users if u.group == "unseen"} == set(range(21, 26))
    sides = [tastes(SETTINGS, ALL, 3)[u.cluster].minority for u in users if u.group == "unseen"]
    assert sides.count(True) == 1


def test_the_text_names_the_users_preferences_and_no_other() -> None:
    for user in population(SETTINGS, ALL, 4):
        for name in ALL:
            assert (PREFERENCES[name].prompt in user.text) == (name in user.weights)
    told = population(SETTINGS.model_copy(update={"text": "paraphrase"}), ALL, 4)
    assert not any(p.prompt in user.text for p in PREFERENCES.values() for user in told)
    assert len({user.text for user in told}) > 5 and all(user.text.count(".") == 3 for user in told)


def test_the_seed_decides_and_without_a_minority_a_further_user_changes_no_other() -> None:
    assert population(SETTINGS, ALL, 5) == population(SETTINGS, ALL, 5) != population(SETTINGS, ALL, 6)
    even = SETTINGS.model_copy(update={"minority": 0.0, "unseen": 0})
    few, more = population(even, ALL, 5), population(even.model_copy(update={"users": 30}), ALL, 5)
    assert more[:20] == few


@pytest.mark.parametrize(
    ("count", "share", "few"), [(20, 0.2, 4), (5, 0.2, 1), (2, 0.2, 1), (2, 0.9, 1), (10, 0.0, 0), (10, 1.0, 9)]
)
def test_the_minority_is_its_share_and_no_side_is_empty(count: int, share: float, few: int) -> None:
    assert minority_of(count, share) == few


def test_the_users_table_has_a_weight_for_every_preference() -> None:
    users = population(SETTINGS, ALL, 5)
    table = users_table(users)
    assert table.schema == USERS
    for row, user in zip(table.to_pylist(), users, strict=True):
        assert {p: row[p] for p in ALL if row[p]} == user.weights and row["text"] == user.text
        assert row["kind"] == user.kind and members(row["kind"]) == sorted(user.weights, key=ALL.index)
    check_people(table, "users")


def test_only_preferences_of_the_experiment_are_wanted() -> None:
    users = population(SETTINGS, ["P1A", "P2A", "P2B"], 5)
    assert {p for u in users for p in u.weights} == {"P1A", "P2A", "P2B"}
    assert {p for u in population(SETTINGS, ["P2A", "P2B"], 5) for p in u.weights} == {"P2A", "P2B"}
    with pytest.raises(InputError, match="one axis needs two preferences"):
        population(SETTINGS, ["P1A", "P2B", "P3A"], 5)


# Their choices.


def test_pairs_are_sound_and_split_by_prompt(asked: list[dict], said: list[dict]) -> None:
    users = population(SETTINGS, ALL, 5)
    table = user_pairs(users, asked, said, COUNTS, NOISY, 5)
    check_pairs(table, "pairs")
    split_of = {row["prompt"]: row["split"] for row in asked}
    counts: dict[tuple[int, str], int] = defaultdict(int)
    for row in table.to_pylist():
        assert row["split"] == split_of[row["prompt"]]
        counts[row["user"], row["split"]] += 1
        user = users[row["user"] - 1]
        assert row["preference"] == user.group
    for user in users:
        assert {split: counts[user.id, split] for split in COUNTS} == COUNTS


def test_users_choose_by_their_own_weights(asked: list[dict], said: list[dict]) -> None:
    users = population(SETTINGS, ALL, 5)
    topic_of = {row["prompt"]: row["topic"] for row in asked}
    agreed, expected, variance = 0, 0.0, 0.0
    for row in user_pairs(users, asked, said, COUNTS, NOISY, 5).to_pylist():
        user = users[row["user"] - 1]
        better, worse = (
            sum(w * oracle.scores(row[name], topic_of[row["prompt"]])[p] for p, w in user.weights.items())
            for name in ("chosen", "rejected")
        )
        share = 1 / (1 + math.exp(-20.0 * (better - worse)))
        assert row["probability"] == pytest.approx(share)
        likelier = max(share, 1 - share)
        agreed, expected, variance = agreed + (better > worse), expected + likelier, variance + likelier * (1 - likelier)
    assert abs(agreed - expected) < 4 * math.sqrt(variance) + 10


def test_the_minority_chooses_against_the_majority(asked: list[dict], said: list[dict]) -> None:
    users = population(SETTINGS, ALL, 5)
    topic_of = {row["prompt"]: row["topic"] for row in asked}
    axis = conflict(users)
    theirs, ours = (next(pole(u, axis) for u in users if u.group == g) for g in ("majority", "minority"))
    rows = user_pairs(users, asked, said, COUNTS, NOISY, 5).to_pylist()

    def lean(group: str) -> float:
        """How much more of the majority's pole than of the minority's the group's chosen responses have."""
        total = 0.0
        for row in rows:
            if row["preference"] == group:
                good, bad = (oracle.scores(row[name], topic_of[row["prompt"]]) for name in ("chosen", "rejected"))
                total += (good[theirs] - good[ours]) - (bad[theirs] - bad[ours])
        return total

    assert lean("majority") > 0 > lean("minority")


def test_choices_are_the_seeds_and_a_users_own(asked: list[dict], said: list[dict]) -> None:
    users = population(SETTINGS, ALL, 5)
    whole = user_pairs(users, asked, said, COUNTS, NOISY, 5)
    assert whole.equals(user_pairs(users, asked, said[::-1], COUNTS, NOISY, 5))
    assert not whole.equals(user_pairs(users, asked, said, COUNTS, NOISY, 6))
    alone = user_pairs(users[2:3], asked, said, COUNTS, NOISY, 5).to_pylist()
    assert alone == [row for row in whole.to_pylist() if row["user"] == 3]


def test_more_pairs_than_prompts_go_round_again_without_repeating_a_pair(asked: list[dict], said: list[dict]) -> None:
    table = user_pairs(population(SETTINGS, ALL, 5)[:1], asked, said, COUNTS | {"train": 100}, NOISY, 5)
    check_pairs(table, "pairs")
    rows = [row for row in table.to_pylist() if row["split"] == "train"]
    assert len(rows) == 100


def test_more_pairs_than_choices_are_refused_before_any_is_made(asked: list[dict], said: list[dict]) -> None:
    users, texts = population(SETTINGS, ALL, 5)[:1], {row["response"] for row in said if row["prompt_id"] == asked[0]["id"]}
    most = len(texts) * (len(texts) - 1)
    with pytest.raises(
        InputError, match=f"population: user 1 has .* different choices of {most} in split 'train'; ask for fewer"
    ):
        user_pairs(users, asked[:1], said, {"train": most}, NOISY, 5)
    with pytest.raises(InputError, match=f"split 'train' has {most} different choices and users need 2147483647; ask for fewer"):
        user_pairs(users, asked[:1], said, {"train": 2**31 - 1}, NOISY, 5)
    assert not len(user_pairs([], asked[:1], said, {"train": most + 1}, NOISY, 5))


def test_what_cannot_be_chosen_between_is_an_error_or_left_out(asked: list[dict], said: list[dict]) -> None:
    users = population(SETTINGS, ALL, 5)
    lonely = [row for row in said if row["sample"] == 0]
    with pytest.raises(InputError, match="none of split 'train' has two different responses; sample more rollouts"):
        user_pairs(users, asked, lonely, COUNTS, NOISY, 5)
    silent = [row | {"response": " "} if row["sample"] > 2 else row for row in said]
    assert all(row["chosen"].strip() for row in user_pairs(users, asked, silent, COUNTS, NOISY, 5).to_pylist())
    foreign = [row | {"topic": None} for row in asked]
    with pytest.raises(InputError, match="testbed prompts only"):
        user_pairs(users, foreign, said, COUNTS, NOISY, 5)


def test_the_step_writes_users_and_pairs(asked: list[dict], said: list[dict], tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{experiment: test, population: {users: 6, unseen: 2, clusters: 2, train_pairs: 9}}")
    write_parquet(tmp_path / "prompts.parquet", pa.Table.from_pylist(asked, PROMPTS))
    for k in range(2):
        part = [row for row in said if row["sample"] % 2 == k]
        write_parquet(tmp_path / f"{k}.parquet", pa.Table.from_pylist(part, RESPONSES))
    files = ["--responses", str(tmp_path / "0.parquet"), str(tmp_path / "1.parquet")]
    for name in ("one", "two"):
        command = ["users", "pairs", "--config", str(tmp_path / "config.yaml"), "--prompts", str(tmp_path / "prompts.parquet")]
        assert main([*command, *files, "--out", str(tmp_path / name)]) == 0
    users = read_parquet(tmp_path / "one" / "users.parquet", USERS)
    pairs = read_parquet(tmp_path / "one" / "pairs.parquet", PAIRS)
    check_pairs(pairs, "pairs")
    assert users["id"].to_pylist() == list(range(1, 9))
    assert sorted(set(pairs["user"].to_pylist())) == list(range(1, 9))
    # Unseen users have no part in training; what they are to be known by lies apart.
    assert {row["user"] for row in pairs.to_pylist() if row["split"] == "train"} == set(range(1, 7))
    new = read_parquet(tmp_path / "one" / "new_pairs.parquet", PAIRS).to_pylist()
    assert {(row["user"], row["split"]) for row in new} == {(7, "train"), (8, "train")} and 36 < len(new) // 2 <= 100
    for file in ("users.parquet", "pairs.parquet", "new_pairs.parquet"):
        assert sha256(tmp_path / "one" / file) == sha256(tmp_path / "two" / file)
    assert read_json(tmp_path / "one" / "record.json")["status"] == "finished"
