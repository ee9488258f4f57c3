"""Agreement between judges, and what the order of the two responses changes."""

import pytest
from tests.evaluate.judging import COMBINATION, OTHER, cell, compared, comparisons, scored

from rlphf.evaluate.agreement import agreement, swaps, swaps_of_scores
from rlphf.evaluate.bootstrap import Bootstrap
from rlphf.evaluate.verdicts import from_comparisons, from_scores

BOOTSTRAP = Bootstrap(1, 200)
METHODS = ["pp", "psoups"]


@pytest.fixture
def oracle():
    cells = {("pp", COMBINATION): cell(P1A=[[1, 0], [0, 0], [0, 1], [1, 1]]), ("psoups", COMBINATION): cell(P1A=[[0, 9]] * 4)}
    return from_scores("oracle", scored(cells), METHODS, [COMBINATION])


def rows_of(judges, combinations=(COMBINATION,)):
    return {row["criterion"]: row for row in agreement(judges, METHODS, list(combinations), BOOTSTRAP)}


def test_first_responses_are_compared_on_the_prompts_that_both_judges_saw(oracle):
    # The oracle says 1, 0, 0, 1 of the first responses; the other judge saw three prompts.
    llm = from_comparisons("llm", comparisons(compared([(1, 1), (0, 0), (1, 1)])))
    row = rows_of([oracle, llm])["P1A"]
    assert (row["judge_a"], row["judge_b"], row["n"]) == ("oracle", "llm", 3)
    assert row["agreement"] == pytest.approx(2 / 3)
    assert row["decided"] == 1 and row["agreement_decided"] == 1.0


def test_only_what_both_judges_decide_counts_as_decided(oracle):
    llm = from_comparisons("llm", comparisons(compared([(-1, -1), (1, 1), (0, 0), (1, 1)])))
    row = rows_of([oracle, llm])["P1A"]
    assert row["agreement"] == pytest.approx(2 / 4)
    assert row["decided"] == 2 and row["agreement_decided"] == 0.5 and row["ci_low"] == 0.0 and row["ci_high"] == 1.0


def test_judges_that_share_no_decision_have_no_rate(oracle):
    row = rows_of([oracle, from_comparisons("llm", comparisons(compared([(0, 0), (1, -1), (0, 0), (0, 0)])))])["P1A"]
    assert row["decided"] == 0 and row["agreement_decided"] is row["ci_low"] is None


def test_a_criterion_that_a_judge_lacks_has_no_row(oracle):
    assert set(rows_of([oracle, from_comparisons("llm", comparisons(compared([(1, 1)])))])) == {"P1A"}


def test_preferences_are_pooled_over_the_combinations_that_ask_for_them():
    parts = [compared([1], combination=c, criterion=p) for c in (COMBINATION, OTHER) for p in ("P1A", "P2A", "P2B") if p in c]
    one, other = (from_comparisons(name, comparisons(*parts)) for name in ("llm", "people"))
    rows = rows_of([one, other], (COMBINATION, OTHER))
    assert rows["P1A"]["n"] == 2 and rows["P2A"]["n"] == rows["P2B"]["n"] == 1


def test_consistency_is_over_what_was_judged_in_both_orders():
    parts = [compared([(1, 1), (1, -1), (0, 0), (1, 0)]), compared([1, -1], criterion="P2A")]
    rows = {row["criterion"]: row for row in swaps("llm", comparisons(*parts), BOOTSTRAP)}
    assert list(rows) == ["P1A", "P2A", "all"]
    assert rows["P1A"]["n"] == 4 and rows["P1A"]["consistent"] == 0.5
    assert rows["P2A"]["n"] == 0 and rows["P2A"]["consistent"] is None
    assert rows["all"]["n"] == 4


def test_a_judge_that_likes_what_it_sees_first_is_found_out():
    rows = swaps("llm", comparisons(compared([(1, -1)] * 3)), BOOTSTRAP)
    assert [row["prefers_first"] for row in rows] == [1.0, 1.0] and rows[0]["consistent"] == 0.0
    fair = swaps("llm", comparisons(compared([(1, 1), (-1, -1)])), BOOTSTRAP)
    assert fair[0]["prefers_first"] == 0.5 and fair[0]["consistent"] == 1.0


def test_malformed_replies_are_counted():
    rows = compared([(1, 0), (0, 0)])
    for row in rows[1:3]:
        row["malformed"] = True
    assert [row["malformed"] for row in swaps("llm", comparisons(rows), BOOTSTRAP)] == [2, 2]


def test_a_judge_of_single_responses_is_consistent_by_construction(oracle):
    row = swaps_of_scores(oracle)
    assert row["consistent"] == 1.0 and row["prefers_first"] is None and row["n"] == 4 * 2 * 4
