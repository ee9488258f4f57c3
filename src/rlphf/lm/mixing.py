"""Decode-time mixing (MOD): the next-token distributions of several adapters on one backbone, mixed with weights.

Source: Shi et al. 2024, "Decoding-Time Language Model Alignment with Multiple Objectives", for a reverse KL penalty.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from rlphf.lm.cache import RoomyCache


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

    All adapters run in one forward pass: the batch is repeated once per adapter, and PEFT sends each block through its own.
    """

    def __init__(self, model: PreTrainedModel, adapters: Mapping[Path, float]):
        """Load the `adapters` {folder: weight}, at least one, beside each other on `model`."""
        (first, *others), self.weights = adapters, list(adapters.values())
        self.model = PeftModel.from_pretrained(model, first, adapter_name="0", use_safetensors=True)
        for number, folder in enumerate(others, start=1):
            self.model.load_adapter(str(folder), adapter_name=str(number), use_safetensors=True)
        self.model.eval()
        self.device = self.model.device

    def new_cache(self) -> CopiesCache:
        """Return an empty cache for a batch of this model."""
        return CopiesCache(len(self.weights))

    def unload(self) -> Any:
        """Return the backbone without the adapters."""
        return self.model.unload()

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, **others: Any) -> Output:
        """Return the mixed log-probabilities of the next token of each of B rows, as logits (B, 1, V)."""
        rows, copies = len(input_ids), len(self.weights)
        output = self.model(
            input_ids=input_ids.repeat(copies, 1),
            attention_mask=attention_mask.repeat(copies, 1),
            position_ids=position_ids.repeat(copies, 1),
            adapter_names=[str(i) for i in range(copies) for _ in range(rows)],
            **others,
        )
        logprobs = output.logits[:, -1].float().log_softmax(-1).view(copies, rows, -1)
        weights = torch.tensor(self.weights, device=logprobs.device)
        return Output(torch.einsum("k,kbv->bv", weights, logprobs)[:, None])
