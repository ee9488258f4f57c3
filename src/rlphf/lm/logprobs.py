"""Log-probabilities of tokens from hidden states, a few tokens at a time: a vocabulary is large, and its logits are not kept."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Logits in memory at once, 64 MB of them in float32.
LOGITS = 2**24


def token_logprobs(head: nn.Module, hidden: Tensor, tokens: Tensor, temperature: float) -> Tensor:
    """Return log pi(token) (N,) of `tokens` (N,), in float32, under the logits `head(hidden)` (N, V) over `temperature`.

    `hidden` is (N, H). Gradients reach it. Where there are more than `LOGITS` logits, they are computed in parts, and again for
    the gradients, so that no more than a part is ever stored.
    """
    if len(tokens) <= rows(head):
        return _logprobs(head, hidden, tokens, temperature)
    parts = zip(*(values.split(rows(head)) for values in (hidden, tokens)), strict=True)
    return torch.cat(
        [checkpoint(_logprobs, head, h, t, temperature, use_reentrant=False, preserve_rng_state=False) for h, t in parts]
    )


@torch.no_grad()
def logprobs_and_entropies(head: nn.Module, hidden: Tensor, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return the same, and the entropies in nats (N,) of the distributions that the tokens are drawn from; without gradients."""
    logprobs, entropies = [], []
    for h, t in zip(*(values.split(rows(head)) for values in (hidden, tokens)), strict=True):
        shares = torch.log_softmax(_logits(head, h, temperature), -1)
        logprobs.append(shares.gather(1, t[:, None]).squeeze(1))
        entropies.append(-(shares.exp() * shares).sum(-1))
    return torch.cat(logprobs), torch.cat(entropies)


def rows(head: nn.Module) -> int:
    """Return how many tokens' logits are computed at once."""
    return max(1, LOGITS // head.get_parameter("weight").shape[0])


def _logprobs(head: nn.Module, hidden: Tensor, tokens: Tensor, temperature: float) -> Tensor:
    return -nn.functional.cross_entropy(_logits(head, hidden, temperature), tokens, reduction="none")


def _logits(head: nn.Module, hidden: Tensor, temperature: float) -> Tensor:
    if getattr(head, "bias", None) is not None:
        return head(hidden).float() / temperature
    # A linear head: dividing what goes in costs H per token, dividing the logits V.
    return head(hidden / temperature).float()
