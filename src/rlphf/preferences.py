"""The preferences of Personalized Soups (Table 1): ids, axes, prompts, and combinations of them; and an experiment's own.

A process works on one experiment. Whoever reads its configuration declares its own preferences, so that all that goes by ids
knows them as it knows the paper's.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from random import Random

from rlphf.errors import InputError


@dataclass(frozen=True)
class Preference:
    """One preference of a user: `prompt` is the string that asks a policy for it.

    One of an experiment's own has its word (`name`) and what a judge is told of it with it; the paper's have them elsewhere.
    """

    id: str
    axis: str
    prompt: str
    name: str = ""
    judge: str = ""


PREFERENCES: dict[str, Preference] = {
    p.id: p
    for p in (
        Preference("P1A", "expertise", "Generate a response that can be easily understood by an elementary school student."),
        Preference("P1B", "expertise", "Generate a response that only a PhD Student in that specific field could understand."),
        Preference("P2A", "informativeness", "Generate a response that is concise and to the point, without being verbose."),
        Preference(
            "P2B", "informativeness", "Generate a response that is very informative, without missing any background information."
        ),
        Preference("P3A", "style", "Generate a response that is friendly, witty, funny, and humorous, like a close friend."),
        Preference("P3B", "style", "Generate a response in an unfriendly manner."),
        Preference("P3C", "style", "Generate a response in a sassy manner."),
        Preference("P3D", "style", "Generate a response in a sarcastic manner."),
    )
}
AXES: tuple[str, ...] = ("expertise", "informativeness", "style")
# Stands in place of a preference's id where the "generally better" response is labelled.
GENERAL = "general"
# The method that serves all preferences with one reward model and one policy; its models go by its name.
PMORL = "pmorl"
# The method that imitates the chosen responses of all preferences; its policy goes by its name.
MT = "mt"
# The judge that is a reward model; also the name of that model among reward models.
GOLD = "gold"
# The reward model that chooses checkpoints in place of each policy's own; it is no judge and shares no pair with one.
SELECTOR = "selector"
# How a question may ask for a preference; settings named `asked` weigh these forms.
FORMS = ("nothing", "own", "all")


# Those of the experiment that this process works on; set by `declare` alone.
_own: dict[str, Preference] = {}


def declare(own: Mapping[str, Preference]) -> None:
    """Make an experiment's own preferences known to this process, in place of those of any other."""
    _own.clear()
    _own.update(own)


def known() -> dict[str, Preference]:
    """Return all preferences by id: the paper's, and then the experiment's own."""
    return {**PREFERENCES, **_own}


def preference(name: str) -> Preference:
    """Return the preference with id `name`; raise InputError if there is none."""
    if name not in known():
        raise InputError(f"preference {name!r} is unknown; choose from {', '.join(known())}")
    return known()[name]


def is_id(name: str) -> bool:
    """Whether `name` is formed like a preference's id, also one of an experiment that is not at hand."""
    return re.fullmatch(r"P[1-3][A-Z]", name) is not None


def axis_of(name: str) -> str:
    """Return the axis of a preference, which the number in its id says; raise InputError for what is no id."""
    return AXES[int(name[1]) - 1] if is_id(name) else preference(name).axis


def combinations(ids: Iterable[str]) -> list[str]:
    """Return the names ("P1A-P2A-P3A") of all combinations of one preference per axis over `ids`, in order.

    Six core preferences give 8 combinations, all eight give 16. An axis without a preference is left out.
    """
    found = [preference(i) for i in ids]
    by_axis = [[p.id for p in found if p.axis == axis] for axis in AXES]
    return ["-".join(choice) for choice in product(*filter(None, by_axis))]


def members(combination: str) -> list[str]:
    """Return the preference ids of a combination's name; raise InputError for two of one axis."""
    ids = combination.split("-")
    axes = [axis_of(i) for i in ids]
    for axis in axes:
        if axes.count(axis) > 1:
            raise InputError(f"combination {combination!r} has two preferences of the axis {axis!r}; choose one")
    return ids


def instruction(question: str, ids: Iterable[str] = ()) -> str:
    """Return the question followed by the prompts of the preferences `ids`, as every policy sees it."""
    return " ".join([question, *(preference(i).prompt for i in ids)])


def alone(name: str) -> list[str]:
    """Return the ids that a question asks for when it asks for preference `name` alone; none for "general"."""
    return [] if name == GENERAL else [preference(name).id]


def request(name: str, form: str, rng: Random) -> list[str]:
    """Return the ids that a question asks for when it is to serve preference `name` in one of the FORMS.

    "nothing": none; "own": the preference alone; "all": it among one of every other axis, drawn by `rng` from all of the paper's
    (so that an experiment's choice of preferences changes nothing), in the order of the axes. "general" asks for nothing.
    """
    if form == "nothing" or name == GENERAL:
        return []
    if form == "own":
        return alone(name)
    by_axis = [[p.id for p in PREFERENCES.values() if p.axis == axis] for axis in AXES]
    return [name if axis_of(name) == axis else rng.choice(ids) for axis, ids in zip(AXES, by_axis, strict=True)]
