"""Log-probabilities in parts: those of the softmax, with the gradients of the whole."""

import math

import pytest
import torch

from rlphf.lm import logprobs
from rlphf.lm.logprobs import logprobs_and_entropies, token_logprobs


@pytest.fixture(params=[2**24, 12, 1])
def parts(request, monkeypatch) -> int:
    """Logits at once: all, those of two tokens, those of one."""
    monkeypatch.setattr(logprobs, "LOGITS", request.param)
    return request.param


def drawn(bias: bool = True) -> tuple[torch.nn.Linear, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.nn.Linear(3, 5, bias=bias), torch.randn(7, 3, requires_grad=True), torch.tensor([0, 4, 2, 1, 1, 3, 0])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_they_are_those_of_the_softmax(parts: int, temperature: float, bias: bool) -> None:
    head, hidden, tokens = drawn(bias)
    found, entropies = logprobs_and_entropies(head, hidden, tokens, temperature)
    assert torch.allclose(found, token_logprobs(head, hidden, tokens, temperature), atol=1e-6)
    for i, row in enumerate(head(hidden).tolist()):
        weights = [math.exp(value / temperature) for value in row]
        shares = [weight / sum(weights) for weight in weights]
        assert float(found[i]) == pytest.approx(math.log(shares[tokens[i]]), abs=1e-5)
        assert float(entropies[i]) == pytest.approx(-sum(p * math.log(p) for p in shares), abs=1e-5)


def test_gradients_are_those_of_the_whole(parts: int) -> None:
    head, hidden, tokens = drawn(bias=False)
    weights = torch.arange(1.0, 8.0)
    (token_logprobs(head, hidden, tokens, 0.7) * weights).sum().backward()
    plain = hidden.detach().clone().requires_grad_()
    shares = torch.log_softmax(head(plain) / 0.7, -1)
    (shares[torch.arange(7), tokens] * weights).sum().backward()
    assert torch.allclose(hidden.grad, plain.grad, atol=1e-5)


def test_nothing_gives_nothing(parts: int) -> None:
    head, hidden, tokens = drawn()
    assert token_logprobs(head, hidden[:0], tokens[:0], 1.0).shape == (0,)
