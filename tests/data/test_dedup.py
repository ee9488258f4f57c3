import unicodedata
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from tests.data import plain_dedup

from rlphf.data import keys
from rlphf.data.dedup import _LOOSE, _VISIBLE, CONTRADICTORY, REPEATED, REPEATED_LOOSELY, VERDICTS, Deduplicator, normalise

WORDS = st.sampled_from(["yes", "Yes.", "YES!", "no", "No", "maybe", "maybe not", "?"])
PAIRS = st.lists(st.tuples(st.sampled_from(["why", "Why?", "how"]), WORDS, WORDS, st.sampled_from(["P1A", "P1B"]))).map(
    lambda pairs: [pair for pair in pairs if pair[1] != pair[2]]
)


def verdicts(pairs, folder=None):
    with Deduplicator(folder) as seen:
        for pair in pairs:
            seen.add(*pair)
        return [VERDICTS[number] for number in seen.verdicts()]


def kept(pairs):
    return [pair for pair, verdict in zip(pairs, verdicts(pairs), strict=True) if verdict is None]


def test_normalise_ignores_case_width_spacing_punctuation_and_invisible_characters():
    plain = normalise("what is the fine structure constant")
    assert normalise("  What -- is THE\n“ﬁne”\u200b structure\u00a0constant?! ") == plain
    assert normalise("Ｗｈａｔ is the fine structure constant") == plain


def test_normalise_leaves_out_characters_that_nobody_sees_whatever_they_stand_beside():
    assert normalise("I ❤\ufe0f bees") == normalise("I ❤ bees")
    assert normalise("cafe\u200d\u0301") == normalise("caf\u00e9")
    assert normalise("\u200b\u2060") == normalise("\ufe0f") == ""


def test_normalise_keeps_what_changes_the_meaning():
    assert len({normalise(text) for text in ["a < b", "a > b", "a + b", "a b", "ab"]}) == 5
    assert normalise("???") != normalise("!!!") != ""
    assert normalise(" \n") == ""


@given(st.text(st.characters(max_codepoint=127)))
def test_normalise_of_ascii_is_what_the_rule_for_all_texts_gives(text):
    folded = unicodedata.normalize("NFKC", text.translate(_VISIBLE)).casefold()
    assert normalise(text) == (" ".join(folded.translate(_LOOSE).split()) or " ".join(folded.split()))


def test_an_exact_repeat_is_told_from_a_loose_one():
    assert verdicts([("Why?", "Yes.", "No.", "P1A"), ("Why?", "Yes.", "No.", "P1A"), ("why", "YES", "no", "P1A")]) == [
        None,
        REPEATED,
        REPEATED_LOOSELY,
    ]


def test_another_preference_or_user_is_no_repeat_and_no_contradiction():
    pairs = [
        (prompt, "Yes.", "No.", preference, user)
        for preference, user in [("P1A", None), ("P1B", None), ("P1A", 1), ("P1A", 2)]
        for prompt in ("Why?", "How?")
    ]
    assert verdicts([*pairs, ("Why?", "No.", "Yes.", "general")]) == [None] * 9


def test_a_swapped_pair_drops_both():
    pairs = [("How?", "Yes.", "No.", "P1A"), ("Why?", "Yes.", "No.", "P1A"), ("why", "no", "yes", "P1A")]
    assert verdicts(pairs) == [None, CONTRADICTORY, CONTRADICTORY]


def test_answers_that_differ_in_punctuation_only_are_kept_and_can_contradict():
    assert verdicts([("x?", "-1", "1", "P1A")]) == [None]
    assert verdicts([("x?", "-1", "1", "P1A"), ("x?", "1", "-1", "P1A")]) == [CONTRADICTORY] * 2


@given(PAIRS, st.sampled_from([1, 3, 1 << 18]))
def test_verdicts_are_those_of_the_plain_rule_however_many_pairs_are_compared_at_a_time(pairs, part):
    with patch.object(keys, "PART", part), patch.object(keys, "_WAITING", 2):
        assert verdicts(pairs) == plain_dedup.verdicts([(*pair, None) for pair in pairs])


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
