"""What every reader of a source yields, and the checks of single fields that readers share."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from rlphf.data.dedup import normalise
from rlphf.errors import InputError


class Place(NamedTuple):
    """Where a record stands: `unit` is "line", or "record" where lines mean nothing (lists in JSON, Parquet, the hub)."""

    path: str
    unit: str
    number: int


@dataclass(slots=True)
class Pair:
    """A question with two answers, as the source has them; texts may be blank or equal."""

    place: Place
    prompt: str
    chosen: str
    rejected: str
    preference: str
    user: int | None = None
    probability: float | None = None
    split: str | None = None  # The source's own, "train" or "test"; read where pairs are users' (user_import.py).
    opening: str | None = None  # First question of the dialogue that the prompt continues; read there, too.


@dataclass(slots=True)
class Prompt:
    """A question without answers."""

    place: Place
    prompt: str
    topic: str | None = None


@dataclass(slots=True)
class Dropped:
    """A well-formed record that says nothing that can be used, such as a tie."""

    place: Place
    preference: str | None
    reason: str


@dataclass(slots=True)
class Bad:
    """A malformed record: stop there, or set it aside."""

    place: Place
    field: str
    reason: str
    record: str

    def error(self, advice: str = "correct it, or set data.on_bad_record: quarantine") -> InputError:
        """Return the error that names file, line, field and what to do."""
        where = f"{self.place.path}, {self.place.unit} {self.place.number}"
        field = f", field {self.field}" if self.field else ""
        return InputError(f"{where}{field}: {self.reason}; {advice}")


class BadField(Exception):
    """Raised inside a reader for a field that makes its record bad."""

    def __init__(self, field: str, reason: str):
        super().__init__(reason)
        self.field = field
        self.reason = reason


Raw = Pair | Prompt | Dropped | Bad
Row = tuple[Place, dict[str, Any]]
Made = TypeVar("Made")


def convert(rows: Iterable[Row | Bad], make: Callable[[Place, dict[str, Any]], Made]) -> Iterator[Made | Bad]:
    """Yield `make(place, record)` for every row; rows that are bad, or become so in `make`, come out as Bad."""
    for row in rows:
        if isinstance(row, Bad):
            yield row
            continue
        try:
            yield make(*row)
        except BadField as error:
            yield Bad(row[0], error.field, error.reason, shown(row[1]))


def shown(record: Any) -> str:
    """Return a record as JSON for a person to read, or what it is if it is nested too deeply for that."""
    try:
        return json.dumps(record, default=str)
    except RecursionError:
        return f"{type(record).__name__}, nested too deeply to be shown"


def text(record: dict[str, Any], field: str, blank: bool = True) -> str:
    """Return a field's text without surrounding whitespace; raise BadField for anything else.

    A field that may not be blank has to have a visible character.
    """
    value = record.get(field)
    if not isinstance(value, str):
        raise BadField(field, _instead(record, field, "text"))
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BadField(field, "is not valid UTF-8") from None
    value = value.strip()
    if not blank and not normalise(value):
        raise BadField(field, "is empty")
    return value


def number(record: dict[str, Any], field: str) -> float:
    """Return a field's finite number, also out of a text as CSV has it; raise BadField for anything else."""
    value = record.get(field)
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            pass
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadField(field, _instead(record, field, "a number"))
    if not abs(value) <= sys.float_info.max:
        raise BadField(field, "is not finite, or larger than any number to work with")
    return float(value)


def _instead(record: dict[str, Any], field: str, expected: str) -> str:
    if field not in record:
        return f"is missing; the record has {', '.join(map(str, record)) or 'no fields'}"
    value = record[field]
    return f"expected {expected}, got {'null' if value is None else type(value).__name__}"
