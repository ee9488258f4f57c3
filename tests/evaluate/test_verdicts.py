"""Verdicts of judges that score and of judges that compare, in one form."""

import numpy as np
import pytest
from tests.evaluate.judging import COMBINATION, OTHER, cell, compared, comparisons, scored

from rlphf.errors import InputError
from rlphf.evaluate.verdicts import from_comparisons, from_scores


def test_the_higher_score_wins_by_every_criterion_that_the_judge_knows():
    cells = {
        ("vb", ""): cell(P1A=[[1, 0], [0, 0]], P2A=[[1, 1], [0, 1]]),
        ("pp", COMBINATION): cell(P1A=[[0, 0], [1, 0]]),
        ("pp", OTHER): cell(P2B=[[1, 0], [0, 0]]),
    }
    found = from_scores("oracle", scored(cells), ["vb", "pp"], [COMBINATION, OTHER])
    assert found.prompts == ("q0", "q1")
    assert found.between("vb", "pp", COMBINATION, "P1A").tolist() == [[1, 0], [-1, 0]]
    assert found.between("pp", "vb", COMBINATION, "P1A").tolist() == [[-1, 0], [1, 0]]
    assert found.between("vb", "pp", OTHER, "P2B").tolist() == [[-1, 0], [0, 0]]
    # P1A and P2A against nothing in P3A.
    assert found.between("vb", "pp", COMBINATION, "majority").tolist() == [[1, 1], [-1, 1]]
    assert found.between("vb", "pp", COMBINATION, "P2B") is None


def test_a_judge_without_one_of_the_criteria_has_no_majority():
    known = {name: values for name, values in cell(P1A=[1, 0]).items() if name not in ("P3A", "helpfulness")}
    cells = {("vb", ""): known, ("pp", COMBINATION): {name: [0, 0] for name in known}}
    found = from_scores("rules", scored(cells), ["vb", "pp"], [COMBINATION])
    assert {key[3] for key in found.found} == {"P1A", "P2A"}
    assert found.between("vb", "pp", COMBINATION, "majority") is None


def test_methods_that_answer_other_prompts_are_refused():
    cells = {("vb", ""): cell(P1A=[1, 0]), ("pp", COMBINATION): cell(P1A=[1])}
    with pytest.raises(InputError, match="prompts are not those"):
        from_scores("oracle", scored(cells), ["vb", "pp"], [COMBINATION])


def test_two_orders_that_disagree_are_a_tie_and_one_order_counts_as_it_is():
    table = comparisons(compared([(1, 1), (1, -1), (0, 0), (1, 0), (-1, -1)]))
    found = from_comparisons("llm", table)
    assert found.between("pp", "psoups", COMBINATION, "P1A").tolist() == [[1], [0], [0], [0], [-1]]
    assert found.between("psoups", "pp", COMBINATION, "P1A").tolist() == [[-1], [0], [0], [0], [1]]
    one = from_comparisons("people", comparisons(compared([1, -1, 0])))
    assert one.between("pp", "psoups", COMBINATION, "P1A").tolist() == [[1], [-1], [0]]


def test_a_comparison_that_is_missing_is_refused_and_no_tie():
    parts = [compared([1, 1, -1]), compared([1, 1], criterion="P2A")]
    message = (
        "judge people: pp and psoups were not compared on prompt q2 .combination P1A-P2A-P3A, criterion P2A., as others were"
    )
    with pytest.raises(InputError, match=message):
        from_comparisons("people", comparisons(*parts))


def test_a_majority_of_comparisons_needs_all_three_preferences():
    parts = [compared([1, -1], criterion="P1A"), compared([1, 1], criterion="P2A")]
    assert from_comparisons("llm", comparisons(*parts)).between("pp", "psoups", COMBINATION, "majority") is None
    parts.append(compared([-1, -1], criterion="P3A"))
    whole = from_comparisons("llm", comparisons(*parts))
    assert np.array_equal(whole.between("pp", "psoups", COMBINATION, "majority"), [[1], [-1]])
