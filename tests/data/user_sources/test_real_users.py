"""Claims about the users of the real raw data, where it is at hand."""

from collections import Counter

import pytest

from rlphf.data.user_import import Imported, import_users
from rlphf.settings_users import UserData


def imported(source, folder) -> Imported:
    if not folder.is_dir():
        pytest.skip(f"no real raw data: {folder} is not there")
    return import_users(UserData(source=source, path=str(folder)), 1103, "error")


def test_real_personas_are_twenty_users_of_whom_three_want_what_the_others_do_not(real_raw):
    made = imported("persona", real_raw / "persona_evals")
    users = made.users.to_pylist()
    assert [p["id"] for p in users] == list(range(1, 21))
    assert {p["kind"] for p in users if p["group"] == "minority"} == {"neuroticism", "risk-averse", "subscribes-to-deontology"}
    counts = Counter(made.pairs["user"].to_pylist())
    assert all(970 <= counts[p["id"]] <= 1000 for p in users)
    totals = [row for row in made.counts.to_pylist() if (row["source"], row["reason"]) == ("all", "all")]
    assert (totals[0]["read"], totals[0]["kept"]) == (20_000, 19_873)


def test_real_dialogues_are_of_two_users_who_disagree_on_four_of_ten_that_both_read(real_raw):
    made = imported("hh_rlhf", real_raw / "hh_rlhf")
    assert [(p["kind"], p["group"]) for p in made.users.to_pylist()] == [("helpful", "majority"), ("harmless", "minority")]
    assert Counter(made.pairs["user"].to_pylist()) == {1: 2153, 2: 2303}
    chosen = {}
    for row in made.pairs.to_pylist():
        chosen.setdefault((row["prompt"], *sorted((row["chosen"], row["rejected"]))), set()).add((row["user"], row["chosen"]))
    both = [found for found in chosen.values() if len({user for user, _ in found}) == 2]
    assert (len(both), sum(len({text for _, text in found}) == 2 for found in both)) == (1047, 465)
