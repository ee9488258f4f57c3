import logging

import pytest

from rlphf.data.discover import discover
from rlphf.errors import InputError
from rlphf.settings_data import Source

DIALOGUE = "\n\nHuman: Why?\n\nAssistant: Because."
PERSONA = {"prompt": "question", "chosen": "answer_matching_behavior", "rejected": "answer_not_matching_behavior"}


def test_each_known_layout_is_found_with_its_path_and_preference(write, tmp_path):
    write("raw/x/alpaca/outputs/m.jsonl.gz", [{"dataset": "d", "instruction": "q", "output": "a", "generator": "m"}])
    write("raw/x/alpaca/annotations.json", [{"instruction": "q"}])
    write("raw/rm_training/P1A.json", [{"user_input": "q", "completion_a": "a", "completion_b": "b"}])
    write("raw/hh/train.jsonl.gz", [{"chosen": DIALOGUE, "rejected": DIALOGUE}])
    write("raw/koala.json", [{"id": "0", "prompt": "q"}])
    write("raw/personas/shy.jsonl", [{field: "x" for field in ("statement", *PERSONA.values())}])
    write("raw/own.jsonl", [{"prompt": "q", "chosen": "a", "rejected": "b", "extra": 1}])
    (tmp_path / "raw" / "README.md").write_text("hello")
    assert discover(tmp_path / "raw") == [
        Source(kind="hh_rlhf", path="hh/train.jsonl.gz"),
        Source(kind="koala", path="koala.json"),
        Source(kind="table", path="own.jsonl"),
        Source(kind="table", path="personas/shy.jsonl", preference="shy", columns=PERSONA),
        Source(kind="psoups", path="rm_training/P1A.json"),
        Source(kind="alpaca_eval", path="x/alpaca"),
    ]


def test_tables_of_messages_are_known_with_and_without_a_prompt(write, tmp_path, caplog):
    dialogue = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    write("raw/implicit.jsonl", [{"chosen": dialogue, "rejected": dialogue, "score": 1}])
    write("raw/explicit.jsonl", [{"prompt": dialogue[:1], "chosen": dialogue[1:], "rejected": dialogue[1:]}])
    write("raw/texts.jsonl", [{"chosen": ["a"], "rejected": ["b"]}])
    assert discover(tmp_path / "raw") == [Source(kind="table", path=f"{name}.jsonl") for name in ("explicit", "implicit")]
    assert "texts.jsonl: layout not known" in caplog.text


def test_what_lies_beside_alpaca_evals_outputs_is_found_too(write, tmp_path):
    write("raw/outputs/m.json", [{"dataset": "d", "instruction": "q", "output": "a", "generator": "m"}])
    write("raw/annotations.json", [{"instruction": "q"}])
    write("raw/koala.json", [{"id": "0", "prompt": "q"}])
    write("raw/harmless-base/train.jsonl.gz", [{"chosen": DIALOGUE, "rejected": DIALOGUE}])
    found = {source.path: source.kind for source in discover(tmp_path / "raw")}
    assert found == {".": "alpaca_eval", "koala.json": "koala", "harmless-base/train.jsonl.gz": "hh_rlhf"}


def test_a_file_of_an_unknown_layout_is_left_out_with_a_warning(write, tmp_path, caplog):
    write("raw/koala.json", [{"id": "0", "prompt": "q"}])
    write("raw/odd.jsonl", [{"text": "x"}])
    with caplog.at_level(logging.WARNING):
        assert [source.kind for source in discover(tmp_path / "raw")] == ["koala"]
    assert "odd.jsonl: layout not known" in caplog.text


def test_a_linked_folder_is_left_out_with_a_warning_and_a_linked_file_is_read(write, tmp_path, caplog):
    write("raw/koala.json", [{"id": "0", "prompt": "q"}])
    (tmp_path / "raw" / "linked").symlink_to(write("elsewhere/k.json", [{"id": "0", "prompt": "r"}]).parent)
    (tmp_path / "raw" / "more.json").symlink_to(tmp_path / "elsewhere" / "k.json")
    with caplog.at_level(logging.WARNING):
        assert [source.path for source in discover(tmp_path / "raw")] == ["koala.json", "more.json"]
    assert "linked: a link to a folder, left out; name it under data.sources" in caplog.text


def test_a_first_record_that_is_broken_does_not_hide_the_layout(write, tmp_path):
    path = write("raw/koala.jsonl", [{"id": "0", "prompt": "q"}])
    path.write_bytes(b"{broken\n" + path.read_bytes())
    assert [source.kind for source in discover(tmp_path / "raw")] == ["koala"]


def test_a_folder_with_nothing_known_and_a_missing_one_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no data of a known layout"):
        discover(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        discover(tmp_path / "absent")
