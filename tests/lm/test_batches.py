"""Batches of prompts and responses: their padding, and the hidden states that predict the responses."""

import pytest
import torch

from rlphf.lm import batches
from rlphf.lm.batches import hidden_states, join, pad


def test_padding_is_by_length_and_not_by_token() -> None:
    tokens, mask = pad([[0, 5, 0], [6]], value=0)
    assert tokens.tolist() == [[0, 5, 0], [6, 0, 0]] and mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    tokens, mask = pad([[0, 5, 0], [6]], value=9, left=True)
    assert tokens.tolist() == [[0, 5, 0], [9, 9, 6]] and mask.tolist() == [[1, 1, 1], [0, 0, 1]]


@pytest.mark.parametrize("at_once", [1, 2, 16])
def test_hidden_states_are_those_before_each_response_token_and_at_the_texts_end(model, monkeypatch, at_once: int) -> None:
    monkeypatch.setattr(batches, "ROWS", at_once)
    prompts, responses = [[10, 11, 12], [13], [14, 15]], [[20], [21, 22, 23], [24, 25, 26, 27, 28]]
    batch = join(prompts, responses, pad_id=0, device=model.device)
    before, last = hidden_states(model, batch)
    for i, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        alone = model.model(input_ids=torch.tensor([prompt + response], device=model.device)).last_hidden_state[0]
        start = len(prompt) - 1
        assert torch.allclose(before[i, : len(response)], alone[start : start + len(response)], atol=1e-5)
        assert torch.allclose(last[i], alone[-1], atol=1e-5)
    narrow = batch.rows(torch.tensor([0]))
    assert narrow.tokens.tolist() == [[10, 11, 12, 20]] and narrow.responses.tolist() == [[20]]
    assert torch.allclose(hidden_states(model, narrow)[0][0], before[0, :1], atol=1e-5)
