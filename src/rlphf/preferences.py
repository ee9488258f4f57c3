"""The preferences of Personalized Soups (Table 1): ids, axes, canonical prompts, and combinations of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from random import Random

from rlphf.errors import InputError


@dataclass(frozen=True)
class Preference:
    """One preference of a user: `prompt` is the string that asks a policy for it."""

    id: str
    axis: str
    prompt: str


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
# What labels of the "generally better" response go by in place of a preference's id.
GENERAL = "general"
# The method that serves all preferences with one reward model and one policy; its models go by its name.
PMORL = "pmorl"
# The method that imitates the chosen responses of all preferences; its policy goes by its name.
MT = "mt"
# The judge that is a reward model; it goes by its name among them.
GOLD = "gold"
# The reward model that chooses checkpoints in place of each policy's own; it is no judge and shares no pair with one.
SELECTOR = "selector"
# How a question may ask for a preference; settings named `asked` weigh these forms.
FORMS = ("nothing", "own", "all")


def preference(name: str) -> Preference:
    """Return the preference with id `name`; raise InputError if there is none."""
    if name not in PREFERENCES:
        raise InputError(f"preference {name!r} is unknown; choose from {', '.join(PREFERENCES)}")
    return PREFERENCES[name]


def combinations(ids: Iterable[str]) -> list[str]:
    """Return the names ("P1A-P2A-P3A") of all combinations of one preference per axis over `ids`, in order.

    Six core preferences give 8 combinations, all eight give 16. An axis without a preference is left out.
    """
    known = [preference(i) for i in ids]
    by_axis = [[p.id for p in known if p.axis == axis] for axis in AXES]
    return ["-".join(choice) for choice in product(*filter(None, by_axis))]


def members(combination: str) -> list[str]:
    """Return the preference ids of a combination's name; raise InputError for two of one axis."""
    ids = combination.split("-")
    axes = [preference(i).axis for i in ids]
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

    "nothing": none; "own": the preference alone; "all": it among one of every other axis, drawn by `rng` from all that there
    are (so that an experiment's choice of preferences changes nothing), in the order of the axes. "general" asks for nothing.
    """
    if form == "nothing" or name == GENERAL:
        return []
    if form == "own":
        return alone(name)
    by_axis = [[p.id for p in PREFERENCES.values() if p.axis == axis] for axis in AXES]
    return [name if name in ids else rng.choice(ids) for ids in by_axis]
