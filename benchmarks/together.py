"""Adapters that share batches: eight policies in one PPO against one, and sixteen soups decoded in one batch against one soup."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import decode, ppo
from benchmarks.child import timed
from benchmarks.floor import Shape, decode_seconds, rates, update_seconds
from benchmarks.harness import Answer, Options, Side, interleaved, machine, measure, versions_of
from benchmarks.models import DTYPES, LORA, SMALL, SMOLLM2, Prepared, rows_of_models
from benchmarks.table import Figure, Row, Target
from rlphf.files import read_json

POLICIES, SOUPS = 8, 16
NAMES = [f"P{number}" for number in range(POLICIES)]
MERGED = "merged"
# Prompts of each policy per update, responses per optimizer step, new tokens, and updates that are timed.
SIZES = {SMALL: (64, 32, 96, 2), SMOLLM2: (16, 8, 48, 1)}
UPDATE_DIFFERS = ["eight policies sample and learn eight times as much as the one"]
DECODE_DIFFERS = [
    "the one soup is merged and added to the backbone's weights; the others are sums of the resident adapters, row by row",
]


def rows(options: Options) -> Iterator[Row]:
    """Measure both models on the CPU, and on a machine with CUDA on the GPU."""
    yield from rows_of_models("together", f"{POLICIES} policies in one PPO", options, policies)
    yield from rows_of_models("soups-batch", f"{SOUPS} soups in one batch", options, soups)


def policies(row: Row, made: Prepared, options: Options) -> Row:
    """Fill in the row of an update of all policies against an update of one."""
    dtype = DTYPES[options.device]
    batch, mini, tokens, updates = ppo.TRIAL if options.small else SIZES[made.name]
    work: dict[str, Any] = {
        "batch": batch,
        "mini": mini,
        "epochs": ppo.EPOCHS,
        "tokens": tokens,
        "updates": updates,
        "dtype": dtype,
    }
    work |= ppo.paths(made, "model", "reward")
    sides = [Side(f"{n} policies", "benchmarks.ppo:ours", work | {"policies": n}) for n in (POLICIES, 1)]
    found = machine(options)
    all_of_them, one = interleaved(sides, options)
    shape = Shape.of(made.model, dtype)
    floor = update_seconds(shape, rates(options, dtype, shape.weights), made.lengths(batch) * POLICIES, tokens, ppo.EPOCHS)
    times = [[median(answer["seconds"]) for answer in answers] for answers in (all_of_them, one)]
    # A CPU has nothing to spare that one policy would leave idle, so only a GPU has a target.
    target = Target("most", 2.0) if options.device == "cuda" else None
    figures = [
        Figure("update", "s", times[0], "one policy", times[1], target, floor, "multiply-adds and bytes"),
        Figure("peak memory", "MB", *(_peaks(all_of_them), "one policy", _peaks(one))),
    ]
    settings = {
        "model": made.name,
        "dtype": dtype,
        "prompts": f"{batch} of {min(made.lengths(batch))} to {max(made.lengths(batch))} tokens for each policy",
        "response": f"{tokens} tokens",
        "LoRA": f"rank {LORA['rank']} on {' '.join(LORA['targets'])}",
        "updates timed": f"{updates} after one, in each of {options.rounds} rounds",
    }
    versions = {"both": versions_of(one[0], "torch", "transformers", "peft")}
    return replace(row, figures=figures, settings=settings, versions=versions, machine=found, differs=UPDATE_DIFFERS)


def soups(row: Row, made: Prepared, options: Options) -> Row:
    """Fill in the row of a batch whose rows go through all soups in turn, against the same batch through one merged soup."""
    dtype = DTYPES[options.device]
    batch, tokens, repeats = (SOUPS, *decode.TRIAL[1:]) if options.small else decode.SIZES[made.name]
    folder = options.work / f"together-{made.name}".replace(" ", "-").lower()
    made_of = {"model": str(made.model), "names": NAMES, "out": str(folder)}
    measure(Side("adapters", "benchmarks.models:make_adapters", made_of), options)
    measure(Side("soup", "benchmarks.together:merge", {"folder": str(folder)}), options)
    arguments: dict[str, Any] = {"model": str(made.model), "prompts": str(made.prompts), "adapters": str(folder)}
    arguments |= {"batch": batch, "tokens": tokens, "repeats": repeats, "dtype": dtype}
    sides = [Side(f"{n} soups", "benchmarks.together:sampled", arguments | {"soups": n}) for n in (SOUPS, 1)]
    found = machine(options)
    many, one = interleaved(sides, options)
    shape = Shape.of(made.model, dtype)
    floor = decode_seconds(shape, rates(options, dtype, shape.weights), made.lengths(batch), tokens)
    speeds = [[batch * tokens / median(answer["seconds"]) for answer in answers] for answers in (many, one)]
    bound = "multiply-adds and bytes of the backbone"
    figures = [
        Figure("tokens", "1/s", speeds[0], "one merged soup", speeds[1], Target("least", 0.8), batch * tokens / floor, bound),
        Figure("peak memory", "MB", *(_peaks(many), "one merged soup", _peaks(one))),
    ]
    settings = {
        "model": made.name,
        "dtype": dtype,
        "adapters": f"{POLICIES} of rank {LORA['rank']} on {' '.join(LORA['targets'])}; a soup weighs three of them",
        "prompts": f"{batch} of {min(made.lengths(batch))} to {max(made.lengths(batch))} tokens in one batch",
        "new tokens": tokens,
        "batches timed": f"{repeats} after one, in each of {options.rounds} rounds",
    }
    versions = {"both": versions_of(one[0], "torch", "transformers", "peft")}
    return replace(row, figures=figures, settings=settings, versions=versions, machine=found, differs=DECODE_DIFFERS)


def sampled(model: str, prompts: str, adapters: str, batch: int, tokens: int, repeats: int, dtype: str, soups: int) -> Answer:
    """Side: sample `tokens` for each of the first `batch` prompts, row i through soup i modulo `soups`; one soup is merged."""
    import torch

    from rlphf.lm.backbone import load_backbone
    from rlphf.lm.sampling import sample
    from rlphf.lm.stack import read_stack
    from rlphf.settings import Decoding

    base, tokenizer = load_backbone(model, getattr(torch, dtype))
    asked = read_json(prompts)[:batch]
    decoding = Decoding(temperature=decode.TEMPERATURE, max_new_tokens=tokens, batch_size=batch)
    lengths: set[int] = set()
    stack = read_stack(base, [Path(adapters) / name for name in ([MERGED] if soups == 1 else NAMES)])
    # Soup k weighs three adapters in a row from the k-th on, evenly; the second eight weigh the first one twice as much.
    eye = torch.eye(POLICIES, device=base.device)
    row_of = [eye.roll(-step, 0) for step in range(3)]
    weights = torch.cat([(row_of[0] + row_of[1] + row_of[2]) / 3, (2 * row_of[0] + row_of[1] + row_of[2]) / 4])
    chosen = [row % soups for row in range(len(asked))]

    def once() -> None:
        if soups == 1:
            with stack.merged(0):
                found = sample(base, asked, decoding, -1, tokenizer.pad_token_id, seed=1)
        else:
            with stack.mixing(weights[chosen]) as select_rows:
                found = sample(base, asked, decoding, -1, tokenizer.pad_token_id, seed=1, select_rows=select_rows)
        lengths.update(map(len, found))

    return decode.checked(timed(once, repeats), lengths, tokens)


def merge(folder: str) -> None:
    """Side: write the soup of the first three adapters in `folder`."""
    import os

    from rlphf.soup.merge import save_soup
    from rlphf.soup.recipe import make_recipe

    os.chdir(folder)
    names = NAMES[:3]
    save_soup(Path(MERGED), make_recipe(dict.fromkeys(names, 1 / 3), {name: name for name in names}, rule="delta"))


def _peaks(answers: list[Answer]) -> list[float]:
    return [answer["peak_mb"] for answer in answers]
