from random import Random

import pyarrow as pa
import pytest
from tests.testbed.planned import planned_scores

from rlphf.data.records import PROMPTS, RESPONSES
from rlphf.errors import InputError
from rlphf.evaluate.judges.oracle import oracle_scores, oracle_step
from rlphf.evaluate.scores import SCORES
from rlphf.evaluate.tables import ORACLE
from rlphf.files import read_parquet
from rlphf.testbed.language import draw_plan, realise, topics
from rlphf.testbed.oracle import CRITERIA

TOPIC = sorted(topics())[0]
ASKED = pa.Table.from_pylist(
    [
        {"id": "q1", "prompt": "?", "topic": TOPIC, "source": "testbed", "split": "test"},
        {"id": "q2", "prompt": "?", "topic": None, "source": "koala", "split": "test"},
    ],
    PROMPTS,
)


def response(text, prompt="q1", sample=0):
    row = {"prompt_id": prompt, "method": "pp", "combination": "P1A", "sample": sample, "response": text}
    return row | {"tokens": 1, "finished": True}


def judged(*rows):
    return oracle_scores(ASKED, pa.Table.from_pylist(list(rows), RESPONSES), "pp.parquet")


def test_oracle_scores_what_the_response_says_by_every_criterion():
    plan = draw_plan(Random(1), TOPIC, ["P1A", "P3A"])
    found = {row["criterion"]: row["score"] for row in judged(response(realise(plan))).to_pylist()}
    assert set(found) == set(CRITERIA)
    assert found == pytest.approx(planned_scores(plan))


def test_samples_of_a_prompt_are_judged_apart():
    good = realise(draw_plan(Random(1), TOPIC))
    rows = judged(response(good), response("Nonsense.", sample=1)).to_pylist()
    assert {row["sample"]: row["score"] for row in rows if row["criterion"] == "helpfulness"} == {0: 1.0, 1: 0.0}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([response("a"), response("a", prompt="q9")], r"pp.parquet: row 1: prompt_id 'q9' is not among the prompts"),
        ([response("a", prompt="q2")], r"pp.parquet: row 0: prompt_id 'q2' has no topic"),
        ([response("a"), response("b")], r"pp.parquet: row 1: q1, pp, P1A, 0 occurs twice"),
    ],
)
def test_a_response_that_cannot_be_judged_is_named(rows, message):
    with pytest.raises(InputError, match=message):
        judged(*rows)


def test_scores_have_the_same_bytes_whatever_the_order_of_the_files(finished_run, tmp_path):
    config, seed_folder, _ = finished_run
    files = sorted((seed_folder / "responses").glob("*/responses.parquet"))
    oracle_step(config, seed_folder / "prompts" / "prompts.parquet", files[::-1], tmp_path / "scores.parquet")
    assert (tmp_path / "scores.parquet").read_bytes() == (seed_folder / ORACLE).read_bytes()


def test_oracle_step_scores_every_response_of_every_file(finished_run):
    _, seed_folder, _ = finished_run
    responses = sum(read_parquet(path).num_rows for path in (seed_folder / "responses").glob("*/responses.parquet"))
    assert read_parquet(seed_folder / ORACLE, SCORES).num_rows == responses * len(CRITERIA)


def test_responses_that_two_files_hold_are_refused_and_nothing_is_written(finished_run, tmp_path):
    config, seed_folder, _ = finished_run
    (tmp_path / "copy.parquet").write_bytes((seed_folder / "responses" / "vb" / "responses.parquet").read_bytes())
    files = [seed_folder / "responses" / "vb" / "responses.parquet", tmp_path / "copy.parquet"]
    with pytest.raises(InputError, match="--responses: .*'vb, .* occurs 2 times; keep one"):
        oracle_step(config, seed_folder / "prompts" / "prompts.parquet", files, tmp_path / "out" / "s.parquet")
    assert not (tmp_path / "out" / "s.parquet").exists()
