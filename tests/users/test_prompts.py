"""Prompts that tell of the user: where the text stands, and what is cut where there is no room."""

import pytest

from rlphf.lm.chat import encode_prompts
from rlphf.users.prompts import fit_told, told

QUESTION = "What is important about volcanoes?"
LONG = "I like rivers and cats and bees and salt and trains and rain. " * 40


def test_the_text_stands_where_it_is_asked_to() -> None:
    assert told("Why?", "I am five. ") == "I am five. Why?"
    assert told("Why?", "I am five.", "behind") == "Why? I am five."


@pytest.mark.parametrize("text", [None, "", "  \n"])
def test_a_user_without_a_text_is_told_of_by_nothing(tokenizer, text) -> None:
    assert told("Why?", text) == told("Why?", text, "behind") == "Why?"
    assert fit_told(tokenizer, QUESTION, text) == encode_prompts(tokenizer, [QUESTION])[0]


def test_what_fits_is_left_alone(tokenizer) -> None:
    whole = encode_prompts(tokenizer, [f"I am five. {QUESTION}"])[0]
    assert fit_told(tokenizer, QUESTION, "I am five.", limit=len(whole)) == whole


@pytest.mark.parametrize("place", ["before", "behind"])
@pytest.mark.parametrize("room", [0, 1, 10, 57])
def test_a_text_that_is_too_long_loses_its_last_words_and_the_question_none(tokenizer, place: str, room: int) -> None:
    bare = encode_prompts(tokenizer, [QUESTION])[0]
    ids = fit_told(tokenizer, QUESTION, LONG, place, len(bare) + room)
    assert len(bare) <= len(ids) <= len(bare) + room
    shown = tokenizer.decode(ids)
    assert QUESTION in shown and shown.strip().endswith("<|assistant|>")
    # As many words stay as there is room for.
    shortened = [told(QUESTION, " ".join(LONG.split()[:count]), place) for count in range(80)]
    encoded = encode_prompts(tokenizer, shortened)
    assert len(encoded[encoded.index(ids) + 1]) > len(bare) + room


@pytest.mark.parametrize("limit", [1, 2, 7, 15])
def test_a_question_that_is_too_long_keeps_its_end(tokenizer, limit: int) -> None:
    whole = encode_prompts(tokenizer, [QUESTION])[0]
    assert fit_told(tokenizer, QUESTION, LONG, limit=limit) == whole[-limit:]
