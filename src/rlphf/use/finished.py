"""A finished run as a person uses it: where its models are, and soups that are given as text. Nothing heavy is imported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlphf.config import Experiment, load
from rlphf.derived import users_alone
from rlphf.errors import InputError
from rlphf.layout import policy

RESULTS = Path("results/demo")
# Weights as people write them, such as three of 0.33, may miss 1 by this.
ROUNDED = 0.011
# What the backbone alone goes by in place of a soup.
PLAIN = "plain"


@dataclass(frozen=True)
class Finished:
    """The folder of a seed whose backbone is there and policies of its `preferences`, and its experiment."""

    folder: Path
    experiment: Experiment

    @property
    def backbone(self) -> Path:
        """Folder of the backbone."""
        return self.folder / "backbone" / "model"

    @property
    def preferences(self) -> list[str]:
        """The experiment's preferences whose policies are there: one that was added to it may still be in training."""
        return [name for name in self.experiment.preferences if self.policy(name).is_dir()]

    def policy(self, name: str) -> Path:
        """Folder of a preference's policy."""
        return policy(self.folder, name)


def finished_run(results: Path) -> Finished:
    """Return the finished run in the folder of an experiment or of one of its seeds.

    Raises InputError where there is none, where the experiment has several and the folder is not one of theirs, and for an
    experiment about users alone, which trains no policy of a preference.
    """
    seeds = (
        [results] if (results / "config.yaml").exists() else sorted(path.parent for path in results.glob("seed-*/config.yaml"))
    )
    if len(seeds) > 1:
        raise InputError(f"{results}: has several runs; name one, such as --results {seeds[0]}")
    if not seeds:
        raise InputError(f"{results}: holds no finished run; run `make demo` first, or name another folder with --results")
    run = Finished(seeds[0], load(seeds[0] / "config.yaml"))
    if users_alone(run.experiment):
        raise InputError(
            f"{results}: experiment {run.experiment.experiment} is about users alone and has no policy; name another run"
        )
    again = f"let experiment {run.experiment.experiment} run to its end first"
    if not run.backbone.is_dir():
        raise InputError(f"{run.backbone}: is not there; {again}")
    if not run.preferences:
        raise InputError(f"{run.folder / 'ppo'}: holds no policy; {again}")
    return run


def parse_soup(text: str, known: Sequence[str]) -> dict[str, float]:
    """Return {preference: weight} of a soup written as "P1A=0.5,P2B=0.3,P3A=0.2"; {}, the backbone, for "plain".

    Two preferences of one axis may both have a weight: that is a policy between the two. Raises InputError for a preference that
    is not `known`, one that is named twice, a weight that is no number or negative, and weights that do not sum to 1.
    """
    if text.strip() == PLAIN:
        return {}
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        if name not in known:
            raise InputError(f"soup {text!r}: this run has no policy of {name!r}; choose from {', '.join(known)}, or {PLAIN}")
        if name in weights:
            raise InputError(f"soup {text!r}: {name} is named twice; give it one weight")
        try:
            weights[name] = float(number)
        except ValueError:
            weights[name] = float("nan")
        # Written so that it is refused unless it is a number.
        if not equals or not 0 <= weights[name] < float("inf"):
            raise InputError(f"soup {text!r}: {name}: expected a weight of 0 or more, such as {name}=0.5")
    total = sum(weights.values())
    if abs(total - 1) > ROUNDED:
        raise InputError(f"soup {text!r}: the weights sum to {total:g}; give weights that sum to 1")
    return weights


def soup_text(weights: Mapping[str, float]) -> str:
    """Return a soup as it is written on the command line."""
    return ",".join(f"{name}={weight:g}" for name, weight in weights.items()) or PLAIN
