"""The paper's matrix of methods and its averages, by judge."""

import pytest
from tests.evaluate.judging import COMBINATION, OTHER, cell, compared, comparisons, scored

from rlphf.derived import PAPER_METHODS
from rlphf.evaluate.bootstrap import Bootstrap
from rlphf.evaluate.matrix import averages, matrix
from rlphf.evaluate.verdicts import from_comparisons, from_scores
from rlphf.preferences import PREFERENCES, combinations

BOOTSTRAP = Bootstrap(1, 200)


@pytest.fixture
def three():
    cells = {
        ("psoups", COMBINATION): cell(P1A=[1, 1, 1, 1]),
        ("pp", COMBINATION): cell(P1A=[0, 0, 1, 1]),
        ("vb", ""): cell(P1A=[0, 0, 0, 0]),
    }
    return from_scores("oracle", scored(cells), ["vb", "pp", "psoups"], [COMBINATION])


def test_averages_count_every_opponent_alike(three):
    found = averages(three, ["vb", "pp", "psoups"], [COMBINATION], BOOTSTRAP)
    rows = {(r["method"], r["criterion"]): r for r in found}
    assert {r["judge"] for r in found} == {"oracle"}
    ours = rows["psoups", "majority"]
    # Against pp two wins and two ties, against vb four wins.
    assert ours["opponents"] == 2 and ours["rate"] == 1.0 and ours["rate_half_ties"] == pytest.approx((0.75 + 1.0) / 2)
    assert ours["ci_low"] <= ours["rate_half_ties"] <= ours["ci_high"]
    assert rows["pp", "majority"]["rate_half_ties"] == pytest.approx((0.25 + 0.75) / 2)
    assert rows["vb", "helpfulness"]["rate"] is None and rows["vb", "helpfulness"]["rate_half_ties"] == 0.5


def test_known_averages_of_the_paper_stand_beside_the_majority_and_unknown_ones_stay_blank():
    names = combinations(list(PREFERENCES)[:6])
    cells = {(m, c): {p: [1.0] for p in (*PREFERENCES, "helpfulness")} for m in PAPER_METHODS for c in names}
    rows = averages(from_scores("oracle", scored(cells), PAPER_METHODS, names), PAPER_METHODS, names, BOOTSTRAP)
    found = {(r["method"], r["criterion"]): (r["paper_gpt4"], r["paper_humans"]) for r in rows}
    assert found["psoups", "majority"] == (0.5523, None) and found["pmorl", "majority"] == (None, 0.587)
    assert found["mt", "majority"] == found["psoups", "mean"] == (None, None)


def test_the_papers_averages_stand_beside_no_other_opponents_or_combinations():
    names = combinations(list(PREFERENCES)[:6])
    cells = {(m, c): {p: [1.0] for p in (*PREFERENCES, "helpfulness")} for m in PAPER_METHODS for c in names}
    for methods, some in ((PAPER_METHODS[1:], names), (PAPER_METHODS, names[:4])):
        rows = averages(from_scores("oracle", scored(cells), methods, some), methods, some, BOOTSTRAP)
        assert {(r["paper_gpt4"], r["paper_humans"]) for r in rows} == {(None, None)}


def test_one_method_has_neither_average_nor_matrix(three):
    assert averages(three, ["pp"], [COMBINATION], BOOTSTRAP) == [] == matrix(three, ["pp"], [COMBINATION], BOOTSTRAP)


def test_a_cell_of_the_matrix_counts_verdicts_over_all_combinations():
    cells = {("vb", ""): cell(P1A=[1, 0, 0]), ("pp", COMBINATION): cell(P1A=[0, 0, 1]), ("pp", OTHER): cell(P1A=[2, 0, 1])}
    verdicts = from_scores("oracle", scored(cells), ["vb", "pp"], [COMBINATION, OTHER])
    rows = {(r["method_a"], r["criterion"]): r for r in matrix(verdicts, ["vb", "pp"], [COMBINATION, OTHER], BOOTSTRAP)}
    ours = rows["pp", "majority"]
    assert (ours["wins"], ours["losses"], ours["ties"]) == (3, 1, 2)
    assert ours["rate"] == 0.75 and ours["rate_half_ties"] == pytest.approx(4 / 6)
    assert rows["vb", "majority"]["rate"] == 0.25 and ours["paper_gpt4"] is None


def test_what_a_judge_does_not_say_has_no_row():
    parts = [compared([1, -1], criterion=name) for name in ("P1A", "P2A", "P3A")]
    rows = matrix(from_comparisons("llm", comparisons(*parts)), ["pp", "psoups"], [COMBINATION], BOOTSTRAP)
    assert {row["criterion"] for row in rows} == {"majority"}


def test_the_text_rules_have_no_mean_over_units_that_differ():
    names, everyone = [COMBINATION, OTHER], ["vb", "pp"]
    cells = {("vb", ""): cell(P1A=[1, 0])} | {("pp", c): cell(P2A=[0, 1], P2B=[1, 1]) for c in names}
    for judge, known in (("oracle", {"majority", "mean", "helpfulness"}), ("rules", {"majority", "helpfulness"})):
        found = from_scores(judge, scored(cells), everyone, names)
        for table in (matrix, averages):
            assert {row["criterion"] for row in table(found, everyone, names, BOOTSTRAP)} == known


def test_the_papers_head_to_head_stands_beside_sixteen_combinations_alone():
    ids = combinations(PREFERENCES)
    for names in (ids, ids[:8]):
        cells = {(m, c): {p: [1.0] for p in (*PREFERENCES, "helpfulness")} for m in ("pmorl", "psoups") for c in names}
        rows = matrix(from_scores("oracle", scored(cells), ["pmorl", "psoups"], names), ["pmorl", "psoups"], names, BOOTSTRAP)
        found = {(r["method_a"], r["criterion"]): r["paper_gpt4"] for r in rows}
        assert found["psoups", "majority"] == (0.5906 if len(names) == 16 else None)
        # The paper says nothing of the reverse, which with ties is not what is left.
        assert found["pmorl", "majority"] is None
        assert found["psoups", "mean"] is None
