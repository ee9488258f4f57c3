import pyarrow as pa
import pytest

from rlphf.data.people import PEOPLE, Person, check_people, people_table
from rlphf.errors import InputError

GOOD = [Person(1, "majority", "art", "I paint."), Person(7, "unseen", "math")]


def test_users_become_a_table_that_keeps_the_rules():
    table = people_table(GOOD)
    assert table.schema == PEOPLE and table["text"].to_pylist() == ["I paint.", ""]
    check_people(table, "users")
    check_people(table.append_column("cluster", pa.array([1, 2])), "users")


@pytest.mark.parametrize(
    ("person", "reason"),
    [
        (Person(0, "majority", "art"), "row 3, column id: is below 1; 0 is the generic user"),
        (Person(2, "some", "art"), "row 3, column group: is unknown; choose from majority, minority, unseen"),
        (Person(2, "minority", " "), "row 3, column kind: is empty"),
        (Person(7, "minority", "art"), "id: '7' occurs 2 times"),
    ],
)
def test_a_user_who_breaks_a_rule_is_refused_with_row_and_column(person, reason):
    with pytest.raises(InputError, match=f"^users: {reason}"):
        check_people(people_table([*GOOD, person]), "users")


def test_a_missing_column_is_refused():
    with pytest.raises(InputError, match="users: column kind is missing"):
        check_people(people_table(GOOD).drop_columns(["kind"]), "users")
