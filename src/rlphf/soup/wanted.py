"""The soups that an experiment asks for: whose policies they are merged from, and with which weights."""

from typing import Any

from rlphf.config import Experiment
from rlphf.derived import combinations_of
from rlphf.preferences import members
from rlphf.soup.recipe import SPARSE


def wanted(experiment: Experiment) -> dict[str, dict[str, float]]:
    """Return {soup: {preference: weight}}: one per combination, and those of the front as "front/<name>"."""
    soups = {combination: combination_weights(experiment, combination) for combination in combinations_of(experiment)}
    return soups | {f"front/{name}": weights for name, weights in front_weights(experiment).items()}


def merging(experiment: Experiment) -> dict[str, Any]:
    """Return by which rule an experiment merges: the settings of its recipes, or the release's where it makes that mistake."""
    mistaken = experiment.mistakes.factor_merge or experiment.mistakes.other_starts
    if mistaken:
        return {"rule": "factor"}
    soup = experiment.soup
    return {"rule": soup.rule, "svd_rank": soup.svd_rank} | ({"density": soup.density} if soup.rule in SPARSE else {})


def combination_weights(experiment: Experiment, combination: str) -> dict[str, float]:
    """Return {preference: weight} of a combination's soup: equal shares, but for those that `soup.weights` names."""
    ids = members(combination)
    return {i: experiment.soup.weights.get(i, 1 / len(ids)) for i in ids}


def front_weights(experiment: Experiment) -> dict[str, dict[str, float]]:
    """Return {name: {preference: weight}} of the soups on the front between two policies; a name is the second one's weight."""
    if not experiment.evaluation.front:
        return {}
    first, second = experiment.evaluation.front
    shares = [i / (experiment.evaluation.front_points - 1) for i in range(experiment.evaluation.front_points)]
    return {f"{share:.3f}": {first: 1 - share, second: share} for share in shares}
