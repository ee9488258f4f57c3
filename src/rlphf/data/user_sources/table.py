"""Users of any table of pairs that has a column for who chose: people of one's own, under any names."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlphf.data.people import MAJORITY, MINORITY, Person
from rlphf.data.sources import table
from rlphf.data.sources.raw import BadField, Pair, Place, Raw, convert, text
from rlphf.data.sources.rows import files, rows
from rlphf.errors import InputError

_PAIR = ("prompt", "chosen", "rejected")
# Of a user, in any record, and alike in all that have it; and the pair's own split.
_OPTIONAL = ("text", "kind", "group", "split")
# Kind of users of whom no record says one.
USER = "user"
SPLITS = ("train", "test")


def read(path: Path, columns: Mapping[str, str]) -> tuple[list[Person], Iterator[Raw]]:
    """Return the users, with ids 1, 2, ... in the order in which they come first, and their pairs.

    A record has `prompt`, `chosen`, `rejected` and `user`, a name or a number, and may have `text`, what the user says of
    themselves; `kind`, by which tables name users; `group`, majority or minority; and `split`, train or test. `columns` is
    {our column: theirs}, for those of another name. Raises InputError for a column that we do not have, and for one that no
    record has.
    """
    unknown = [name for name in columns if name not in (*_PAIR, "user", *_OPTIONAL)]
    if unknown:
        choices = ", ".join((*_PAIR, "user", *_OPTIONAL))
        raise InputError(f"user_data.columns: {unknown[0]!r} is none of ours; choose from {choices}")
    theirs = {name: columns.get(name, name) for name in (*_PAIR, "user", *_OPTIONAL)}
    # A prompt that is not named may be in the answers' messages.
    pair_of = table.maker({name: theirs[name] for name in _PAIR if name in columns or name != "prompt"}, None, "user_data")
    users: dict[str, tuple[int, dict[str, str]]] = {}
    unread = {name for name in columns if name in _OPTIONAL}

    def make(place: Place, record: dict[str, Any]) -> Raw:
        name = _name(record, theirs["user"])
        given = [field for field in _OPTIONAL if theirs[field] in record]
        unread.difference_update(given)
        # What is null or blank says nothing.
        said = {field: text(record, theirs[field]) for field in given if record[theirs[field]] is not None}
        said = {field: value for field, value in said.items() if value}
        split = said.pop("split", None)
        for field, value, choices in (("split", split, SPLITS), ("group", said.get("group"), (MAJORITY, MINORITY))):
            if value is not None and value not in choices:
                raise BadField(theirs[field], f"is {value!r}, expected {' or '.join(choices)}")
        number, known = users.setdefault(name, (len(users) + 1, {}))
        for field, value in said.items():
            if known.setdefault(field, value) != value:
                raise BadField(theirs[field], f"is not what user {name} had before: {known[field]!r}")
        pair = pair_of(place, record)
        if isinstance(pair, Pair):
            pair.user, pair.split = number, split
        return pair

    made = [item for file in files(path) for item in convert(rows(file), make)]
    if users and unread:
        name = sorted(unread)[0]
        raise InputError(f"user_data.columns: no record of {path} has {columns[name]!r}, which is to be {name}; correct the name")
    persons = [
        Person(number, about.get("group", MAJORITY), about.get("kind", USER), about.get("text", ""))
        for number, about in users.values()
    ]
    for pair in made:
        if isinstance(pair, Pair) and pair.user:
            pair.preference = persons[pair.user - 1].kind
    return persons, iter(made)


def _name(record: dict[str, Any], field: str) -> str:
    """Return a user's name; a number is one as it is written."""
    value = record.get(field)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return text(record, field, blank=False)
