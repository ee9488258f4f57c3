"""Prompts and responses in batches, as training reads them, and their hidden states. Sampling is in `lm.sampling`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlphf.lm.stack import SelectRows

if TYPE_CHECKING:
    from peft import PeftModel

# Returns the input embeddings (b, S, H) of the rows (b,) whose token ids (b, S) and attention mask (b, S) are given, where a
# model is to be given more than the embeddings of these ids (`users.embed`).
Embed = Callable[[Tensor, Tensor, Tensor], Tensor]

# Texts per forward pass on a CPU.
ROWS = 16


@dataclass(frozen=True)
class Batch:
    """Prompts and responses of B texts, padded on the right.

    `tokens` and `attention` are (B, S), prompt and response in one row; `responses` and `mask` are (B, T), the response
    tokens alone, their end token included; `positions` (B, T) says where in the row each response token is predicted.
    """

    tokens: Tensor
    attention: Tensor
    responses: Tensor
    mask: Tensor
    positions: Tensor

    @classmethod
    def of(cls, parts: Sequence["Batch"], pad_id: int) -> "Batch":
        """Return batches as one."""
        if len(parts) == 1:
            return parts[0]
        width, length = (max(size) for size in zip(*((p.tokens.shape[1], p.mask.shape[1]) for p in parts), strict=True))

        def joined(name: str, size: int, value: int) -> Tensor:
            rows = [getattr(part, name) for part in parts]
            return torch.cat([torch.nn.functional.pad(row, (0, size - row.shape[1]), value=value) for row in rows])

        tokens, attention = joined("tokens", width, pad_id), joined("attention", width, 0)
        return cls(
            tokens, attention, joined("responses", length, pad_id), joined("mask", length, 0), joined("positions", length, 0)
        )

    def rows(self, index: Tensor) -> "Batch":
        """Return the rows `index` (b,), cut to their own longest text and response."""
        width, length = int(self.attention[index].sum(1).max()), int(self.mask[index].sum(1).max())
        return Batch(
            self.tokens[index, :width],
            self.attention[index, :width],
            self.responses[index, :length],
            self.mask[index, :length],
            self.positions[index, :length].clamp(max=width - 1),
        )


def pad(
    rows: Sequence[Sequence[int]], value: int, device: torch.device | str = "cpu", left: bool = False
) -> tuple[Tensor, Tensor]:
    """Return rows of token ids as (B, S), and their attention mask by length, never by token id."""
    width = max(map(len, rows))
    tokens = torch.full((len(rows), width), value, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(0, len(row))
        tokens[i, where] = torch.tensor(row, dtype=torch.long)
        mask[i, where] = 1
    return tokens.to(device), mask.to(device)


def join(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], pad_id: int, device: torch.device | str) -> Batch:
    """Put prompts and their responses (neither may be empty) into one batch."""
    tokens, attention = pad([[*p, *r] for p, r in zip(prompts, responses, strict=True)], pad_id, device)
    own, mask = pad(responses, pad_id, device)
    starts = torch.tensor([len(p) - 1 for p in prompts], device=device)
    positions = (starts[:, None] + torch.arange(own.shape[1], device=device)).clamp(max=tokens.shape[1] - 1)
    return Batch(tokens, attention, own, mask.float(), positions)


def hidden_states(
    model: "PreTrainedModel | PeftModel", batch: Batch, select_rows: SelectRows | None = None
) -> tuple[Tensor, Tensor]:
    """Return the last hidden states (B, T, H) that predict each response token, and (B, H) at each text's last token.

    `select_rows` is called with the rows of each pass.
    """
    whole: Any = model
    backbone = whole.get_base_model() if hasattr(whole, "get_base_model") else whole
    order = batch.attention.sum(1).argsort(stable=True)
    states, ends = [], []
    # Texts of like length go together, so that short ones are not padded to the longest; a GPU rather has one large batch.
    for index in order.split(ROWS if order.device.type == "cpu" else len(order)):
        part = batch.rows(index)
        if select_rows:
            select_rows(index)
        # Padding lies to the right, where causal attention never looks, so no mask is needed.
        output = backbone.base_model(input_ids=part.tokens, use_cache=False).last_hidden_state
        before = output.gather(1, part.positions.unsqueeze(-1).expand(-1, -1, output.shape[-1]))
        states.append(torch.nn.functional.pad(before, (0, 0, 0, batch.mask.shape[1] - part.mask.shape[1])))
        ends.append(output[torch.arange(len(index), device=index.device), part.attention.sum(1) - 1])
    back = order.argsort()
    return torch.cat(states)[back], torch.cat(ends)[back]
