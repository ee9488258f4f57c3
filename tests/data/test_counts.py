import pytest

from rlphf.data.counts import COUNTS, Counts
from rlphf.errors import InputError

PAIRS, PROMPTS = ("a", "P1A"), ("k", None)


def filled():
    counts = Counts()
    for split in ("train", "train", "test"):
        counts.keep(PAIRS, split)
    for reason in ("tie", "empty answer", "tie"):
        counts.drop(PAIRS, reason)
    counts.keep(PROMPTS, "validation")
    return counts


def test_each_source_has_its_sum_and_a_row_for_each_reason_and_all_sources_come_last():
    rows = [dict(zip(COUNTS.names, row, strict=True)) for row in filled().rows()]
    assert [(row["source"], row["preference"], row["reason"], row["read"], row["kept"], row["dropped"]) for row in rows] == [
        ("a", "P1A", "all", 6, 3, 3),
        ("a", "P1A", "empty answer", None, None, 1),
        ("a", "P1A", "tie", None, None, 2),
        ("k", None, "all", 1, 1, 0),
        ("all", None, "all", 7, 4, 3),
        ("all", None, "empty answer", None, None, 1),
        ("all", None, "tie", None, None, 2),
    ]
    assert [rows[-3][split] for split in ("train", "validation", "test")] == [2, 1, 1]


def test_nothing_counted_gives_no_rows():
    assert list(Counts().rows()) == []


def test_records_of_which_none_can_be_used_are_refused_with_what_was_wrong_with_them():
    counts = Counts()
    with pytest.raises(InputError, match=r"no record that can be used \(they are empty\)"):
        counts.check(0.0, 0.0)
    for reason in ("tie", "empty answer", "tie"):
        counts.drop(PAIRS, reason)
    with pytest.raises(InputError, match=r"\(1 dropped: empty answer; 2 dropped: tie\)"):
        counts.check(0.0, 0.0)


def test_an_empty_split_is_refused_unless_its_share_is_zero():
    filled().check(0.0, 0.2)
    with pytest.raises(InputError, match="the split validation is empty: 3 records are too few for a share of 0.2"):
        filled().check(0.2, 0.2)


def test_prompts_decide_where_there_are_no_pairs():
    counts = Counts()
    counts.keep(PROMPTS, "test")
    counts.check(0.0, 1.0)
    with pytest.raises(InputError, match="the split train is empty"):
        counts.check(0.0, 0.5)


def test_the_section_that_sets_the_shares_is_named():
    with pytest.raises(InputError, match=r"^users: the split validation .* change the share users\.validation"):
        counted = filled()
        counted.drop(PAIRS, "tie")
        counted.check(0.1, 0.1, "users")


def test_sources_that_give_nothing_are_refused():
    counts = Counts()
    counts.drop(PAIRS, "tie")
    with pytest.raises(InputError, match="no record that can be used"):
        counts.check(0.0, 0.0)
