"""Claims about where users' pairs belong."""

from collections import Counter

from rlphf.data.sources.raw import Pair, Place
from rlphf.data.user_splits import CAPPED, LATER, UNTESTED, cap, place, trained

HERE = Place("a.jsonl", "line", 1)


def asked(user, prompt, chosen="yes", **more):
    return user, Pair(HERE, prompt, chosen, "no", "kind", user, **more)


def questions(user, count, start=0):
    return [asked(user, f"Question {n}?") for n in range(start, start + count)]


def kept(placed):
    return [row for row in placed if not row.reason]


def test_a_prompt_lies_in_one_split_whoever_is_asked():
    placed = place([*questions(1, 100), *questions(2, 100)], set(), 7, 0.2, 0.2)
    splits = {}
    for row in placed:
        assert splits.setdefault(row.pair.prompt, row.split) == row.split
    assert set(splits.values()) == {"train", "validation", "test"} and kept(placed) == placed


def test_unseen_users_have_test_pairs_alone_and_keep_those_that_only_they_were_asked():
    placed = place([*questions(1, 100), *questions(2, 100, start=50)], {2}, 7, 0.2, 0.2)
    seen = {row.pair.prompt: row.split for row in placed if row.user == 1}
    for row in placed:
        if row.user == 2:
            assert row.reason == (UNTESTED if seen.get(row.pair.prompt, "test") != "test" else None)
    assert Counter(row.split for row in kept(placed) if row.user == 2)["test"] > 50
    assert trained(placed) == {1}


def test_a_source_own_test_is_kept_for_tests_and_its_prompts_leave_training():
    rows = [asked(1, f"Q{n}?", split="train") for n in range(50)]
    placed = place([*rows, asked(1, "q3!", split="test"), asked(2, "new", split="test")], set(), 7, 0.3, 0.9)
    assert [row.split for row in placed[-2:]] == ["test", "test"]
    assert {row.split for row in placed[:50] if not row.reason} == {"train", "validation"}
    assert [row.pair.prompt for row in placed if row.reason == LATER] == ["Q3?"]


def test_who_is_never_trained_is_unseen_and_has_no_validation_pairs():
    placed = place([asked(n, f"Question {n}?") for n in range(1, 101)], set(), 7, 0.3, 0.3)
    assert {row.reason for row in placed if row.split == "validation"} == {UNTESTED}
    assert trained(placed) == {row.user for row in placed if row.split == "train"}


def test_a_cut_dialogue_goes_with_its_opening():
    whole = [asked(1, f"Start {n}?") for n in range(60)]
    cut = [asked(1, f"Human: Middle {n}\n\nAssistant: a\n\nHuman: End", opening=f"Start {n}?") for n in range(60)]
    placed = place(whole + cut, set(), 7, 0.3, 0.3)
    assert [row.split for row in placed[:60]] == [row.split for row in placed[60:]]


def test_a_cap_counts_per_user_and_split_and_a_larger_one_keeps_more_of_the_same():
    def left(count):
        placed = place([*questions(1, 100), *questions(2, 30)], set(), 7, 0.2, 0.2)
        cap(placed, count, 7)
        assert {row.reason for row in placed} <= {None, CAPPED}
        return kept(placed)

    few, more = left(5), left(12)
    assert set(Counter((row.user, row.split) for row in few).values()) <= {3, 4, 5}
    assert max(Counter((row.user, row.split) for row in more).values()) == 12
    assert {row.id for row in few} < {row.id for row in more}
