"""Sampling responses from a language model, and the log-probabilities and hidden states that training needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlphf.errors import InputError
from rlphf.lm.cache import RoomyCache
from rlphf.lm.chat import Asked, decode_response, encode_prompts
from rlphf.lm.stack import Rows
from rlphf.progress import bar
from rlphf.settings import Decoding

if TYPE_CHECKING:
    from peft import PeftModel

    from rlphf.lm.mixing import Mixture


# Returns the input embeddings (b, S, H) of the rows (b,) whose token ids (b, S) and attention mask (b, S) are given, where a
# model is to be given more than the embeddings of these ids (`users.embed`).
Embed = Callable[[Tensor, Tensor, Tensor], Tensor]

# Is told (number of the prompt, token) of each token as it is sampled.
Hear = Callable[[int, int], None]

# Texts per forward pass on a CPU.
ROWS = 16
# Finished rows are dropped from a batch when they are this share of it: dropping copies the cache, keeping computes on.
DROPPED = 1 / 4


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
    model: "PreTrainedModel | PeftModel", batch: Batch, embed: Embed | None = None, rows: Rows | None = None
) -> tuple[Tensor, Tensor]:
    """Return the last hidden states (B, T, H) that predict each response token, and (B, H) at each text's last token.

    With `embed` the model reads its embeddings in place of the tokens' own; `rows` is told which rows it reads.
    """
    whole: Any = model
    backbone = whole.get_base_model() if hasattr(whole, "get_base_model") else whole
    order = batch.attention.sum(1).argsort(stable=True)
    states, ends = [], []
    # Texts of like length go together, so that short ones are not padded to the longest; a GPU rather has one large batch.
    for index in order.split(ROWS if order.device.type == "cpu" else len(order)):
        part = batch.rows(index)
        if rows:
            rows(index)
        # Padding lies to the right, where causal attention never looks, so no mask is needed.
        read = {"inputs_embeds": embed(index, part.tokens, part.attention)} if embed else {"input_ids": part.tokens}
        output = backbone.base_model(**read, use_cache=False).last_hidden_state
        before = output.gather(1, part.positions.unsqueeze(-1).expand(-1, -1, output.shape[-1]))
        states.append(torch.nn.functional.pad(before, (0, 0, 0, batch.mask.shape[1] - part.mask.shape[1])))
        ends.append(output[torch.arange(len(index), device=index.device), part.attention.sum(1) - 1])
    back = order.argsort()
    return torch.cat(states)[back], torch.cat(ends)[back]


@torch.no_grad()
def sample(
    model: "PreTrainedModel | PeftModel | Mixture",
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    eos_id: int,
    pad_id: int,
    seed: int | Sequence[int],
    embed: Embed | None = None,
    rows: Rows | None = None,
    hear: Hear | None = None,
) -> list[list[int]]:
    """Sample one response per prompt; each ends with its end token, or at the length limit.

    Prompts are batched by length, and results come back in the order of the prompts. The same seed and prompts give the same
    responses on one kind of machine, whatever the batches, but for rounding; equal blocks of the prompts may have a `seed` each,
    and are answered as if alone. With `embed` the model reads its embeddings of the prompts in place of the tokens' own; `rows`
    is told which prompts it goes on with, and `hear` each token as it comes.
    """
    seeds = [seed] if isinstance(seed, int) else seed
    shape = (decoding.max_new_tokens, len(prompts) // len(seeds))
    generators = [torch.Generator(model.device).manual_seed(one) for one in seeds]
    # Each prompt has a random number for every token it may need.
    uniform = torch.cat([torch.rand(shape, generator=generator, device=model.device) for generator in generators], 1)
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    results: list[list[int]] = [[] for _ in prompts]
    with bar(len(prompts), "responses") as done:
        for start in range(0, len(order), decoding.batch_size):
            chosen = order[start : start + decoding.batch_size]
            numbers = torch.tensor(chosen, device=model.device)
            asked = [prompts[i] for i in chosen]
            parts = _sample_batch(model, asked, decoding, eos_id, pad_id, uniform, embed, rows, numbers, hear)
            for i, row in zip(chosen, parts, strict=True):
                results[i] = row
            done(len(chosen))
    return results


def _sample_batch(
    model: "PreTrainedModel | PeftModel | Mixture",
    prompts: list[Sequence[int]],
    decoding: Decoding,
    eos_id: int,
    pad_id: int,
    uniform: Tensor,
    embed: Embed | None,
    select: Rows | None,
    numbers: Tensor,
    hear: Hear | None,
) -> list[list[int]]:
    tokens, mask = pad(prompts, pad_id, model.device, left=True)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    # A model that mixes several has a cache of its own kind (`lm.mixing`).
    cache = getattr(model, "new_cache", RoomyCache)()
    rows: list[list[int]] = [[] for _ in prompts]
    held = torch.arange(len(prompts), device=model.device)
    finished = torch.zeros_like(held, dtype=torch.bool)
    read = {"inputs_embeds": embed(numbers, tokens, mask)} if embed else {"input_ids": tokens}
    if select:
        select(numbers)
    for step in range(decoding.max_new_tokens):
        output = model(
            **read, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        chosen = choose(output.logits[:, -1], uniform[step, numbers[held]], decoding)
        for row, token, over in zip(held.tolist(), chosen.tolist(), finished.tolist(), strict=True):
            if not over:
                rows[row].append(token)
                if hear:
                    hear(int(numbers[row]), token)
        finished |= chosen == eos_id
        if finished.all():
            break
        tokens, positions = chosen[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
        if finished.sum() >= DROPPED * len(finished):
            going = (~finished).nonzero().squeeze(1)
            held, tokens, positions, mask = held[going], tokens[going], positions[going], mask[going]
            finished = finished[going]
            cache.batch_select_indices(going)
            if select:
                select(numbers[held])
        read = {"input_ids": tokens}
    return rows


def choose(logits: Tensor, uniform: Tensor, decoding: Decoding) -> Tensor:
    """Return a token per row (B,) of `logits` (B, V) by inverting the distribution's CDF at `uniform` (B,) in [0, 1)."""
    if decoding.temperature == 0:
        return logits.argmax(-1)
    logits = logits.float() / decoding.temperature
    if decoding.top_k:
        kept = logits.topk(min(decoding.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < kept, float("-inf"))
    probabilities = logits.softmax(-1)
    if decoding.top_p < 1:
        ordered, index = probabilities.sort(descending=True)
        beyond = ordered.cumsum(-1) - ordered >= decoding.top_p
        probabilities = torch.zeros_like(probabilities).scatter(-1, index, ordered.masked_fill(beyond, 0))
    cumulative = probabilities.cumsum(-1)
    # The last sum stands in for 1; a token of probability 0 never has its interval hit.
    return (
        torch.searchsorted(cumulative, (uniform[:, None] * cumulative[:, -1:]), right=True)
        .squeeze(-1)
        .clamp(max=logits.shape[-1] - 1)
    )


def room(model: "PreTrainedModel | PeftModel | Mixture", decoding: Decoding) -> int:
    """Return how many tokens of a prompt the model's context holds beside the longest response; not above 0 for none."""
    return int(model.config.max_position_embeddings) - decoding.max_new_tokens


def encode_answerable(
    model: "PreTrainedModel | PeftModel | Mixture",
    tokenizer: PreTrainedTokenizerBase,
    instructions: Sequence[Asked],
    decoding: Decoding,
) -> list[list[int]]:
    """Return the token ids of each instruction, as `encode_prompts` does.

    Raises InputError for one that leaves no room for a response in the model's context.
    """
    prompts, most = encode_prompts(tokenizer, instructions), room(model, decoding)
    for asked, ids in zip(instructions, prompts, strict=True):
        if len(ids) > most:
            text = shorten(asked if isinstance(asked, str) else asked[-1], 60, placeholder="...")
            raise InputError(
                f"{text!r}: has {len(ids)} tokens, and beside a response of {decoding.max_new_tokens} the context has room for"
                f" {max(most, 0)}; shorten it, or lower max_new_tokens"
            )
    return prompts


def answer(
    model: "PreTrainedModel | PeftModel | Mixture",
    tokenizer: PreTrainedTokenizerBase,
    instructions: Sequence[Asked],
    decoding: Decoding,
    seed: int | Sequence[int],
    rows: Rows | None = None,
    hear: Hear | None = None,
) -> list[tuple[str, int, bool]]:
    """Sample a response to each instruction, as `sample` does; return (text, number of tokens, whether it ended by itself).

    Raises InputError, before anything is sampled, as `encode_answerable` does.
    """
    prompts = encode_answerable(model, tokenizer, instructions, decoding)
    sampled = sample(model, prompts, decoding, tokenizer.eos_token_id, tokenizer.pad_token_id, seed, rows=rows, hear=hear)
    return [(text, len(ids), done) for ids in sampled for text, done in [decode_response(tokenizer, ids)]]
