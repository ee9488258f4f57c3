"""What a judge is told: the texts beside this module, filled with one question. Each criterion has a file of its own."""

from functools import cache
from pathlib import Path

from rlphf.errors import InputError
from rlphf.preferences import PREFERENCES, known


def criterion(name: str) -> str:
    """Return the sentence that describes a criterion: a preference's id, or "helpfulness".

    Raises InputError for one of the experiment's own preferences that judges are told nothing of.
    """
    if name not in known() or name in PREFERENCES:
        return _read(name)
    if not known()[name].judge:
        raise InputError(f"own_preferences.{name}.judge: needed, because judges that compare have to be told of it")
    return known()[name].judge


def comparison(question: str, name: str, first: str, second: str) -> str:
    """Return what a judge is asked: which of two responses to a question meets the criterion `name` better."""
    return _read("comparison").format(question=question, criterion=criterion(name), first=first, second=second)


def again() -> str:
    """Return what a judge is told whose reply has no verdict."""
    return _read("again")


@cache
def _read(name: str) -> str:
    return Path(__file__).with_name(f"{name}.txt").read_text(encoding="utf-8").strip()
