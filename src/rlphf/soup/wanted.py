"""The soups that an experiment asks for: whose policies they are merged from, with which weights and by which rule.

`compared` names one of the further ways to merge in `soup.compared`; None stands for the experiment's own.
"""

from typing import Any

from rlphf.config import Experiment
from rlphf.derived import combinations_of
from rlphf.preferences import members
from rlphf.settings_soup import Merging
from rlphf.soup.recipe import SPARSE


def wanted(experiment: Experiment, compared: str | None = None) -> dict[str, dict[str, float]]:
    """Return {soup: {preference: weight}}: one per combination, and those of the front, "front/<name>", of its own way alone."""
    soups = {name: soup_weights(experiment, name, compared) for name in combinations_of(experiment)}
    front = {} if compared else front_weights(experiment)
    return soups | {f"front/{name}": weights for name, weights in front.items()}


def merging(experiment: Experiment, compared: str | None = None) -> dict[str, Any]:
    """Return by which rule soups are merged: the settings of their recipes, or the release's where it makes that mistake."""
    mistaken = experiment.mistakes.factor_merge or experiment.mistakes.other_starts
    if mistaken and compared is None:
        return {"rule": "factor"}
    soup = way(experiment, compared)
    return {"rule": soup.rule, "svd_rank": soup.svd_rank} | ({"density": soup.density} if soup.rule in SPARSE else {})


def way(experiment: Experiment, compared: str | None) -> Merging:
    """Return the settings of a way to merge."""
    return experiment.soup.compared[compared] if compared else experiment.soup


def soup_weights(experiment: Experiment, combination: str, compared: str | None = None) -> dict[str, float]:
    """Return {preference: weight} of a combination's soup: the combination's weights, times `scale`."""
    scale = way(experiment, compared).scale
    return {name: scale * weight for name, weight in combination_weights(experiment, combination).items()}


def combination_weights(experiment: Experiment, combination: str) -> dict[str, float]:
    """Return {preference: weight} of a combination's policies: equal shares, but for those that `soup.weights` names."""
    ids = members(combination)
    return {i: experiment.soup.weights.get(i, 1 / len(ids)) for i in ids}


def front_weights(experiment: Experiment) -> dict[str, dict[str, float]]:
    """Return {name: {preference: weight}} of the soups on the front between two policies; a name is the second one's weight."""
    if not experiment.evaluation.front:
        return {}
    first, second = experiment.evaluation.front
    shares = [i / (experiment.evaluation.front_points - 1) for i in range(experiment.evaluation.front_points)]
    return {f"{share:.3f}": {first: 1 - share, second: share} for share in shares}
