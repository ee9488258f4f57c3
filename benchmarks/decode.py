"""Decoding: tokens per second of `lm.sampling.sample` against `transformers.generate`, prompts and lengths alike."""

from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any

from benchmarks.child import timed
from benchmarks.floor import Shape, decode_seconds, rates
from benchmarks.harness import Answer, Options, Side, interleaved, machine, versions_of
from benchmarks.models import DTYPES, SMALL, SMOLLM2, Prepared, rows_of_models
from benchmarks.table import Figure, Row, Target
from rlphf.files import read_json

# Prompts in the batch, new tokens, and batches that are timed.
SIZES = {SMALL: (256, 96, 3), SMOLLM2: (16, 48, 3)}
TRIAL = (8, 8, 1)
TEMPERATURE = 0.7
DIFFERS = ["no response ends before the limit: ours gets an end token that no token equals, transformers none"]


def rows(options: Options) -> Iterator[Row]:
    """Measure both models on the CPU, and on a machine with CUDA on the GPU."""
    yield from rows_of_models("decode", "Decoding", options, measured)


def measured(row: Row, made: Prepared, options: Options) -> Row:
    """Run both sides and fill in their row."""
    model, dtype = made.name, DTYPES[options.device]
    batch, tokens, repeats = TRIAL if options.small else SIZES[model]
    arguments = {"model": str(made.model), "prompts": str(made.prompts), "batch": batch, "tokens": tokens}
    arguments |= {"repeats": repeats, "dtype": dtype}
    sides = [
        Side("our sampling", "benchmarks.decode:ours", arguments),
        Side("transformers.generate", "benchmarks.decode:theirs", arguments),
    ]
    found = machine(options)
    our, their = interleaved(sides, options)
    shape = Shape.of(made.model, dtype)
    floor = decode_seconds(shape, rates(options, dtype, shape.weights), made.lengths(batch), tokens)
    speeds = [[batch * tokens / median(answer["seconds"]) for answer in answers] for answers in (our, their)]
    peaks = [[answer["peak_mb"] for answer in answers] for answers in (our, their)]
    bound = "multiply-adds and bytes"
    figures = [
        Figure("tokens", "1/s", speeds[0], "transformers", speeds[1], Target("least", 2.0), batch * tokens / floor, bound),
        Figure("peak memory", "MB", peaks[0], "transformers", peaks[1]),
    ]
    settings = {
        "model": model,
        "dtype": dtype,
        "prompts": f"{batch} of {min(made.lengths(batch))} to {max(made.lengths(batch))} tokens in one batch",
        "new tokens": tokens,
        "temperature": TEMPERATURE,
        "batches timed": f"{repeats} after one, in each of {options.rounds} rounds",
    }
    versions = {"both": versions_of(our[0], "torch", "transformers")}
    return replace(row, figures=figures, settings=settings, versions=versions, machine=found, differs=DIFFERS)


def ours(model: str, prompts: str, batch: int, tokens: int, repeats: int, dtype: str) -> Answer:
    """Side: sample with our cache; `tokens` for each of the first `batch` prompts."""
    import torch

    from rlphf.lm.backbone import load_backbone
    from rlphf.lm.sampling import sample
    from rlphf.settings import Decoding

    base, tokenizer = load_backbone(model, getattr(torch, dtype))
    asked = read_json(prompts)[:batch]
    decoding = Decoding(temperature=TEMPERATURE, max_new_tokens=tokens, batch_size=batch)
    lengths: set[int] = set()

    def once() -> None:
        lengths.update(map(len, sample(base, asked, decoding, -1, tokenizer.pad_token_id, seed=1)))

    return checked(timed(once, repeats), lengths, tokens)


def theirs(model: str, prompts: str, batch: int, tokens: int, repeats: int, dtype: str) -> Answer:
    """Side: the same by `generate`, with its own cache."""
    import torch
    from transformers import GenerationConfig

    from rlphf.lm.backbone import load_backbone
    from rlphf.lm.batches import pad

    loaded, tokenizer = load_backbone(model, getattr(torch, dtype))
    base: Any = loaded
    read, mask = pad(read_json(prompts)[:batch], tokenizer.pad_token_id, base.device, left=True)
    # What this leaves open is filled in from the model's own configuration, which names an end token.
    base.generation_config.eos_token_id = None
    settings = GenerationConfig(
        do_sample=True, temperature=TEMPERATURE, top_k=0, top_p=1.0, max_new_tokens=tokens, pad_token_id=tokenizer.pad_token_id
    )
    lengths: set[int] = set()

    def once() -> None:
        out = base.generate(input_ids=read, attention_mask=mask, generation_config=settings)
        lengths.add(len(out[0].tolist()) - read.shape[1])

    return checked(timed(once, repeats), lengths, tokens)


def checked(found: Answer, lengths: set[int], tokens: int) -> Answer:
    """Return `found` if all responses had `tokens` tokens; sides of other lengths would not be comparable."""
    if lengths != {tokens}:
        raise ValueError(f"responses of {tokens} tokens were to be sampled, found {sorted(lengths)}")
    return found
