"""Pairs or prompts of any table whose columns are named in the configuration; also what the hub's data sets go through."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlphf.data.sources.messages import HAS_SYSTEM, parts, question
from rlphf.data.sources.raw import BadField, Dropped, Pair, Place, Prompt, Raw, convert, number, text
from rlphf.data.sources.rows import files, rows
from rlphf.errors import InputError
from rlphf.preferences import GENERAL

_REQUIRED = ("prompt", "chosen", "rejected")
_OPTIONAL = ("preference", "user", "probability", "topic")


def maker(columns: Mapping[str, str], preference: str | None, where: str) -> Callable[[Place, dict[str, Any]], Raw]:
    """Return the function that makes a Pair or a Prompt of a record; `columns` is {our column: theirs}.

    `prompt`, `chosen` and `rejected` keep their names where `columns` gives no other. `preference`, `user`, `probability` and
    `topic` are read if `columns` names them, or, without any `columns`, where a record has them. Where `columns` name `prompt`
    but no answer, a record without `chosen` and `rejected` is a prompt. Texts may be messages (`messages.parts`); a record whose
    answers are messages and hold the prompt needs none, unless `columns` names it. Pairs speak for the record's preference, else
    for `preference`, else for nobody in particular. Raises InputError, beginning with `where`, for a column that we do not have.
    """
    unknown = [name for name in columns if name not in _REQUIRED + _OPTIONAL]
    if unknown:
        raise InputError(f"{where}: columns: {unknown[0]!r} is none of ours; choose from {', '.join(_REQUIRED + _OPTIONAL)}")
    theirs = {name: name for name in _REQUIRED} | dict(columns)
    may_be_prompts = "prompt" in columns and "chosen" not in columns and "rejected" not in columns

    def column(record: dict[str, Any], name: str) -> str | None:
        """Return their name of an optional column, or None where the record leaves it open."""
        if columns and name not in columns:
            return None
        field = theirs.get(name, name)
        if columns and field not in record:
            raise BadField(field, f"is missing; the record has {', '.join(map(str, record))}")
        return None if record.get(field) in (None, "") else field

    def make(place: Place, record: dict[str, Any]) -> Raw:
        if may_be_prompts and "chosen" not in record and "rejected" not in record:
            prompt = question(record, theirs["prompt"])
            if prompt is None:
                return Dropped(place, None, HAS_SYSTEM)
            topic = column(record, "topic")
            return Prompt(place, prompt, text(record, topic) if topic else None)
        implied = "prompt" not in columns and record.get("prompt") is None and isinstance(record.get(theirs["chosen"]), list)
        texts = parts(record, None if implied else theirs["prompt"], theirs["chosen"], theirs["rejected"])
        speaks_for = column(record, "preference")
        user = column(record, "user")
        probability = column(record, "probability")
        name = text(record, speaks_for, blank=False) if speaks_for else preference or GENERAL
        if texts is None:
            return Dropped(place, name, HAS_SYSTEM)
        return Pair(
            place,
            *texts,
            name,
            _user(record, user) if user else None,
            _probability(record, probability) if probability else None,
        )

    return make


def read(path: Path, columns: Mapping[str, str], preference: str | None) -> Iterator[Raw]:
    """Yield the pairs or prompts of a file that `rows` reads, or of every such file of a folder; see `maker`."""
    make = maker(columns, preference, str(path))
    for file in files(path):
        yield from convert(rows(file), make)


def _user(record: dict[str, Any], field: str) -> int:
    user = number(record, field)
    if user != int(user) or not 0 <= user < 2**53:
        raise BadField(field, f"is {user}, expected a whole number from 0 on")
    return int(user)


def _probability(record: dict[str, Any], field: str) -> float:
    probability = number(record, field)
    if not 0 < probability <= 1:
        raise BadField(field, f"is {probability}, expected a probability in (0, 1]")
    return probability
