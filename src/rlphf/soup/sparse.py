"""Merge rules that thin out every adapter's delta before they sum: TIES (Yadav et al. 2023) and DARE (Yu et al. 2024).

Both work on entries of the whole delta, which no product of small factors keeps, so the result is the best LoRA of the rank that
it is given, by SVD. The formulas are PEFT's, which applies them to A and B apart unless its `_svd` forms are asked for.
"""

import warnings
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from rlphf.seeds import derive

Rule = Literal["ties", "dare"]


def thinned(deltas: Sequence[Tensor], weights: Sequence[float], rule: Rule, density: float, seed: int) -> Tensor:
    """Return the merge (out, in) of k adapters' deltas (out, in), of each of which the share `density` is kept.

    `ties` keeps the largest entries and means, entry by entry, over the adapters that have the sign of the sum; weights of 1/k
    each make it the plain mean. `dare` keeps random entries, drawn by `seed` and scaled up by 1 / density, and sums with the
    weights.
    """
    # PEFT takes seconds to import, which the other rules do not need.
    from peft.utils.merge_utils import dare_linear, ties

    stacked = torch.tensor(weights, dtype=deltas[0].dtype)
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # A density of 1 keeps everything, of which PEFT warns.
        warnings.simplefilter("ignore", UserWarning)
        torch.manual_seed(seed)
        if rule == "dare":
            return dare_linear(list(deltas), stacked, density)
        # PEFT divides the weighted sum by the number of adapters that agree.
        return ties(list(deltas), stacked * len(deltas), density)


def low_rank(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return A (rank, in) and B (out, rank) whose product is the best approximation of `matrix` (out, in); zeros fill them up."""
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    kept = min(rank, len(s))
    root, short = s[:kept].sqrt(), rank - kept
    a = torch.nn.functional.pad(root[:, None] * vh[:kept], (0, 0, 0, short))
    return a, torch.nn.functional.pad(u[:, :kept] * root, (0, short))


def seed_of(module: str) -> int:
    """Return the seed of a module's random entries: the same for every soup, so a recipe has one result."""
    return derive(0, "dare", module)
