import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlphf.data.records import (
    PAIRS,
    PROMPTS,
    RESPONSES,
    check_pairs,
    check_prompts,
    check_responses,
    correctness,
    pair_id,
    prompt_id,
    read_pairs,
)
from rlphf.errors import InputError
from rlphf.files import write_parquet

PAIR = {
    "id": "a",
    "prompt": "Why?",
    "chosen": "Because.",
    "rejected": "No.",
    "preference": "P1A",
    "user": None,
    "probability": 0.75,
    "source": "s",
    "split": "train",
}
PROMPT = {"id": "a", "prompt": "Why?", "topic": None, "source": "s", "split": "test"}
RESPONSE = {
    "prompt_id": "a",
    "method": "vb",
    "combination": "",
    "sample": 0,
    "response": "",
    "tokens": 0,
    "finished": True,
}


def table(schema, *rows):
    return pa.Table.from_pylist(list(rows), schema)


def test_a_pair_is_ordered_correctly_or_not_and_a_tie_is_half_of_it():
    assert [correctness(margin) for margin in (0.1, 0.0, -0.1)] == [1.0, 0.5, 0.0]


def test_good_tables_pass():
    check_pairs(table(PAIRS, PAIR, PAIR | {"id": "b", "probability": None, "user": 3}), "pairs.parquet")
    check_prompts(table(PROMPTS, PROMPT), "prompts.parquet")
    check_responses(table(RESPONSES, RESPONSE, RESPONSE | {"sample": 1}), "responses.parquet")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt": " \n\u00a0"}, "column prompt: is empty"),
        ({"chosen": ""}, "column chosen: is empty"),
        ({"rejected": "\t"}, "column rejected: is empty"),
        ({"rejected": "Because."}, "column rejected: equals chosen"),
        ({"split": "dev"}, "column split: is unknown; choose from train, validation, test"),
        ({"probability": 0.0}, r"column probability: is not in \(0, 1\]"),
        ({"probability": 1.5}, "column probability"),
        ({"probability": float("nan")}, "column probability"),
        ({"source": None}, "column source: is null"),
        ({"preference": ""}, "column preference: is empty"),
    ],
)
def test_a_pair_that_breaks_a_rule_is_refused_with_row_and_column(change, reason):
    with pytest.raises(InputError, match=f"^pairs.parquet: row 2, {reason}"):
        check_pairs(table(PAIRS, PAIR, PAIR | {"id": "b"} | change), "pairs.parquet")


def test_repeated_ids_are_refused():
    with pytest.raises(InputError, match="id: 'a' occurs 2 times"):
        check_pairs(table(PAIRS, PAIR, PAIR), "x")
    with pytest.raises(InputError, match="id: 'a' occurs 2 times"):
        check_prompts(table(PROMPTS, PROMPT, PROMPT), "x")
    with pytest.raises(InputError, match="sample: 'a, vb, , 0' occurs 2 times"):
        check_responses(table(RESPONSES, RESPONSE, RESPONSE), "x")


def test_a_missing_or_mistyped_column_is_named():
    with pytest.raises(InputError, match="column split is missing"):
        check_prompts(table(PROMPTS, PROMPT).drop_columns("split"), "x")
    wrong = table(PROMPTS, PROMPT).set_column(1, "prompt", pa.array([1]))
    with pytest.raises(InputError, match="column prompt: is int64, expected string"):
        check_prompts(wrong, "x")


def test_negative_counts_of_a_response_are_refused():
    with pytest.raises(InputError, match="row 1, column tokens: is negative"):
        check_responses(table(RESPONSES, RESPONSE | {"tokens": -1}), "x")


def test_ids_depend_on_content_and_nothing_else():
    assert pair_id("q", "a", "b", "P1A") == pair_id("q", "a", "b", "P1A", None) == "aa8754c31ddc8d2acbb7"
    different = {
        pair_id(*x) for x in [("q", "a", "b", "P1A"), ("q", "b", "a", "P1A"), ("qa", "", "b", "P1A"), ("q", "a", "b", "P1B")]
    }
    assert len(different | {pair_id("q", "a", "b", "P1A", 1)}) == 5
    assert prompt_id("q") != prompt_id("Q")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS, st.none() | st.integers(0, 2**53), st.none() | st.floats(0.001, 1)), max_size=5))
def test_pairs_read_back_as_they_were(tmp_path_factory, rows):
    path = tmp_path_factory.getbasetemp() / "pairs.parquet"
    made = {}
    for prompt, chosen, rejected, user, probability in rows:
        if chosen != rejected:
            name = pair_id(prompt, chosen, rejected, "P1A", user)
            texts = {"id": name, "prompt": prompt, "chosen": chosen, "rejected": rejected}
            made[name] = PAIR | texts | {"user": user, "probability": probability}
    write_parquet(path, table(PAIRS, *made.values()))
    assert read_pairs([path]) == list(made.values())


@given(st.lists(st.tuples(st.text(), st.text(), st.text()), min_size=2, max_size=6, unique=True))
def test_pairs_that_say_different_things_have_different_ids(rows):
    assert len({pair_id(*row, "P1A") for row in rows}) == len({pair_id(*row, "P1A", 1) for row in rows}) == len(rows)
