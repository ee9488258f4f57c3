"""Users as a table: who they are, what they are called in tables, and what they say of themselves."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.compute as pc

from rlphf.data.records import conform, filled, refuse, unique

MAJORITY, MINORITY, UNSEEN = "majority", "minority", "unseen"

PEOPLE = pa.schema(
    [
        pa.field("id", pa.int64(), nullable=False),  # From 1 on; 0 is the generic user.
        pa.field("group", pa.string(), nullable=False),  # majority, minority, or unseen: in no training pair.
        pa.field("kind", pa.string(), nullable=False),  # What the user is, such as a persona's name; many may be of one kind.
        pa.field("text", pa.string(), nullable=False),  # What the user says of themselves; may be empty.
    ]
)


@dataclass(frozen=True)
class Person:
    """A row of PEOPLE."""

    id: int
    group: str
    kind: str
    text: str = ""


def people_table(users: Sequence[Person]) -> pa.Table:
    """Return users as a PEOPLE table, in the order given."""
    return pa.Table.from_pylist([asdict(person) for person in users], PEOPLE)


def check_people(table: pa.Table, where: str) -> None:
    """Raise InputError, beginning with `where` and naming row and column, if `table` breaks a rule of PEOPLE.

    Ids are unique and above 0, groups are known, kinds are not blank. Further columns are let through.
    """
    conform(table, PEOPLE, where)
    refuse(pc.less(table["id"], 1), where, "id", "is below 1; 0 is the generic user, who is in no table")
    groups = (MAJORITY, MINORITY, UNSEEN)
    unknown = pc.invert(pc.is_in(table["group"], value_set=pa.array(groups)))
    refuse(unknown, where, "group", f"is unknown; choose from {', '.join(groups)}")
    filled(table, ("kind",), where)
    unique(table, ("id",), where)
