"""Soups on disk: reading adapters, merging and writing one (`soup.merge`) against PEFT's, and against the reading alone.

A further row of soups is a function like `on_disk`, named in `rows`.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.child import timed
from benchmarks.floor import rates
from benchmarks.harness import Answer, Options, Side, interleaved, machine, measure, versions_of
from benchmarks.models import LORA, Prepared, rows_of_models
from benchmarks.table import Figure, Row, Target

ADAPTERS = ["P1A", "P2B", "P3A"]
# Merges that are timed, by how PEFT calls what we call rule `delta`, whole and cut to the adapters' rank.
REPEATS = {"cat": 10, "svd": 2}
DIFFERS = [
    "ours reads, checks, merges and writes without a model; PEFT needs the backbone in memory, whose loading is not timed, and"
    " neither is the freeing of adapters between its repetitions",
    "ours writes the recipe and the error of the merge beside the adapter, all or nothing",
]


def rows(options: Options) -> Iterator[Row]:
    """Measure exact soups and soups cut to the adapters' rank, of each model's adapters."""
    yield from rows_of_models("soup-exact", "Exact soup on disk", options, partial(on_disk, "cat"), ("cpu",))
    yield from rows_of_models("soup-cut", "Soup on disk cut to its adapters' rank", options, partial(on_disk, "svd"), ("cpu",))


def on_disk(kind: str, row: Row, made: Prepared, options: Options) -> Row:
    """Fill in the row of writing one soup: exact ("cat") or cut to the rank of its adapters ("svd")."""
    folder = options.work / f"adapters-{made.name}".replace(" ", "-").lower()
    adapters = {"model": str(made.model), "names": ADAPTERS, "out": str(folder)}
    size = measure(Side("adapters", "benchmarks.models:make_adapters", adapters), options)["bytes"]
    repeats = 1 if options.small else REPEATS[kind]
    arguments = {"folder": str(folder), "kind": kind, "repeats": repeats}
    sides = [
        Side("our soup", "benchmarks.soups:ours", arguments),
        Side("reading", "benchmarks.soups:reading", {"folder": str(folder), "repeats": repeats}),
        Side("PEFT", "benchmarks.soups:theirs", arguments | {"model": str(made.model)}),
    ]
    found = machine(options)
    our, read, peft = interleaved(sides, options)
    times = [[median(answer["seconds"]) for answer in answers] for answers in (our, read, peft)]
    measured = rates(options, "float32", size)
    written = our[0]["bytes"]
    floor = len(ADAPTERS) * size / measured.file_read + written / measured.file_write
    whole = kind == "cat"
    figures = [
        Figure("time", "s", times[0], "reading the adapters", times[1], Target("most", 1.3) if whole else None, floor, "bytes"),
        Figure("time", "s", times[0], f"PEFT, {kind}", times[2]),
        Figure("peak memory", "MB", [a["peak_mb"] for a in our], f"PEFT, {kind}", [a["peak_mb"] for a in peft]),
    ]
    settings = {
        "adapters": f"{len(ADAPTERS)} of rank {LORA['rank']} for {made.name}, {size / 2**20:.3g} MB each",
        "soup": "exact" if whole else f"truncated to rank {LORA['rank']}",
        "merges timed": f"{repeats} after one, in each of {options.rounds} rounds",
    }
    versions = {"both": versions_of(our[0], "torch", "peft")}
    return replace(row, figures=figures, settings=settings, versions=versions, machine=found, differs=DIFFERS)


def ours(folder: str, kind: str, repeats: int) -> Answer:
    """Side: read the adapters, merge them with equal weights and write the soup."""
    import os

    from rlphf.soup.merge import save_soup
    from rlphf.soup.recipe import make_recipe

    os.chdir(folder)
    share = 1 / len(ADAPTERS)
    rank = LORA["rank"] if kind == "svd" else None
    recipe = make_recipe(dict.fromkeys(ADAPTERS, share), {name: name for name in ADAPTERS}, rule="delta", svd_rank=rank)
    out = Path("soup")
    found = timed(lambda: save_soup(out, recipe), repeats)
    return {**found, "bytes": sum(path.stat().st_size for path in out.iterdir())}


def reading(folder: str, repeats: int) -> Answer:
    """Side: read the adapters as the merge does, and do no more."""
    from rlphf.soup.adapter import read_adapter

    return timed(lambda: [read_adapter(Path(folder) / name) for name in ADAPTERS], repeats)


def theirs(folder: str, kind: str, repeats: int, model: str) -> Answer:
    """Side: load the adapters with PEFT onto the backbone, add their weighted sum, and save it."""
    from peft import PeftModel

    from rlphf.lm.backbone import load_backbone

    # The first adapter makes the model and stays, so that each repetition can load all anew.
    adapted = PeftModel.from_pretrained(
        load_backbone(model)[0], Path(folder) / ADAPTERS[0], adapter_name="held", use_safetensors=True
    )
    settings = {"svd_rank": LORA["rank"], "svd_full_matrices": False} if kind == "svd" else {}
    found: Answer = {"seconds": [], "cpu_seconds": []}

    def once() -> None:
        for name in ADAPTERS:
            adapted.load_adapter(Path(folder) / name, adapter_name=name)
        adapted.add_weighted_adapter(ADAPTERS, [1 / len(ADAPTERS)] * len(ADAPTERS), "soup", combination_type=kind, **settings)
        adapted.save_pretrained(f"{folder}/peft", selected_adapters=["soup"])

    for number in range(repeats + 1):
        measured = timed(once, 1, warm=0)
        for name in [*ADAPTERS, "soup"]:
            adapted.delete_adapter(name)
        if number:
            found = {key: found[key] + measured[key] for key in found}
    return found
