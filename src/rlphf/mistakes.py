"""The mistakes of Personalized Soups' release that an experiment can make on purpose, and what each of them changes.

Each is a switch under `mistakes` in the configuration; `priced` lists those that get an arm: a folder beside the run's own,
`mistakes/<name>/`, with the steps that the mistake changes and nothing else. Table `release_bugs` compares both.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Mistake = Literal[
    "random_reward_head",
    "reward_without_response",
    "duplicated_pairs",
    "factor_merge",
    "other_starts",
    "low_precision_baselines",
    "test_selection",
]


@dataclass(frozen=True)
class Arm:
    """What a mistake changes: the `steps` of training and merging that are repeated, and the `methods` that answer anew."""

    steps: tuple[str, ...]
    methods: tuple[str, ...]


ARMS: dict[Mistake, Arm] = {
    "random_reward_head": Arm(("ppo", "soups"), ("psoups",)),
    "reward_without_response": Arm(("ppo",), ("pmorl",)),
    "duplicated_pairs": Arm(("reward", "ppo", "soups"), ("psoups",)),
    "factor_merge": Arm(("soups",), ("psoups",)),
    "other_starts": Arm(("ppo", "soups"), ("psoups",)),
    "low_precision_baselines": Arm((), ("vb", "pp", "psoups")),
    "test_selection": Arm(("ppo", "soups"), ("psoups",)),
}
# Folder of the arms in a seed's folder.
FOLDER = "mistakes"


def split_run(run: str) -> tuple[str, Mistake | None]:
    """Return the seed and the mistake of a run's name: "1103", or "1103/mistakes/factor_merge"."""
    seed, _, name = run.partition(f"/{FOLDER}/")
    known = [mistake for mistake in ARMS if mistake == name]
    return seed, known[0] if known else None


def run_of(run: str, step: str) -> str:
    """Return the name of the run from which `run` takes the output of `step`: `run` itself, or the seed's."""
    seed, mistake = split_run(run)
    return seed if mistake and step not in (*ARMS[mistake].steps, "generate", "judge") else run


def arm_runs(seed: int, priced: Iterable[Mistake]) -> list[str]:
    """Return the names of a seed's runs that make a mistake each."""
    return [f"{seed}/{FOLDER}/{name}" for name in priced]
