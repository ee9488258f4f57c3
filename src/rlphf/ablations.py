"""Variations of the settings that P-DPO is trained with: each value is a run of its own beside the seed's.

`ablations` in the configuration names settings and their values; a run lies in the seed's folder, `ablations/<setting>-<value>/`,
has the steps that the setting changes, and takes everything else from the seed's. Table `user_ablations` shows them.
"""

from collections.abc import Iterable, Mapping

from rlphf import mistakes

# {setting: methods that are trained for each value}. Settings of the population change everyone's pairs.
ABLATIONS: dict[str, tuple[str, ...]] = {
    "dpo.alpha": ("pdpo_individual",),
    "users.tokens": ("pdpo_individual",),
    "users.clusters": ("pdpo_cluster",),
    "users.init": ("pdpo_individual",),
    "population.users": ("dpo", "pdpo_individual", "pdpo_cluster"),
    "population.train_pairs": ("dpo", "pdpo_individual", "pdpo_cluster"),
}
FOLDER = "ablations"

Value = int | float | str


def split_run(run: str) -> tuple[str, str | None]:
    """Return the seed and the variation of a run's name: "1103", or "1103/ablations/dpo.alpha-0.5"."""
    seed, _, name = run.partition(f"/{FOLDER}/")
    return seed, name or None


def runs(seed: int | str, varied: Mapping[str, Iterable[Value]]) -> dict[str, tuple[str, Value]]:
    """Return {name of a seed's run: (setting, value)} of all variations."""
    return {f"{seed}/{FOLDER}/{setting}-{value}": (setting, value) for setting, values in varied.items() for value in values}


def run_of(run: str, step: str) -> str:
    """Return the name of the run from which `run` takes the output of `step`: `run` itself, or the seed's.

    A variation has its own models and answers, and one of the population also its own pairs; for a mistake's run see `mistakes`.
    """
    seed, name = split_run(run)
    if name is None:
        return mistakes.run_of(run, step)
    own = ("user_model", "user_answers", *(["user_pairs"] if name.startswith("population.") else []))
    return run if step in own else seed
