import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlphf.data import keys
from rlphf.data.keys import Keys, fingerprint

ROWS = st.lists(st.tuples(st.integers(0, 9) | st.just((1 << 61) - 1), st.integers(0, 3), st.booleans()))


def filled(rows):
    found = Keys()
    for key, tag, *_ in rows:
        found.add(key, tag)
    return found


def by_row(found, without=None):
    alike = {}
    for part in found.alike(without):
        for row, *values in zip(*(column.tolist() for column in part), strict=True):
            assert row not in alike
            alike[row] = tuple(values)
    return alike


def test_fingerprints_do_not_run_parts_together():
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert fingerprint("a", None) != fingerprint("a", "None")
    assert 0 <= fingerprint("a", 1) < 1 << 61


@pytest.fixture(params=[1, 4, 1 << 18])
def part(request, monkeypatch):
    monkeypatch.setattr(keys, "PART", request.param)
    monkeypatch.setattr(keys, "_WAITING", 3)


@pytest.mark.usefixtures("part")
@given(ROWS)
def test_every_row_that_counts_finds_the_first_of_its_key(rows):
    first, expected = {}, {}
    for number, (key, tag, out) in enumerate(rows):
        if not out:
            at = first.setdefault(key, number)
            expected[number] = at, tag, rows[at][1]
    with filled(rows) as found:
        assert by_row(found, np.array([out for *_, out in rows], dtype=bool)) == expected


def test_rows_of_others_come_behind_the_own_ones():
    with filled([(5, 1), (6, 0)]) as found, filled([(6, 2), (7, 0)]) as others:
        found.extend(others)
        assert found.count == 4 and by_row(found) == {0: (0, 1, 1), 1: (1, 0, 0), 2: (1, 2, 0), 3: (3, 0, 0)}


def test_the_file_goes_with_the_context(tmp_path):
    with Keys(tmp_path) as found:
        found.add(1)
        assert len(list(found.alike())) == 1
    assert found.file.closed and list(tmp_path.iterdir()) == []
