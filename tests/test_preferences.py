"""Claims about preferences and their combinations."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlphf.errors import InputError
from rlphf.preferences import (
    AXES,
    FORMS,
    GENERAL,
    PREFERENCES,
    alone,
    combinations,
    instruction,
    members,
    preference,
    request,
)

CORE = ["P1A", "P1B", "P2A", "P2B", "P3A", "P3B"]


def test_an_id_says_which_axis_a_preference_is_on():
    assert {p.id: p.axis for p in PREFERENCES.values()} == {name: AXES[int(name[1]) - 1] for name in PREFERENCES}


def test_no_two_preferences_share_a_prompt():
    assert len({p.prompt for p in PREFERENCES.values()}) == len(PREFERENCES) == 8


def test_six_preferences_have_eight_combinations_and_eight_have_sixteen():
    assert len(set(combinations(CORE))) == 8
    assert len(set(combinations(PREFERENCES))) == 16
    assert combinations(CORE)[:2] == ["P1A-P2A-P3A", "P1A-P2A-P3B"]


def test_an_axis_without_a_preference_is_left_out():
    assert combinations(["P1B", "P3D"]) == ["P1B-P3D"]


@given(st.lists(st.sampled_from(sorted(PREFERENCES)), min_size=1, unique=True))
def test_every_combination_has_one_preference_of_each_axis_that_is_there(ids):
    axes = sorted({preference(i).axis for i in ids})
    for name in combinations(ids):
        assert sorted(preference(i).axis for i in members(name)) == axes
        assert set(members(name)) <= set(ids)


@pytest.mark.parametrize(
    ("name", "axis"), [("P1A-P1B", "expertise"), ("P1A-P2A-P3C-P3D", "style"), ("P2A-P2A", "informativeness")]
)
def test_two_preferences_of_one_axis_are_no_combination(name, axis):
    with pytest.raises(InputError, match=f"{name}.*two preferences of the axis '{axis}'; choose one"):
        members(name)


@pytest.mark.parametrize("call", [lambda: preference("P9"), lambda: members("P1A-P9"), lambda: instruction("Why?", ["P9"])])
def test_unknown_preference_is_refused_with_the_known_ones(call):
    with pytest.raises(InputError, match="'P9' is unknown; choose from P1A, P1B"):
        call()


def test_instruction_is_the_question_followed_by_the_prompts_in_order():
    assert instruction("Why?") == "Why?"
    asked = instruction("Why?", ["P3B", "P1A"])
    assert asked == f"Why? {PREFERENCES['P3B'].prompt} {PREFERENCES['P1A'].prompt}"


def test_a_request_asks_for_nothing_for_the_preference_or_for_it_among_one_of_every_other_axis():
    rng = Random(0)
    assert request("P2A", "nothing", rng) == [] and request("P2A", "own", rng) == alone("P2A") == ["P2A"]
    drawn = {tuple(request("P2A", "all", rng)) for _ in range(200)}
    assert drawn == {(a, "P2A", b) for a in ("P1A", "P1B") for b in ("P3A", "P3B", "P3C", "P3D")}


def test_general_asks_for_nothing_in_every_form():
    assert alone(GENERAL) == [] and all(request(GENERAL, form, Random(0)) == [] for form in FORMS)
