"""Claims about what a judge is told."""

import pytest

from rlphf.errors import InputError
from rlphf.evaluate.judges.replies import parse
from rlphf.evaluate.judges.templates.texts import again, comparison, criterion
from rlphf.preferences import PREFERENCES, Preference, declare

CRITERIA = [*PREFERENCES, "helpfulness"]


@pytest.mark.parametrize("name", CRITERIA)
def test_a_comparison_names_its_own_criterion_alone(name):
    text = comparison("Why?", name, "one", "two")
    assert [other for other in CRITERIA if criterion(other) in text] == [name]
    assert not [p.id for p in PREFERENCES.values() if p.prompt in text or p.id in text]


def test_criteria_are_one_line_each_and_all_different():
    assert len({criterion(name) for name in CRITERIA}) == len(CRITERIA)
    assert all(criterion(name) and "\n" not in criterion(name) for name in CRITERIA)


def test_a_preference_of_ones_own_is_told_in_its_own_words_and_one_without_any_is_refused():
    told = Preference("P3E", "style", "Rhyme.", "poetic", "The response rhymes.")
    declare({"P3E": told, "P3F": Preference("P3F", "style", "Sing.", "musical")})
    try:
        assert criterion("P3E") == "The response rhymes."
        # The sheet for people is written before they are among the judges, so the configuration did not ask for it.
        with pytest.raises(InputError, match=r"^own_preferences.P3F.judge: needed"):
            comparison("Why?", "P3F", "one", "two")
    finally:
        declare({})


def test_texts_stand_in_the_order_in_which_they_are_shown_and_as_they_are():
    text = comparison("Why {first}?", "P1A", "{second} {0}", "the other")
    places = [text.index(part) for part in (criterion("P1A"), "Why {first}?", "{second} {0}", "the other")]
    assert places == sorted(places)


def test_a_comparison_that_is_repeated_is_no_verdict():
    assert parse(comparison("Why?", "P1A", "one", "two")) is None
    assert parse(again()) is None
