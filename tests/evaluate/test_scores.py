import pyarrow as pa
import pytest

from rlphf.errors import InputError
from rlphf.evaluate.scores import SCORES, Scores, read_scores, score_table
from rlphf.files import write_parquet

ROWS = [
    {"prompt_id": p, "method": "pp", "combination": "P1A-P2A-P3A", "sample": 0, "criterion": c, "score": s}
    for p, c, s in (
        ("q1", "P1A", 0.1),
        ("q1", "P2A", 0.2),
        ("q1", "P3A", 0.6),
        ("q2", "P1A", 0.4),
        ("q2", "P2A", 0.5),
        ("q2", "P3A", 0.9),
    )
]


def scores(rows):
    return Scores(pa.Table.from_pylist(rows, SCORES), "scores.parquet")


def test_mean_is_over_the_preferences_of_the_combination():
    cell = scores(ROWS).cell("pp", "P1A-P2A-P3A")
    assert cell.prompts == ("q1", "q2")
    assert cell.score("mean", "P1A-P2A-P3A")[:, 0] == pytest.approx([0.3, 0.6])


def test_judges_scores_are_in_one_order_whatever_was_scored_first():
    response = {"prompt_id": "q1", "method": "pp", "combination": "P1A-P2A-P3A", "sample": 0, "response": "Yes."}
    scored = [(response | {"prompt_id": row["prompt_id"]}, row["criterion"], row["score"]) for row in reversed(ROWS)]
    assert score_table(scored) == pa.Table.from_pylist(ROWS, SCORES)


def test_a_missing_score_is_named():
    with pytest.raises(
        InputError, match=r"scores.parquet: method pp, combination P1A-P2A-P3A: prompt q2, sample 0 has 0 scores by P3A"
    ):
        scores(ROWS[:-1])


def test_a_score_that_occurs_twice_is_named():
    with pytest.raises(InputError, match="prompt q1, sample 0 has 2 scores by P1A"):
        scores([*ROWS, ROWS[0]])


def test_a_missing_criterion_is_named():
    with pytest.raises(InputError, match="no scores by criterion helpfulness"):
        scores(ROWS).cell("pp", "P1A-P2A-P3A").score("helpfulness", "P1A-P2A-P3A")


def test_a_method_without_scores_is_named():
    with pytest.raises(InputError, match="method psoups, combination P1A-P2A-P3A: no scores"):
        scores(ROWS).cell("psoups", "P1A-P2A-P3A")


def test_only_a_method_without_combinations_answers_all_of_them_alike():
    plain = [row | {"combination": ""} for row in ROWS]
    assert scores(plain).cell("pp", "P1B-P2B-P3B").prompts == ("q1", "q2")
    with pytest.raises(InputError, match="combination P1B-P2B-P3B: no scores"):
        scores(plain + ROWS).cell("pp", "P1B-P2B-P3B")


def test_a_file_of_other_columns_is_refused(tmp_path):
    write_parquet(tmp_path / "scores.parquet", pa.table({"prompt_id": ["q"]}))
    with pytest.raises(InputError, match="column method is missing"):
        read_scores(tmp_path / "scores.parquet")
