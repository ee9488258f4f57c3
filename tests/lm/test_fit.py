"""Prompts where there is little room: what stays of them, and the token that begins a text."""

import pytest

from rlphf.lm.chat import encode_prompts
from rlphf.lm.fit import beginning, fit_prompt, prompt_limit

QUESTION = "What is important about volcanoes?"


def test_a_prompt_that_fits_is_left_alone(tokenizer) -> None:
    whole = encode_prompts(tokenizer, [QUESTION])[0]
    assert fit_prompt(tokenizer, QUESTION, len(whole)) == whole


@pytest.mark.parametrize("limit", [1, 2, 7, 15])
def test_a_prompt_that_is_too_long_keeps_its_end(tokenizer, limit: int) -> None:
    assert fit_prompt(tokenizer, QUESTION, limit) == encode_prompts(tokenizer, [QUESTION])[0][-limit:]


def test_the_token_that_begins_a_text_is_told_from_one_that_begins_a_turn(tokenizer, begins) -> None:
    assert tokenizer.bos_token_id is None and beginning([5, 6], tokenizer) == 0
    tokenizer = begins(7)
    assert beginning([7, 5, 6], tokenizer) == 1
    assert beginning([5, 7, 6], tokenizer) == beginning([], tokenizer) == 0
    # SmolLM2 calls the marker of each turn its BOS.
    assert beginning([7, 5, 7, 6], tokenizer) == 0


def test_a_cut_prompt_keeps_the_token_that_begins_it(tokenizer, begins) -> None:
    whole = encode_prompts(tokenizer, [QUESTION])[0]
    tokenizer = begins(whole[0])
    assert whole.count(whole[0]) == 1
    assert fit_prompt(tokenizer, QUESTION, 6) == [whole[0], *whole[-5:]]
    assert fit_prompt(tokenizer, QUESTION, 1) == whole[-1:]


@pytest.mark.parametrize(
    ("total", "response", "limit"), [(100, 30, 70), (100, 70, 50), (100, 10_000, 50), (3, 2, 1), (2, 9, 1), (1, 5, 1)]
)
def test_there_is_always_room_for_a_prompt(total: int, response: int, limit: int) -> None:
    assert prompt_limit(total, response) == limit
