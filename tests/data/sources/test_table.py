import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlphf.data.sources.raw import Bad, Prompt
from rlphf.data.sources.table import read
from rlphf.errors import InputError

ROW = {"prompt": "Why?", "chosen": "yes", "rejected": "no"}


def test_our_own_names_need_no_mapping_and_optional_ones_are_read(write):
    plain, full = read(write("a.jsonl", [ROW, ROW | {"preference": "P1A", "user": 3, "probability": 0.5}]), {}, None)
    assert (plain.prompt, plain.chosen, plain.rejected, plain.preference) == ("Why?", "yes", "no", "general")
    assert (plain.user, plain.probability) == (None, None)
    assert (full.preference, full.user, full.probability) == ("P1A", 3, 0.5)


def test_mapped_columns_are_read_and_others_left_alone(write):
    row = {"question": "Why?", "better": "yes", "rejected": "no", "user": {"name": "x"}, "who": "kind"}
    (pair,) = read(write("a.jsonl", [row]), {"prompt": "question", "chosen": "better", "preference": "who"}, "other")
    assert (pair.prompt, pair.chosen, pair.rejected, pair.preference, pair.user) == ("Why?", "yes", "no", "kind", None)


def test_persona_statements_read_as_pairs_of_that_persona(write):
    row = {"question": "Would you?", "statement": "s", "answer_matching_behavior": " Yes", "answer_not_matching_behavior": " No"}
    columns = {"prompt": "question", "chosen": "answer_matching_behavior", "rejected": "answer_not_matching_behavior"}
    (pair,) = read(write("risk-averse.jsonl.gz", [row]), columns, "risk-averse")
    assert (pair.prompt, pair.chosen, pair.rejected, pair.preference) == ("Would you?", "Yes", "No", "risk-averse")


def test_csv_and_parquet_give_the_same_pairs_with_numbers_and_nulls(tmp_path):
    rows = [ROW | {"user": 1, "probability": 0.75}, ROW | {"user": None, "probability": None}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("prompt,chosen,rejected,user,probability\nWhy?,yes,no,1,0.75\nWhy?,yes,no,,\n")
    for name in ("a.parquet", "a.csv"):
        pairs = list(read(tmp_path / name, {}, None))
        assert [(pair.user, pair.probability) for pair in pairs] == [(1, 0.75), (None, None)]


def test_columns_without_answers_make_a_table_of_prompts(write):
    path = write("a.jsonl", [{"q": "Why?", "t": "sky"}])
    (prompt,) = read(path, {"prompt": "q", "topic": "t"}, None)
    assert isinstance(prompt, Prompt) and (prompt.prompt, prompt.topic) == ("Why?", "sky")


def test_a_table_with_answers_is_one_of_pairs_although_only_its_prompt_has_another_name(write):
    path = write("a.jsonl", [{"q": "Why?", "chosen": "yes", "rejected": "no"}, {"q": "Why?", "chosen": "yes"}])
    pair, bad = read(path, {"prompt": "q"}, "P2A")
    assert (pair.prompt, pair.chosen, pair.rejected, pair.preference) == ("Why?", "yes", "no", "P2A")
    assert isinstance(bad, Bad) and bad.field == "rejected"


def test_a_column_that_we_do_not_have_is_refused(write):
    with pytest.raises(InputError, match="columns: 'chosn' is none of ours; choose from prompt, chosen"):
        list(read(write("a.jsonl", [ROW]), {"chosn": "better"}, None))


@pytest.mark.parametrize(
    ("change", "columns", "field"),
    [
        ({"prompt": " "}, {}, "prompt"),
        ({"chosen": None}, {}, "chosen"),
        ({}, {"chosen": "better"}, "better"),
        ({}, {"chosen": "chosen", "user": "who"}, "who"),
        ({"user": 1.5}, {}, "user"),
        ({"user": -1}, {}, "user"),
        ({"user": "anna"}, {}, "user"),
        ({"user": True}, {}, "user"),
        ({"probability": 0}, {}, "probability"),
        ({"probability": 1.01}, {}, "probability"),
        ({"probability": float("nan")}, {}, "probability"),
        ({"preference": 3}, {}, "preference"),
        ({"preference": "  "}, {}, "preference"),
    ],
)
def test_a_field_that_breaks_a_rule_is_bad_under_the_name_in_the_file(write, change, columns, field):
    (bad,) = read(write("a.jsonl", [ROW | change]), columns, None)
    assert isinstance(bad, Bad) and bad.field == field
