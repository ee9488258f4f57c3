"""The oracle's score of an answer is the user's own mean over the preferences."""

from pathlib import Path
from random import Random

import pyarrow as pa
import pytest
from tests.users.serving import PEOPLE, questions

from rlphf.cli import main
from rlphf.data.records import PROMPTS
from rlphf.files import read_parquet, sha256, write_parquet
from rlphf.testbed import oracle
from rlphf.testbed.language import draw_plan, realise
from rlphf.testbed.users import USERS
from rlphf.users.records import ANSWERS, USER_SCORES

ASKED = questions()


def answer(user: int, text: str, prompt: dict = ASKED[0], method: str = "dpo", sample: int = 0) -> dict:
    row = {"prompt_id": prompt["id"], "method": method, "user": user, "sample": sample}
    return row | {"response": text, "tokens": 3, "finished": True}


@pytest.fixture
def judge(tmp_path: Path, capsys):
    """A function that judges files of answers; it returns the exit status and the last line of errors."""
    (tmp_path / "config.yaml").write_text("experiment: test")
    write_parquet(tmp_path / "prompts.parquet", pa.Table.from_pylist(ASKED, PROMPTS))
    write_parquet(tmp_path / "users.parquet", pa.Table.from_pylist(PEOPLE, USERS))

    def judged(*parts: list[dict], out: str = "out") -> tuple[int, str]:
        files = []
        for k, rows in enumerate(parts):
            files.append(tmp_path / f"method{k}" / "answers.parquet")
            write_parquet(files[-1], pa.Table.from_pylist(rows, ANSWERS))
        command = ["judge", "users", "--answers", *map(str, files), "--out", str(tmp_path / out / "scores.parquet")]
        for name in ("config.yaml", "prompts.parquet", "users.parquet"):
            command += [f"--{name.split('.')[0]}", str(tmp_path / name)]
        return main(command), capsys.readouterr().err.strip()

    return judged


def test_a_score_is_the_users_weighted_mean_of_the_oracles(judge, tmp_path: Path) -> None:

    rng = Random(1)
    texts = [realise(draw_plan(rng, ASKED[0]["topic"], wanted)) for wanted in (["P1A", "P3A"], ["P1B"])]
    rows = [answer(user, text, sample=k) for user in (1, 2) for k, text in enumerate(texts)]
    assert judge(rows, [answer(9, "No.", ASKED[3], "sft")])[0] == 0
    found = read_parquet(tmp_path / "out" / "scores.parquet", USER_SCORES).to_pylist()
    assert [(row["method"], row["user"], row["sample"]) for row in found] == [
        *(("dpo", user, sample) for user in (1, 2) for sample in (0, 1)),
        ("sft", 9, 0),
    ]
    each = [oracle.scores(text, ASKED[0]["topic"]) for text in texts]
    wanted = [0.6 * s["P1A"] + 0.4 * s["P3A"] for s in each] + [0.7 * s["P1B"] + 0.3 * s["P3A"] for s in each]
    assert [row["score"] for row in found[:4]] == pytest.approx(wanted)
    assert [row["helpfulness"] for row in found[:4]] == [s["helpfulness"] for s in each] * 2
    # User 1 wants the first answer and user 2 the second.
    assert wanted[0] > wanted[1] and wanted[3] > wanted[2]
    assert found[4]["score"] == oracle.scores("No.", ASKED[3]["topic"])["P1A"]


def test_the_order_of_the_files_does_not_show(judge, tmp_path: Path) -> None:
    one, other = [answer(2, "Yes."), answer(1, "No.")], [answer(1, "No.", method="sft")]
    judge(one, other, out="one")
    judge(other, one[::-1], out="two")
    assert sha256(tmp_path / "one" / "scores.parquet") == sha256(tmp_path / "two" / "scores.parquet")


def test_an_answer_to_nobody_or_to_no_question_is_named_by_its_row(judge, tmp_path: Path) -> None:
    status, line = judge([answer(1, "Yes."), answer(4, "Yes.")])
    assert status == 2 and "method0/answers.parquet: row 2: user 4 is not among the users; the oracle judges" in line
    status, line = judge([answer(1, "Yes.", {"id": "q9"})])
    assert status == 2 and "row 1: prompt 'q9' has no topic" in line and "\n" not in line
    assert not (tmp_path / "out" / "scores.parquet").exists()
