"""Prompts of real text: the project's own questions and files of them, and splits that share nothing."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rlphf.data.dedup import normalise
from rlphf.data.questions.prompts import divide, everyday_questions, prompts_step, read_prompts
from rlphf.data.records import PROMPTS, SPLITS, check_prompts
from rlphf.data.splits import check_leaks, group
from rlphf.errors import InputError
from rlphf.files import read_json, read_parquet, sha256
from rlphf.settings import Testbed as Settings
from rlphf.settings_data import Prompts
from rlphf.testbed import prompts as testbed

MANY = [f"What is the number {i}?" for i in range(30)]
FEW = Prompts(source="questions", validation=4, test=6)


def by_split(rows: list[dict]) -> dict[str, set[str]]:
    return {split: {row["prompt"] for row in rows if row["split"] == split} for split in SPLITS}


def test_there_are_200_questions_of_our_own_and_no_two_are_alike() -> None:
    questions = everyday_questions()
    assert len(questions) >= 200
    assert len({normalise(question) for question in questions}) == len(questions)
    assert all(question == question.strip() and question[-1] in ".?" for question in questions)


def test_splits_are_as_large_as_they_are_told_and_share_nothing() -> None:
    table = divide(MANY, None, FEW, seed=1, where="mine")
    check_prompts(table, "mine")
    check_leaks(table)
    assert {split: len(found) for split, found in by_split(table.to_pylist()).items()} == {
        "train": 20,
        "validation": 4,
        "test": 6,
    }
    fewer = divide(MANY, None, FEW.model_copy(update={"train": 5}), seed=1, where="mine").to_pylist()
    assert len(by_split(fewer)["train"]) == 5 and by_split(fewer)["test"] == by_split(table.to_pylist())["test"]


def test_the_seed_decides_what_is_held_out_and_the_order_of_the_prompts_does_not() -> None:
    tested = [frozenset(by_split(divide(MANY, None, FEW, seed, "mine").to_pylist())["test"]) for seed in range(8)]
    assert len(set(tested)) == 8
    turned = by_split(divide(MANY[::-1], None, FEW, 3, "mine").to_pylist())
    assert turned["test"] == tested[3]


def test_prompts_that_differ_in_case_spacing_or_punctuation_are_one() -> None:
    table = divide([*MANY, "what is  the number 3", "What is the number 4 ?!"], None, FEW, seed=1, where="mine")
    assert len(table) == 30


def test_test_prompts_of_a_file_of_their_own_are_not_trained_on_however_they_are_written() -> None:
    held_out = ["WHAT IS THE NUMBER 3", "Is this a test?"]
    settings = FEW.model_copy(update={"test_path": "koala.json"})
    found = by_split(divide(MANY, held_out, settings, seed=1, where="mine").to_pylist())
    assert found["test"] == set(held_out)
    assert group("What is the number 3?") not in {group(p) for p in found["train"] | found["validation"]}
    assert len(found["train"]) == 25 and len(found["validation"]) == 4


def test_a_set_of_test_prompts_alone_or_of_too_few_is_an_error_in_one_line() -> None:
    settings = FEW.model_copy(update={"test_path": "koala.json"})
    with pytest.raises(InputError, match=r"^mine: every prompt is a test prompt of koala.json, too; add others"):
        divide(MANY[:5], MANY, settings, seed=1, where="mine")
    with pytest.raises(InputError, match=r"^mine: 10 different prompts, and none is left to train on; lower"):
        divide(MANY[:10], None, FEW, seed=1, where="mine")


@pytest.mark.parametrize("field", ["prompt", "instruction"])
def test_files_in_the_layouts_of_koala_and_alpaca_eval_are_read(tmp_path: Path, field: str) -> None:
    records = [{"id": i, field: f" Why {i}? "} for i in range(3)]
    (tmp_path / "list.json").write_text(json.dumps(records))
    with gzip.open(tmp_path / "lines.jsonl.gz", "wt") as stream:
        stream.writelines(json.dumps(record) + "\n" for record in records)
    (tmp_path / "plain.txt").write_text("Why 0?\n\n Why 1?\nWhy 2?\n")
    for name in ("list.json", "lines.jsonl.gz", "plain.txt"):
        assert read_prompts(tmp_path / name) == ["Why 0?", "Why 1?", "Why 2?"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("missing.jsonl", None, "missing.jsonl: no such file; name one of .json"),
        ("missing.txt", None, "missing.txt: cannot be read as text"),
        ("empty.jsonl", "\n", "empty.jsonl: holds no prompts; name a file with at least one"),
        ("empty.txt", " \n", "empty.txt: holds no prompts"),
        (
            "odd.jsonl",
            '{"question": "Why?"}\n',
            "odd.jsonl, line 1, field prompt: is missing, and so is instruction; the record has",
        ),
        ("blank.jsonl", '{"prompt": "Why?"}\n{"prompt": " "}\n', "blank.jsonl, line 2, field prompt: is empty; correct it"),
        ("broken.jsonl", "{\n", "broken.jsonl, line 1: is not JSON"),
        ("odd.pdf", "Why?", "odd.pdf: not one of .json"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_and_nothing_is_written(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    config = write_config(tmp_path, source="file", path=str(tmp_path / name))
    with pytest.raises(InputError) as caught:
        prompts_step(config, tmp_path / "prompts" / "prompts.parquet")
    assert str(caught.value).startswith(f"{tmp_path}/{message}") and "\n" not in str(caught.value)
    assert not (tmp_path / "prompts" / "prompts.parquet").exists()


def test_lines_end_where_lines_end_and_a_byte_order_mark_is_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_bytes("\ufeffWhat is rain?\r\n\u200b\r\nWhat is\u2028snow?\n\n".encode())
    assert read_prompts(tmp_path / "mine.txt") == ["What is rain?", "What is\u2028snow?"]


def write_config(folder: Path, **prompts: object) -> Path:
    settings = {
        "experiment": "real",
        "seed": 5,
        "preferences": ["P1A", "P2A"],
        "combination_preferences": ["P1A", "P2A"],
        "prompts": prompts,
        "annotator": {"kind": "rule"},
        "data": {"sources": [{"kind": "alpaca_eval", "path": "raw"}]},
        "user_evaluation": {"methods": []},
        "evaluation": {"judges": ["gold"], "methods": ["vb", "psoups"], "gold_raw": ["general"]},
    }
    if prompts.get("source", "testbed") == "testbed":
        settings = {"experiment": "testbed", "seed": 5, "prompts": prompts}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder / "config.yaml"


def test_the_step_writes_the_same_bytes_for_the_same_seed(tmp_path: Path) -> None:
    config = write_config(tmp_path, source="questions")
    for name in ("one", "other"):
        prompts_step(config, tmp_path / name / "prompts.parquet")
    assert sha256(tmp_path / "one" / "prompts.parquet") == sha256(tmp_path / "other" / "prompts.parquet")
    rows = read_parquet(tmp_path / "one" / "prompts.parquet", PROMPTS).to_pylist()
    assert {row["source"] for row in rows} == {"questions"} and {row["topic"] for row in rows} == {None}
    assert {row["prompt"] for row in rows} == set(everyday_questions())


def test_the_testbeds_prompts_are_what_they_were(tmp_path: Path) -> None:
    prompts_step(write_config(tmp_path), tmp_path / "testbed" / "prompts.parquet")
    assert read_parquet(tmp_path / "testbed" / "prompts.parquet", PROMPTS).equals(testbed.prompts(Settings(), 5))
    assert read_json(tmp_path / "testbed" / "record.json")["status"] == "finished"


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    done = subprocess.run(
        [sys.executable, "-c", f"from rlphf.data.questions.prompts import *; read_prompts(Path({str(tmp_path / 'pipe.txt')!r}))"],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert "pipe.txt: is no file; give the file itself" in done.stderr
