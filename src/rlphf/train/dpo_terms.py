"""The formulas of preference losses with a user model, as pure functions; no model and no loop is in here.

Tensors are (B,), one number per pair. `own` is the term of a pair's user, `generic` that of user 0. Source: Li et al.
2024, "Personalized Language Modeling from Personalized Human Feedback": P-DPO, and P-RM, its twin for reward models.
"""

import math
from collections.abc import Iterator, Sequence
from random import Random
from typing import Literal

import torch
from torch import Tensor

from rlphf.seeds import derive

Loss = Literal["sigmoid", "ipo", "hinge"]
# Batches whose pairs are sorted by length together.
POOL = 50


def margin(chosen: Tensor, rejected: Tensor, chosen_reference: Tensor, rejected_reference: Tensor, beta: float) -> Tensor:
    """Return h = beta [log pi(y1|x,u) / pi_ref(y1|x) - log pi(y2|x,u) / pi_ref(y2|x)] (B,), of log-probabilities (B,)."""
    return beta * ((chosen - chosen_reference) - (rejected - rejected_reference))


def pair_loss(margins: Tensor, loss: Loss, beta: float) -> Tensor:
    """Return each pair's loss (B,) of its margin h (B,).

    sigmoid: -log s(h) (Rafailov et al. 2023, equation 7); hinge: max(0, 1 - h) (Zhao et al. 2023); ipo: (h / beta - 1 /
    (2 beta))^2 (Azar et al. 2024, equation 17), on whole log-ratios, where TRL takes their means per token.
    """
    if loss == "sigmoid":
        return -torch.nn.functional.logsigmoid(margins)
    if loss == "hinge":
        return torch.relu(1 - margins)
    return (margins / beta - 1 / (2 * beta)) ** 2


def mixture(own: Tensor | None, generic: Tensor | None, alpha: float) -> Tensor:
    """Return alpha x own + (1 - alpha) x generic (B,), of losses (B,); a term of weight 0 may be None."""
    if alpha == 0 and generic is not None:
        return generic
    if alpha == 1 and own is not None:
        return own
    if own is None or generic is None:
        raise ValueError(f"alpha = {alpha} needs both terms")
    return alpha * own + (1 - alpha) * generic


def rate(step: int, steps: int, warmup: int) -> float:
    """Return the share of the peak learning rate at `step` of `steps`: a linear warm-up, then half a cosine down to 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def batches(lengths: Sequence[int], size: int, epochs: int, seed: int) -> Iterator[list[int]]:
    """Yield the pairs of each step, as numbers, over `epochs` passes: in random order, each batch of like lengths."""
    for epoch in range(epochs):
        rng = Random(derive(seed, "pass", epoch))
        order = list(range(len(lengths)))
        rng.shuffle(order)
        made: list[list[int]] = []
        for start in range(0, len(order), size * POOL):
            pool = sorted(order[start : start + size * POOL], key=lambda i: lengths[i])
            made += [pool[i : i + size] for i in range(0, len(pool), size)]
        rng.shuffle(made)
        yield from made
