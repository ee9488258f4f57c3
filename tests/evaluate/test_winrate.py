import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evaluate.judging import COMBINATION, CRITERIA, OTHER, cell

from rlphf.errors import InputError
from rlphf.evaluate.bootstrap import Bootstrap
from rlphf.evaluate.scores import SCORES, Scores
from rlphf.evaluate.winrate import differences, majority, verdicts, win_rate, win_rates

BOOTSTRAP = Bootstrap(1, 200)


def table(cells, order=None):
    """A SCORES table from {(method, combination): {criterion: scores by prompt, or by prompt and sample}}."""
    rows = [
        {"prompt_id": f"q{i}", "method": m, "combination": c, "sample": s, "criterion": criterion, "score": float(score)}
        for (m, c), by_criterion in cells.items()
        for criterion, values in by_criterion.items()
        for i, samples in enumerate(values)
        for s, score in enumerate(np.atleast_1d(samples))
    ]
    return pa.Table.from_pylist(rows if order is None else [rows[i] for i in order], SCORES)


def row(rows, a, b, combination, criterion):
    (found,) = (
        r for r in rows if (r["method_a"], r["method_b"], r["combination"], r["criterion"]) == (a, b, combination, criterion)
    )
    return found


def test_higher_score_wins_and_equal_scores_tie():
    assert list(verdicts(np.array([0.5, 0.1, 0.3]), np.array([0.1, 0.5, 0.3]))) == [1, -1, 0]


def test_means_that_differ_in_the_last_bits_tie():
    a, b = np.mean([0.1, 0.2, 0.3]), np.mean([0.3, 0.2, 0.1])
    assert list(verdicts(np.array([a, a + 1e-15]), np.array([b, b]))) == [0, 0]


def test_majority_is_more_criteria_won_than_lost():
    won = np.array([[1, 1, 1, -1, 0], [1, 0, -1, -1, 0], [-1, 0, 0, 0, 0]])
    assert list(majority(won)) == [1, 1, 0, -1, 0]


def test_win_rate_leaves_ties_out_and_is_null_for_ties_only():
    assert win_rate(3, 1) == 0.75
    assert win_rate(0, 0) is None


def test_both_definitions_of_the_win_rate():
    scores = Scores(table({("a", COMBINATION): cell(P1A=[1, 1, 0, 0]), ("b", COMBINATION): cell(P1A=[0, 0, 1, 0])}))
    found = row(win_rates(scores, ["a", "b"], [COMBINATION], BOOTSTRAP), "a", "b", COMBINATION, "P1A")
    assert (found["wins"], found["losses"], found["ties"]) == (2, 1, 1)
    assert found["rate"] == pytest.approx(2 / 3)
    assert found["rate_half_ties"] == pytest.approx(2.5 / 4)
    assert found["ci_low"] <= found["rate_half_ties"] <= found["ci_high"]


def test_mean_and_majority_can_disagree():
    a, b = cell(P1A=[0.6] * 3, P2A=[0.6] * 3, P3A=[0.0] * 3), cell(P1A=[0.5] * 3, P2A=[0.5] * 3, P3A=[1.0] * 3)
    rows = win_rates(Scores(table({("a", COMBINATION): a, ("b", COMBINATION): b})), ["a", "b"], [COMBINATION], BOOTSTRAP)
    assert row(rows, "a", "b", COMBINATION, "majority")["rate"] == 1
    assert row(rows, "a", "b", COMBINATION, "mean")["rate"] == 0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 0.5, 1]), st.sampled_from([0, 0.5, 1])), min_size=1, max_size=12))
def test_swapping_the_methods_mirrors_everything(scores):
    a, b = zip(*scores, strict=True)
    rows = win_rates(
        Scores(table({("a", COMBINATION): cell(P1A=a), ("b", COMBINATION): cell(P1A=b)})), ["a", "b"], [COMBINATION], BOOTSTRAP
    )
    one, two = row(rows, "a", "b", COMBINATION, "P1A"), row(rows, "b", "a", COMBINATION, "P1A")
    assert one["wins"] + one["losses"] + one["ties"] == len(scores)
    assert (one["wins"], one["losses"], one["ties"]) == (two["losses"], two["wins"], two["ties"])
    assert one["rate_half_ties"] + two["rate_half_ties"] == pytest.approx(1)
    assert (one["ci_low"], one["ci_high"]) == pytest.approx((1 - two["ci_high"], 1 - two["ci_low"]))
    assert (one["rate"] is None) == (two["rate"] is None) == (one["ties"] == len(scores))


