from hypothesis import given
from hypothesis import strategies as st

from rlphf.data.dedup import CONTRADICTORY, REPEATED, REPEATED_LOOSELY, Deduplicator, fingerprint, normalise

WORDS = st.sampled_from(["yes", "Yes.", "YES!", "no", "No", "maybe", "maybe not", "?"])
PAIRS = st.lists(st.tuples(st.sampled_from(["why", "Why?", "how"]), WORDS, WORDS, st.sampled_from(["P1A", "P1B"]))).map(
    lambda pairs: [pair for pair in pairs if pair[1] != pair[2]]
)


def kept(pairs):
    seen, passed = Deduplicator(), []
    for pair in pairs:
        if seen.add(*pair) is None:
            passed.append(pair)
    return [pair for n, pair in enumerate(passed) if n not in seen.contradicted]


def test_normalise_ignores_case_width_spacing_punctuation_and_invisible_characters():
    plain = normalise("what is the fine structure constant")
    assert normalise("  What -- is THE\n“ﬁne”\u200b structure\u00a0constant?! ") == plain
    assert normalise("Ｗｈａｔ is the fine structure constant") == plain


def test_normalise_keeps_what_changes_the_meaning():
    assert len({normalise(text) for text in ["a < b", "a > b", "a + b", "a b", "ab"]}) == 5
    assert normalise("???") != normalise("!!!") != ""
    assert normalise(" \n") == ""


def test_fingerprints_do_not_run_parts_together():
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert fingerprint("a", None) != fingerprint("a", "None")


def test_an_exact_repeat_is_told_from_a_loose_one():
    seen = Deduplicator()
    assert seen.add("Why?", "Yes.", "No.", "P1A") is None
    assert seen.add("Why?", "Yes.", "No.", "P1A") == REPEATED
    assert seen.add("why", "YES", "no", "P1A") == REPEATED_LOOSELY
    assert not seen.contradicted


def test_another_preference_or_user_is_no_repeat_and_no_contradiction():
    seen = Deduplicator()
    for preference, user in [("P1A", None), ("P1B", None), ("P1A", 1), ("P1A", 2)]:
        assert seen.add("Why?", "Yes.", "No.", preference, user) is None
        assert seen.add("How?", "Yes.", "No.", preference, user) is None
    assert seen.add("Why?", "No.", "Yes.", "general") is None
    assert not seen.contradicted


def test_a_swapped_pair_drops_both():
    seen = Deduplicator()
    assert seen.add("How?", "Yes.", "No.", "P1A") is None
    assert seen.add("Why?", "Yes.", "No.", "P1A") is None
    assert seen.add("why", "no", "yes", "P1A") == CONTRADICTORY
    assert seen.contradicted == {1}


def test_answers_that_differ_in_punctuation_only_are_kept_and_can_contradict():
    seen = Deduplicator()
    assert seen.add("x?", "-1", "1", "P1A") is None
    assert seen.add("x?", "1", "-1", "P1A") == CONTRADICTORY


@given(PAIRS)
def test_deduplication_is_idempotent(pairs):
    once = kept(pairs)
    assert kept(once) == once


@given(PAIRS, st.randoms())
def test_which_questions_survive_does_not_depend_on_the_order(pairs, rng):
    def outcome(pairs):
        return {(p, normalise(q), normalise(a), normalise(b)) for q, a, b, p in kept(pairs) if normalise(a) != normalise(b)}

    shuffled = list(pairs)
    rng.shuffle(shuffled)
    assert outcome(shuffled) == outcome(pairs)


@given(PAIRS)
def test_no_two_kept_pairs_say_the_same_or_the_opposite(pairs):
    def key(pair):
        q, a, b, p = pair
        exact = normalise(a) == normalise(b)
        return p, normalise(q), frozenset((a, b) if exact else (normalise(a), normalise(b)))

    survivors = kept(pairs)
    assert len({key(pair) for pair in survivors}) == len(survivors)
