"""Sampling responses from a language model, in batches that responses leave as they end."""

from collections.abc import Callable, Hashable, Sequence
from textwrap import shorten
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlphf.errors import InputError
from rlphf.lm.batches import Embed, pad
from rlphf.lm.chat import Asked, decode_response, encode_prompts
from rlphf.lm.stack import SelectRows
from rlphf.lm.steps import steps
from rlphf.progress import bar
from rlphf.settings import Decoding

if TYPE_CHECKING:
    from peft import PeftModel

    from rlphf.lm.mixing import Mixture


# Called with (prompt index, token) for each sampled token.
Hear = Callable[[int, int], None]

# Finished rows are dropped from a batch when they are this share of it: dropping copies the cache, keeping computes on.
DROPPED = 1 / 4


@torch.no_grad()
def sample(
    model: "PreTrainedModel | PeftModel | Mixture",
    prompts: Sequence[Sequence[int]],
    decoding: Decoding,
    eos_id: int,
    pad_id: int,
    seed: int | Sequence[int],
    embed: Embed | None = None,
    select_rows: SelectRows | None = None,
    hear: Hear | None = None,
    kinds: Sequence[Hashable] | None = None,
) -> list[list[int]]:
    """Sample one response per prompt; each ends with its end token, or at the length limit.

    Prompts are batched by length, and results come back in the order of the prompts. The same seed and prompts give the same
    responses on one kind of machine, whatever the batches, but for rounding; equal blocks of the prompts may have a `seed` each,
    and are answered as if alone. With `embed` the model reads its embeddings of the prompts in place of the tokens' own;
    `select_rows` is called with the prompts that are read or still being decoded; `hear` with each new token.

    Equal prompts of a batch are read once. What `embed` or `select_rows` make of them may differ, so with either these must be of
    one kind, too: `kinds` has one for each prompt, None for none alike.
    """
    if kinds is None:
        kinds = range(len(prompts)) if embed or select_rows else [0] * len(prompts)
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
            asked = [(kinds[i], tuple(prompts[i])) for i in chosen]
            parts = _sample_batch(model, asked, decoding, eos_id, pad_id, uniform, embed, select_rows, numbers, hear)
            for i, row in zip(chosen, parts, strict=True):
                results[i] = row
            done(len(chosen))
    return results


def _sample_batch(
    model: "PreTrainedModel | PeftModel | Mixture",
    prompts: list[tuple[Hashable, tuple[int, ...]]],
    decoding: Decoding,
    eos_id: int,
    pad_id: int,
    uniform: Tensor,
    embed: Embed | None,
    select_rows: SelectRows | None,
    numbers: Tensor,
    hear: Hear | None,
) -> list[list[int]]:
    # Equal prompts are read once: where each is first, and which of those that are read each prompt is.
    where: dict[tuple[Hashable, tuple[int, ...]], int] = {}
    for i, prompt in enumerate(prompts):
        where.setdefault(prompt, i)
    row_of = {prompt: row for row, prompt in enumerate(where)}
    which, firsts = torch.tensor([row_of[prompt] for prompt in prompts], device=model.device), numbers[list(where.values())]
    tokens, mask = pad([ids for _, ids in where], pad_id, model.device, left=True)
    reading = steps(model, tokens.shape[1] + decoding.max_new_tokens)
    if select_rows:
        select_rows(firsts)
    logits = reading.read({"inputs_embeds": embed(firsts, tokens, mask)} if embed else {"input_ids": tokens}, mask)
    if len(where) < len(prompts):
        logits = logits[which]
        reading.keep(which)
        if select_rows:
            select_rows(numbers)
    rows: list[list[int]] = [[] for _ in prompts]
    held = torch.arange(len(prompts), device=model.device)
    finished = torch.zeros_like(held, dtype=torch.bool)
    for step in range(decoding.max_new_tokens):
        chosen = choose(logits, uniform[step, numbers[held]], decoding)
        for row, token, over in zip(held.tolist(), chosen.tolist(), finished.tolist(), strict=True):
            if not over:
                rows[row].append(token)
                if hear:
                    hear(int(numbers[row]), token)
        finished |= chosen == eos_id
        if finished.all() or step == decoding.max_new_tokens - 1:
            break
        if finished.sum() >= DROPPED * len(finished):
            going = (~finished).nonzero().squeeze(1)
            held, chosen, finished = held[going], chosen[going], finished[going]
            reading.keep(going)
            if select_rows:
                select_rows(numbers[held])
        logits = reading.step(chosen)
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
    select_rows: SelectRows | None = None,
    hear: Hear | None = None,
) -> list[tuple[str, int, bool]]:
    """Sample a response to each instruction, as `sample` does; return (text, number of tokens, whether it ended by itself).

    Raises InputError, before anything is sampled, as `encode_answerable` does.
    """
    prompts = encode_answerable(model, tokenizer, instructions, decoding)
    eos, padding = tokenizer.eos_token_id, tokenizer.pad_token_id
    sampled = sample(model, prompts, decoding, eos, padding, seed, select_rows=select_rows, hear=hear)
    return [(text, len(ids), done) for ids in sampled for text, done in [decode_response(tokenizer, ids)]]