def test_one_response_of_a_plain_method_is_compared_in_every_combination():
    plain = cell(P2A=[0.2, 0.2], P2B=[0.8, 0.8])
    scores = Scores(table({("vb", ""): plain, ("a", COMBINATION): cell(P2A=[0.5, 0.1]), ("a", OTHER): cell(P2B=[0.9, 0.9])}))
    rows = win_rates(scores, ["a", "vb"], [COMBINATION, OTHER], BOOTSTRAP)
    assert row(rows, "a", "vb", COMBINATION, "P2A")["wins"] == 1
    assert row(rows, "a", "vb", OTHER, "P2B")["wins"] == 2


def test_all_pools_the_combinations_and_a_preference_counts_only_where_it_is_asked_for():
    a = {("a", COMBINATION): cell(P2A=[1, 1], P1A=[1, 0]), ("a", OTHER): cell(P2A=[0, 0], P1A=[1, 0])}
    b = {("b", c): cell(P2A=[0.5, 0.5], P1A=[0, 0]) for c in (COMBINATION, OTHER)}
    rows = win_rates(Scores(table(a | b)), ["a", "b"], [COMBINATION, OTHER], BOOTSTRAP)
    assert row(rows, "a", "b", "all", "P2A")["wins"] == 2
    assert row(rows, "a", "b", "all", "P2A")["losses"] == 0
    pooled = row(rows, "a", "b", "all", "P1A")
    assert (pooled["wins"], pooled["ties"]) == (2, 2)


def test_pooled_verdicts_of_a_prompt_are_drawn_together():
    # The second combination repeats the first: twice the verdicts, and no more certainty.
    a, b = cell(P1A=[1, 0, 1, 1, 0, 1, 0]), cell(P1A=[0, 1, 0, 0, 1, 1, 1])
    cells = {(m, c): x for m, x in (("a", a), ("b", b)) for c in (COMBINATION, OTHER)}
    rows = win_rates(Scores(table(cells)), ["a", "b"], [COMBINATION, OTHER], BOOTSTRAP)
    one, both = row(rows, "a", "b", COMBINATION, "P1A"), row(rows, "a", "b", "all", "P1A")
    assert both["wins"] == 2 * one["wins"]
    assert (both["ci_low"], both["ci_high"]) == (one["ci_low"], one["ci_high"])


def test_every_sample_of_a_prompt_gets_a_verdict():
    a, b = cell(P1A=[[1, 0], [1, 1]]), cell(P1A=[[0, 0], [0, 1]])
    a, b = ({k: v if k == "P1A" else [[0, 0], [0, 0]] for k, v in c.items()} for c in (a, b))
    rows = win_rates(Scores(table({("a", COMBINATION): a, ("b", COMBINATION): b})), ["a", "b"], [COMBINATION], BOOTSTRAP)
    found = row(rows, "a", "b", COMBINATION, "P1A")
    assert (found["wins"], found["losses"], found["ties"]) == (2, 0, 2)


def test_difference_is_paired_by_prompt():
    noise = np.random.default_rng(1).random(40)
    cells = {("a", COMBINATION): cell(P1A=noise + 0.1), ("b", COMBINATION): cell(P1A=noise)}
    rows = differences(Scores(table(cells)), ["a", "b"], [COMBINATION], BOOTSTRAP)
    found = row(rows, "a", "b", COMBINATION, "P1A")
    assert (found["difference"], found["ci_low"], found["ci_high"]) == pytest.approx((0.1, 0.1, 0.1))
    assert found["n"] == 40
    assert row(rows, "b", "a", COMBINATION, "P1A")["difference"] == pytest.approx(-0.1)
    assert row(rows, "a", "b", COMBINATION, "mean")["difference"] == pytest.approx(0.1 / 3)


def test_order_of_the_rows_does_not_matter():
    rng = np.random.default_rng(1)
    cells = {(m, COMBINATION): cell(P1A=rng.random(9), P3A=rng.random(9)) for m in "ab"}
    whole = table(cells)
    shuffled = table(cells, rng.permutation(whole.num_rows))
    results = [win_rates(Scores(t), ["a", "b"], [COMBINATION], BOOTSTRAP) for t in (whole, shuffled)]
    assert results[0] == results[1]


def test_methods_that_answered_different_prompts_are_refused():
    cells = {("a", COMBINATION): cell(P1A=[1, 1]), ("b", COMBINATION): cell(P1A=[1, 1, 1])}
    with pytest.raises(InputError, match="prompts are not those of .* q2"):
        win_rates(Scores(table(cells)), ["a", "b"], [COMBINATION], BOOTSTRAP)


def test_methods_with_unequal_numbers_of_samples_are_refused():
    two = {criterion: [[0, 0], [0, 0]] for criterion in CRITERIA}
    with pytest.raises(InputError, match="2 responses per prompt and 1 in"):
        win_rates(
            Scores(table({("a", COMBINATION): cell(P1A=[1, 1]), ("b", COMBINATION): two})), ["a", "b"], [COMBINATION], BOOTSTRAP
        )
