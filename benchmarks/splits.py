"""Raw pairs to splits: `rlphf data prepare` on a JSONL file against `datasets`: load, split, to_parquet."""

import json
from collections.abc import Iterator
from pathlib import Path

from benchmarks.child import timed
from benchmarks.floor import rates
from benchmarks.harness import Answer, Options, Side, interleaved, machine, measure, versions_of
from benchmarks.table import Figure, Row, Target

SEED = 1103
HELD = 0.1
WORDS = 30
PER_PROMPT = 4
DIFFERS = [
    "ours checks every record, drops repeated and contradictory pairs, splits by prompt, proves that no split leaks into another,"
    " and counts what was dropped; `datasets` splits by row and does none of this",
    "ours writes one file of pairs and one of prompts in zstd, `datasets` a file per split in its default, snappy",
]


def rows(options: Options) -> Iterator[Row]:
    """Measure `options.pairs` pairs, and a quarter of them, which says how memory grows."""
    quarter, whole = (options.work / f"pairs-{n}.jsonl" for n in (options.pairs // 4, options.pairs))
    sides = []
    for path, count in ((quarter, options.pairs // 4), (whole, options.pairs)):
        measure(Side("pairs", "benchmarks.splits:write_pairs", {"path": str(path), "count": count}), options)
        sides.append(Side("rlphf data prepare", "benchmarks.splits:ours", {"path": str(path)}))
    arguments = {"path": str(whole), "folder": str(options.work / "datasets")}
    sides.append(Side("datasets", "benchmarks.splits:theirs", arguments))
    found = machine(options)
    part, our, their = interleaved(sides, options)
    measured = rates(options, "float32", 1 << 20)
    floor = whole.stat().st_size / measured.file_read + our[0]["bytes"] / measured.file_write
    speeds, cpu = (
        [[options.pairs / answer[key][0] for answer in answers] for answers in (our, their)] for key in ("seconds", "cpu_seconds")
    )
    peaks = [[answer["peak_mb"] for answer in answers] for answers in (our, their)]
    grown = [(b - a["peak_mb"]) / (options.pairs * 3 / 4) * 1e6 for a, b in zip(part, peaks[0], strict=True)]
    figures = [
        Figure("pairs", "1/s", speeds[0], "datasets", speeds[1], Target("least", 2.0), options.pairs / floor, "bytes of files"),
        Figure("pairs", "1/CPU s", cpu[0], "datasets", cpu[1]),
        Figure("peak memory", "MB", peaks[0], "datasets", peaks[1], Target("most", 1024, "ours")),
        Figure("memory for a further million pairs", "MB", grown, target=Target("most", 1, "ours")),
    ]
    settings = {
        "pairs": options.pairs,
        "file": f"{whole.stat().st_size / 2**20:.3g} MB of JSONL",
        "prompts": f"one for {PER_PROMPT} pairs",
        "rounds": options.rounds,
    }
    versions = {"both": versions_of(our[0], "pyarrow", "datasets")}
    yield Row("splits", "Raw pairs to splits", figures, settings, versions, found, DIFFERS)


def write_pairs(path: str, count: int) -> None:
    """Side: write `count` pairs of random words by a fixed seed; no two are alike."""
    from random import Random

    rng = Random(0)
    words = ["".join(rng.choices("abcdefghijklmnoprstuvw", k=rng.randint(2, 9))) for _ in range(5000)]

    def text(length: int) -> str:
        return " ".join(rng.choices(words, k=length))

    with Path(path).open("w", encoding="utf-8") as stream:
        for number in range(count):
            if number % PER_PROMPT == 0:
                prompt = f"{text(WORDS // 2)} {number}?"
            stream.write(json.dumps({"prompt": prompt, "chosen": text(WORDS), "rejected": text(WORDS)}) + "\n")


def ours(path: str) -> Answer:
    """Side: prepare the file, from records to split tables."""
    from rlphf.data.prepare import prepare
    from rlphf.settings_data import Source

    raw = Path(path)
    out, source = raw.with_suffix(".prepared"), Source(kind="table", path=raw.name)
    found = timed(lambda: prepare([source], out, SEED, HELD, HELD, "error", raw.parent), 1, warm=0)
    return {**found, "bytes": sum(file.stat().st_size for file in out.iterdir())}


def theirs(path: str, folder: str) -> Answer:
    """Side: the same file by `datasets`, into a cache that is empty; rows are split at random."""
    import shutil

    from datasets import load_dataset

    shutil.rmtree(folder, ignore_errors=True)
    out = Path(folder) / "splits"

    def once() -> None:
        out.mkdir(parents=True)
        pairs = load_dataset("json", data_files=path, split="train", cache_dir=folder)
        first = pairs.train_test_split(test_size=2 * HELD, seed=SEED)
        held = first["test"].train_test_split(test_size=0.5, seed=SEED)
        for name, part in {"train": first["train"], "validation": held["train"], "test": held["test"]}.items():
            part.to_parquet(out / f"{name}.parquet")

    return timed(once, 1, warm=0)
