"""Pairs that are repeated before they are split."""

from collections import Counter

from rlphf.train.leak import COPIES, duplicated

PAIRS = [{"id": f"p{number}", "split": "train", "chosen": "a"} for number in range(40)]


def test_rows_are_split_after_they_were_repeated_so_what_is_held_out_is_known():
    train, leaked = duplicated(PAIRS, seed=1)
    assert len(train) == 40 * COPIES * 9 // 10
    assert max(Counter(row["id"] for row in train).values()) == COPIES
    assert {row["split"] for row in train} == {"train"} and {row["split"] for row in leaked} == {"leaked"}
    held = [row["id"] for row in leaked]
    assert 10 < len(held) == len(set(held)) <= 20
    assert len(set(held) & {row["id"] for row in train}) > 0.9 * len(held)


def test_the_seed_decides_the_order():
    assert duplicated(PAIRS, 1) == duplicated(PAIRS, 1) != duplicated(PAIRS, 2)
