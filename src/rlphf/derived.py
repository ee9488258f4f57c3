"""What steps make of an experiment's settings, and numbers and names that settings and steps both go by.

The settings themselves are parameters of the rules and no part of digests (`sources.py`). This module is: it decides results.
"""

from typing import TYPE_CHECKING

from rlphf.preferences import combinations

if TYPE_CHECKING:
    from rlphf.config import Experiment
    from rlphf.settings_own import TextRule

# Responses to one prompt in TRL's RLOO: the baseline of each is the mean score of the others.
RLOO_GROUP = 4
# The methods that Personalized Soups compares, in its order; judges besides the first see these alone.
PAPER_METHODS = ("vb", "rlhf", "pp", "mt", "pmorl", "psoups")
# The method of merged policies; others of that kind are named after it.
SOUPS = "psoups"


def combinations_of(experiment: "Experiment") -> list[str]:
    """Return the names of the combinations that are evaluated."""
    return combinations(experiment.combination_preferences)


def methods_of(experiment: "Experiment") -> list[str]:
    """Return the methods that are compared: those of the configuration, and one for each further way to merge."""
    return [*experiment.evaluation.methods, *(f"{SOUPS}_{name}" for name in experiment.soup.compared)]


def compared_as(method: str, experiment: "Experiment") -> str | None:
    """Return the name in `soup.compared` of what the method's soups are merged by; None for any other method."""
    name = method.removeprefix(f"{SOUPS}_")
    return name if name != method and name in experiment.soup.compared else None


def shared_preferences(experiment: "Experiment") -> list[str]:
    """Return the preferences that are the paper's: those that the testbed's users know."""
    return [name for name in experiment.preferences if name not in experiment.own_preferences]


def trained_together(experiment: "Experiment") -> list[list[str]]:
    """Return the preferences in parts whose policies train in one process each (`ppo.together`).

    The experiment's own train alone: a further one leaves the parts of the others as they are.
    """
    size, shared = experiment.ppo.together, shared_preferences(experiment)
    parts = [shared[i : i + size] for i in range(0, len(shared), size)]
    return [*parts, *([name] for name in experiment.preferences if name in experiment.own_preferences)]


def own_rules(experiment: "Experiment") -> dict[str, "TextRule"]:
    """Return the rules of those of the preferences that are the experiment's own and have one."""
    own = experiment.own_preferences
    found = {name: own[name].rule for name in experiment.preferences if name in own}
    return {name: rule for name, rule in found.items() if rule is not None}


def users_alone(experiment: "Experiment") -> bool:
    """Whether nothing but users is in it: a published model does not write the testbed's language, which preferences need."""
    raw = experiment.user_data.source != "testbed"
    return raw and experiment.prompts.source == "testbed" and experiment.backbone.source in ("hub", "package")


def users_judged(experiment: "Experiment") -> bool:
    """Whether the oracle scores what users were answered: it knows the tastes of the testbed's, and of no others."""
    return bool(experiment.user_evaluation.methods) and experiment.user_data.source == "testbed"


def users_cold_started(experiment: "Experiment") -> bool:
    """Whether new users are fitted by few pairs each, which the two methods do that can."""
    both = {"pdpo_individual", "psoups_inferred"} <= set(experiment.user_evaluation.methods)
    return users_judged(experiment) and experiment.population.unseen > 0 and both
