"""Claims about the judge that scores by rules for real text."""

import pyarrow as pa
import pytest

from rlphf.errors import InputError
from rlphf.evaluate.judges.rules import rules_step
from rlphf.evaluate.scores import SCORES, Scores
from rlphf.files import read_parquet


def test_all_samples_of_the_evaluated_methods_are_scored_once(inputs, tmp_path):
    others = [{**row, "method": "front"} for row in read_parquet(inputs.responses[0]).to_pylist()]
    inputs.change("pp", lambda rows: [*rows, *others])
    out = tmp_path / "rules" / "scores.parquet"
    rules_step(inputs.config, inputs.prompts, inputs.responses, out)
    table = read_parquet(out, SCORES)
    assert table.num_rows == (3 * 2 + 1) * 4 * 2 * 6
    assert set(table["method"].to_pylist()) == {"psoups", "vb", "mod", "pp"}
    cell = Scores(table).cell("pp", "P1A-P2B-P3A")
    assert cell.prompts == ("q0", "q1", "q2", "q3") and cell.samples == 2
    assert cell.values["P2B"].tolist() == [[31.0, 31.0]] * 4


def test_scores_have_the_same_bytes_whatever_the_order_of_the_files(inputs, tmp_path):
    for name, files in (("one", inputs.responses), ("two", inputs.responses[::-1])):
        rules_step(inputs.config, inputs.prompts, files, tmp_path / name / "scores.parquet")
    assert (tmp_path / "one" / "scores.parquet").read_bytes() == (tmp_path / "two" / "scores.parquet").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [{**rows[0], "prompt_id": "q7"}], r"responses.parquet: row 1: prompt_id 'q7' is not among"),
        (lambda rows: [], "responses: there are none of pp; rlphf generate --method pp"),
        (lambda rows: [{**row, "method": "vb", "combination": ""} for row in rows[:1]], "row 1: q0, vb, , 0 occurs twice"),
    ],
)
def test_responses_that_cannot_be_scored_are_named_and_nothing_is_written(inputs, tmp_path, change, message):
    inputs.change("pp", change)
    with pytest.raises(InputError, match=message):
        rules_step(inputs.config, inputs.prompts, inputs.responses, tmp_path / "rules" / "scores.parquet")
    assert not (tmp_path / "rules" / "scores.parquet").exists()


def test_prompts_need_no_topic(inputs):
    assert pa.compute.is_null(read_parquet(inputs.prompts)["topic"]).to_pylist() == [True] * 5
