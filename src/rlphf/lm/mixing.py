"""Decode-time mixing (MOD): the next-token distributions of several adapters on one backbone, mixed with weights.

Source: Shi et al. 2024, "Decoding-Time Language Model Alignment with Multiple Objectives", for a reverse KL penalty.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlphf.lm.cache import RoomyCache
from rlphf.lm.stack import SelectRows, hung


class CopiesCache(RoomyCache):
    """A key-value cache for `copies` blocks of the same rows; rows are selected in all blocks at once."""

    def __init__(self, copies: int):
        super().__init__()
        self.copies = copies

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows `indices` of every block."""
        layer: Any = self.layers[0]
        rows = layer.keys.shape[0] // self.copies
        super().batch_select_indices(torch.cat([indices + rows * block for block in range(self.copies)]))


@dataclass(frozen=True)
class Output:
    """What sampling reads of a model's output: logits (B, 1, V)."""

    logits: Tensor


class Mixture:
    """A language model whose next-token log-probabilities are sum_i w_i log pi_i, up to a constant.

    All pi_i run in one forward pass: the batch is repeated once per adapter, and each block goes through its own. Where the
    adapters' weights do not sum to 1, the backbone has the rest, in a block of its own.
    """

    def __init__(self, model: PreTrainedModel, select_rows: SelectRows, weights: Sequence[float]):
        """`select_rows` maps block i of the batch to the adapter (or, last, the backbone) with weight i; see `mixture`."""
        self.model, self.select_rows, self.weights = model, select_rows, weights
        self.device, self.config = model.device, model.config

    def new_cache(self) -> CopiesCache:
        """Return an empty cache for a batch of this model."""
        return CopiesCache(len(self.weights))

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, **others: Any) -> Output:
        """Return the mixed log-probabilities of the next token of each of B rows, as logits (B, 1, V)."""
        rows, copies = len(input_ids), len(self.weights)
        self.select_rows(torch.arange(copies, device=self.device).repeat_interleave(rows))
        output = self.model(
            input_ids=input_ids.repeat(copies, 1),
            attention_mask=attention_mask.repeat(copies, 1),
            position_ids=position_ids.repeat(copies, 1),
            **others,
        )
        logprobs = output.logits[:, -1].float().log_softmax(-1).view(copies, rows, -1)
        weights = torch.tensor(self.weights, device=logprobs.device)
        return Output(torch.einsum("k,kbv->bv", weights, logprobs)[:, None])


def mixed_weights(weights: Iterable[float]) -> list[float]:
    """Return the weights of adapters and, where they do not sum to 1, behind them what is left, the backbone's.

    So the mixture is the backbone, and of each adapter w_i of what it changes: log pi_0 + sum_i w_i (log pi_i - log pi_0).
    """
    own = list(weights)
    rest = 1 - math.fsum(own)
    return own if abs(rest) < 1e-9 else [*own, rest]


@contextmanager
def mixture(model: PreTrainedModel, adapters: Mapping[Path, float]) -> Iterator[Mixture]:
    """Give the mixture of the `adapters` {folder: weight}, at least one, on the backbone `model`; take them off afterwards."""
    weights = mixed_weights(adapters.values())
    eye = torch.eye(len(weights), len(adapters), device=model.device)
    with hung(model, list(adapters)) as stack, stack.mixing(eye) as select_rows:
        yield Mixture(model, select_rows, weights)
