"""Several responses to one prompt in one pass: the prompt is read once, and each response goes on from its keys and values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from rlphf.lm.batches import ROWS, Embed, pad

if TYPE_CHECKING:
    from peft import PeftModel


@dataclass(frozen=True)
class Branches:
    """R responses to each of B prompts, N = B x R rows in the order of the prompts.

    `tokens` and `mask` (N, T) are the responses, padded on the right; `states` (N, T, H) the last hidden states that predict each
    of their tokens; `ends` (N, H) those at their last tokens.
    """

    tokens: Tensor
    mask: Tensor
    states: Tensor
    ends: Tensor


def branch(
    model: "PreTrainedModel | PeftModel",
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Sequence[int]]],
    pad_id: int,
    embed: Embed | None = None,
) -> Branches:
    """Read `prompts` and equally many `responses` to each, none empty, with gradients through both.

    With `embed` the model reads its embeddings of the prompts in place of the tokens' own.
    """
    whole: Any = model
    backbone = whole.get_base_model() if hasattr(whole, "get_base_model") else whole
    device, count = whole.device, len(responses[0])
    tokens, mask = pad([response for each in responses for response in each], pad_id, device)
    width = tokens.shape[1]
    lengths = torch.tensor([len(p) + max(map(len, r)) for p, r in zip(prompts, responses, strict=True)])
    order = lengths.argsort(stable=True)
    states, ends = [], []
    # Texts of like length go together, so that short ones are not padded to the longest; a GPU rather has one large batch.
    for index in order.split(max(1, ROWS // count) if device.type == "cpu" else len(order)):
        rows = (index[:, None] * count + torch.arange(count)).flatten().to(device)
        own, read = pad([prompts[i] for i in index.tolist()], pad_id, device)
        sizes = read.sum(1)
        # Padding lies to the right, where causal attention never looks, so the prompts need no mask.
        cache = DynamicCache()
        inputs = {"inputs_embeds": embed(index.to(device), own, read)} if embed else {"input_ids": own}
        prompt = backbone.base_model(**inputs, past_key_values=cache, use_cache=True).last_hidden_state
        first = prompt[torch.arange(len(index), device=device), sizes - 1].repeat_interleave(count, 0)
        cache.batch_repeat_interleave(count)
        longest = int(mask[rows].sum(1).max())
        attention = torch.cat([read.repeat_interleave(count, 0), mask[rows, :longest]], 1)
        positions = sizes.repeat_interleave(count)[:, None] + torch.arange(longest, device=device)
        output = backbone.base_model(
            input_ids=tokens[rows, :longest],
            attention_mask=attention,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        before = torch.cat([first[:, None], output[:, :-1]], 1)
        states.append(torch.nn.functional.pad(before, (0, 0, 0, width - longest)))
        ends.append(output[torch.arange(len(rows), device=device), mask[rows].sum(1) - 1])
    back = (order[:, None] * count + torch.arange(count)).flatten().argsort().to(device)
    return Branches(tokens, mask, torch.cat(states)[back], torch.cat(ends)[back])
