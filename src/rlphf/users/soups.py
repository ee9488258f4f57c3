"""Soups for the testbed's users: of the combination that a user declares, or of weights inferred from the user's own pairs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from rlphf.config import Experiment, load
from rlphf.data.people import UNSEEN
from rlphf.data.records import PAIRS
from rlphf.derived import shared_preferences
from rlphf.errors import InputError
from rlphf.files import atomic_folder, read_parquet, write_parquet
from rlphf.layout import policy, reward_model
from rlphf.preferences import members, preference
from rlphf.seeds import derive
from rlphf.soup.adapter import Adapter, read_adapter
from rlphf.soup.merge import merge, write_soup
from rlphf.soup.wanted import soup_weights
from rlphf.testbed.users import USERS
from rlphf.tracking.record import step
from rlphf.users.differences import differences
from rlphf.users.fit_soup import recipe_of
from rlphf.users.records import ASKED, TEXTS, write_margins
from rlphf.users.weights import DRAWS, Floats, asked, fit, recipe_weights

DECLARED, INFERRED = "declared", "inferred"


@dataclass(frozen=True)
class Wanted:
    """What a user's soup is to be: {preference: weight} of its recipe, the ids that its prompts ask for, and weights for pairs.

    `weights` (P,): the user's weight per preference, declared or inferred; held-out pairs are scored by them.
    """

    recipe: dict[str, float]
    asked: list[str]
    weights: Floats

    @property
    def text(self) -> str:
        """What the prompts say."""
        return " ".join(preference(name).prompt for name in self.asked)


def declared(kind: str, experiment: Experiment) -> Wanted:
    """Return the soup of a user who names a combination, such as "P1A-P2B-P3A": the combination's own (`soup.wanted`).

    Raises InputError for what is no combination of the experiment's preferences.
    """
    ids, preferences = members(kind), shared_preferences(experiment)
    if missing := [name for name in ids if name not in preferences]:
        raise InputError(f"kind {kind!r}: {missing[0]} is not among preferences, so it has no policy; add it")
    weights = soup_weights(experiment, kind)
    return Wanted(weights, ids, np.array([weights.get(name, 0.0) for name in preferences]))


def inferred(found: Floats, preferences: Sequence[str], prior: float, seed: int) -> Wanted:
    """Return the soup of a user known by the reward models' differences (n, P) of n pairs; without pairs, the even one."""
    posterior = fit(found, preferences, prior)
    draws = posterior.draws(DRAWS, seed)
    return Wanted(recipe_weights(posterior, draws), asked(posterior, draws), posterior.mean)


def read_policies(experiment: Experiment, models: Path) -> dict[str, Adapter]:
    """Return the adapters of the policies that serve the testbed's users, in a seed's folder."""
    names = shared_preferences(experiment)
    paths = recipe_of(experiment, models, dict.fromkeys(names, 1 / len(names))).paths
    return {name: read_adapter(path, name) for name, path in paths.items()}


def reward_folders(experiment: Experiment, models: Path) -> dict[str, Path]:
    """Return the folders of the same preferences' reward models in a seed's folder."""
    return {name: reward_model(models, name) for name in shared_preferences(experiment)}


def write_user_soup(folder: Path, wanted: Wanted, experiment: Experiment, models: Path, policies: Mapping[str, Adapter]) -> None:
    """Merge a user's soup and write it to `folder`."""
    soup = merge(recipe_of(experiment, models, wanted.recipe), policies)
    with atomic_folder(folder) as temporary:
        write_soup(temporary, soup)


def by_user(rows: Sequence[dict], users: Sequence[dict], where: str) -> dict[int, list[dict]]:
    """Return {user: pairs} of all `users`, in order; raise InputError, naming the pair in `where`, for another user's pair."""
    found: dict[int, list[dict]] = {row["id"]: [] for row in users}
    for row in rows:
        if row["user"] not in found:
            raise InputError(f"{where}: pair {row['id']}: user {row['user']} is not among the users; draw pairs and users again")
        found[row["user"]].append(row)
    return found


def user_soups_step(config: Path, users: Path, pairs: Path, backbone: Path, models: Path, out: Path) -> None:
    """Write a soup per user to `out`/declared/<user> and `out`/inferred/<user>, from the policies in the seed's folder `models`.

    Beside the soups of a kind lie asked.parquet, what each user's prompts ask for, and scores.parquet, the margins of held-out
    pairs: the reward models' differences, weighted by the user's weights. Weights are inferred from the first of a user's own
    training pairs; an unseen user has none, and gets the even soup.
    """
    experiment = load(config)
    names = shared_preferences(experiment)
    rewards = reward_folders(experiment, models)
    inputs = {"users": users, "pairs": pairs, "backbone": backbone}
    inputs |= {f"reward/{name}": path for name, path in rewards.items()}
    inputs |= {f"ppo/{name}": policy(models, name) for name in names}
    with step("user soups", out, experiment, experiment.user_evaluation, inputs) as run:
        user_rows = read_parquet(users, USERS).to_pylist()
        rows = read_parquet(pairs, PAIRS).to_pylist()
        wanted: dict[str, dict[int, Wanted]] = {
            DECLARED: {row["id"]: declared(row["kind"], experiment) for row in user_rows},
            INFERRED: {},
        }
        most = experiment.user_evaluation.inferred_from
        own = {
            user: [row for row in found if row["split"] == "train"][:most]
            for user, found in by_user(rows, user_rows, str(pairs)).items()
        }
        held = [row for row in rows if row["split"] == experiment.evaluation.split]
        known = [row for found in own.values() for row in found]
        scored = differences(known + held, rewards, backbone, experiment.reward.max_length)
        of_held = scored[len(known) :]
        start = 0
        for user, found in own.items():
            seed = derive(experiment.seed, "user soups", user)
            wanted[INFERRED][user] = inferred(scored[start : start + len(found)], names, experiment.cold_start.prior, seed)
            start += len(found)
        policies = read_policies(experiment, models)
        for kind, soups in wanted.items():
            # As a whole, so that no soup of an earlier population is left.
            with atomic_folder(out / kind) as folder:
                for user, soup in soups.items():
                    write_user_soup(folder / str(user), soup, experiment, models, policies)
                told = pa.table({"id": list(soups), "text": [soup.text for soup in soups.values()]}, TEXTS)
                write_parquet(folder / ASKED, told)
                own_margins = [float(soups[row["user"]].weights @ d) for row, d in zip(held, of_held, strict=True)]
                everyone = np.mean([soups[row["id"]].weights for row in user_rows if row["group"] != UNSEEN], axis=0)
                generic = [float(everyone @ d) for d in of_held]
                write_margins(folder / "scores.parquet", held, own_margins, generic, run, f"{kind}_")
        run.output(*(out / kind for kind in wanted))
