"""From raw sources to prompts, pairs and the table of counts: deduplicated, split by prompt, checked for leaks.

Memory holds fingerprints of the pairs and one batch of texts; the texts pass through a temporary file.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlphf.config import load
from rlphf.data.counts import ALL, COUNTS, Counts
from rlphf.data.dedup import CONTRADICTORY, EMPTY, IDENTICAL, Deduplicator, fingerprint, normalise
from rlphf.data.discover import discover
from rlphf.data.quarantine import QUARANTINE, QUARANTINED, quarantined
from rlphf.data.records import PAIRS, PROMPTS, pair_id, prompt_id
from rlphf.data.sources import alpaca_eval, hh_rlhf, hub, koala, psoups, table
from rlphf.data.sources.raw import Bad, Dropped, Pair, Prompt, Raw
from rlphf.data.splits import assign, check_leaks
from rlphf.data.writer import BATCH, TableWriter
from rlphf.files import atomic_file, read_parquet
from rlphf.settings import Source
from rlphf.tracking.record import step

REPEATED_PROMPT = "repeated prompt"


def prepare_step(config: Path, raw: Path | None, out: Path) -> None:
    """Prepare the sources that the experiment `config` names, or, if `raw` is given, those that are found in that folder."""
    experiment = load(config)
    data = experiment.data
    sources = discover(raw) if raw else data.sources
    root = raw or Path(".")
    inputs = {source.path: root / source.path for source in sources if source.kind != "hub"}
    with step("data", out, experiment, data, inputs) as run:
        prepare(sources, out, experiment.seed, data.validation, data.test, data.on_bad_record, root)
        rows = read_parquet(out / "data.parquet", COUNTS).to_pylist()
        totals = {row["reason"]: row for row in rows if row["source"] == ALL}
        if totals:
            run.log({name: totals[ALL][name] for name in ("read", "kept", "dropped")})
            run.log({"quarantined": totals[QUARANTINED]["dropped"] if QUARANTINED in totals else 0})
        run.output(*(out / f"{name}.parquet" for name in _tables(data.on_bad_record)))
        run.artifact(out / "data.parquet")


def prepare(
    sources: list[Source],
    out: Path,
    seed: int,
    validation: float,
    test: float,
    on_bad_record: str,
    root: Path = Path("."),
) -> None:
    """Write `pairs`, `prompts`, `data` and, if bad records are set aside, `quarantine` as Parquet files into the folder `out`.

    `pairs` (PAIRS) and `prompts` (PROMPTS: every prompt once, those of sources without answers first) stand in the order of
    the sources and their records, `data` is COUNTS, `quarantine` is QUARANTINE. Paths of sources are relative to `root`.
    `validation` and `test` are shares of the prompts; `on_bad_record` is "error" or "quarantine".
    Raises InputError for a source that cannot be read, a bad record (unless set aside), a split that stays empty, a leak.
    """
    out.mkdir(parents=True, exist_ok=True)
    names = _tables(on_bad_record)
    counts = Counts()
    with ExitStack() as stack:
        files = {name: stack.enter_context(atomic_file(out / f"{name}.parquet")) for name in names}
        spool = stack.enter_context(tempfile.TemporaryFile(dir=out))
        with ExitStack() as tables:
            prompts = _Prompts(tables.enter_context(TableWriter(files["prompts"], PROMPTS)), seed, validation, test)
            # 1. Read everything once; what may be kept waits in the spool, because a later record can contradict it.
            with TableWriter(spool, PAIRS, "lz4") as waiting, ExitStack() as aside:
                quarantine = aside.enter_context(TableWriter(files["quarantine"], QUARANTINE)) if "quarantine" in files else None
                contradicted = _collect(sources, root, waiting, prompts, quarantine, counts)
            # 2. Keep what nothing contradicted.
            _keep(spool, contradicted, tables.enter_context(TableWriter(files["pairs"], PAIRS)), prompts, counts)
        if sources:
            counts.check(validation, test)
        check_leaks(
            *(
                pq.ParquetFile(files[name], pre_buffer=False).iter_batches(columns=["prompt", "split"])
                for name in ("pairs", "prompts")
            )
        )
        with TableWriter(files["data"], COUNTS) as table_of_counts:
            for row in counts.rows():
                table_of_counts.add(*row)
    if "quarantine" not in names:
        (out / "quarantine.parquet").unlink(missing_ok=True)


def _tables(on_bad_record: str) -> list[str]:
    return ["pairs", "prompts", "data", *(["quarantine"] if on_bad_record == "quarantine" else [])]


def _read(source: Source, root: Path) -> Iterator[Raw]:
    path = root / source.path
    match source.kind:
        case "psoups":
            return psoups.read(path, source.preference)
        case "alpaca_eval":
            return alpaca_eval.read(path)
        case "hh_rlhf":
            return hh_rlhf.read(path, source.preference)
        case "koala":
            return koala.read(path)
        case "table":
            return table.read(path, source.columns, source.preference)
        case "hub":
            return hub.read(source.path, source.columns, source.preference, source.split)


def _name(path: str, root: Path) -> str:
    """Return how outputs call a file: relative to `root` or as configured, and of other absolute paths the last two parts."""
    if Path(path).is_relative_to(root):
        return Path(path).relative_to(root).as_posix()
    return Path(*Path(path).parts[-2:]).as_posix() if Path(path).is_absolute() else path


class _Prompts:
    """The table of prompts, each prompt once."""

    def __init__(self, writer: TableWriter, seed: int, validation: float, test: float):
        self.writer = writer
        self.shares = seed, validation, test
        self.seen: set[int] = set()

    def split(self, prompt: str) -> str:
        return assign(prompt, *self.shares)

    def add(self, prompt: str, topic: str | None, source: str, split: str) -> bool:
        """Write a prompt unless it has been; return whether it was new."""
        key = fingerprint(normalise(prompt))
        if key in self.seen:
            return False
        self.seen.add(key)
        self.writer.add(prompt_id(prompt), prompt, topic, source, split)
        return True


def _collect(
    sources: list[Source], root: Path, waiting: TableWriter, prompts: _Prompts, quarantine: TableWriter | None, counts: Counts
) -> set[int]:
    """Sort what the sources yield into the tables; return which rows of `waiting` were contradicted by later ones."""
    seen = Deduplicator()
    for source in sources:
        name = source.path if source.kind == "hub" else _name(source.path, root)
        for raw in _read(source, root):
            match raw:
                case Pair():
                    key = name, raw.preference
                    reason = _reason(raw, seen)
                    if reason:
                        counts.drop(key, reason)
                    else:
                        content = raw.prompt, raw.chosen, raw.rejected, raw.preference, raw.user
                        waiting.add(pair_id(*content), *content, raw.probability, name, prompts.split(raw.prompt))
                case Prompt():
                    split = prompts.split(raw.prompt)
                    if prompts.add(raw.prompt, raw.topic, name, split):
                        counts.keep((name, None), split)
                    else:
                        counts.drop((name, None), REPEATED_PROMPT)
                case Dropped():
                    counts.drop((name, raw.preference), raw.reason)
                case Bad():
                    if quarantine is None:
                        raise raw.error()
                    file = raw.place.path if source.kind == "hub" else _name(raw.place.path, root)
                    quarantine.add(*quarantined(raw, name, file))
                    counts.drop((name, source.preference), QUARANTINED)
    return seen.contradicted


def _reason(pair: Pair, seen: Deduplicator) -> str | None:
    if not pair.chosen or not pair.rejected:
        return EMPTY
    if pair.chosen == pair.rejected:
        return IDENTICAL
    return seen.add(pair.prompt, pair.chosen, pair.rejected, pair.preference, pair.user)


def _keep(spool: IO[bytes], contradicted: set[int], pairs: TableWriter, prompts: _Prompts, counts: Counts) -> None:
    """Move rows from the spool to `pairs` but for those contradicted, and add their prompts."""
    spool.seek(0)
    first = 0
    for batch in pq.ParquetFile(spool, pre_buffer=False).iter_batches(BATCH):
        keep = pa.array([n not in contradicted for n in range(first, first + len(batch))])
        first += len(batch)
        for row in batch.filter(pc.invert(keep)).select(["source", "preference"]).to_pylist():
            counts.drop((row["source"], row["preference"]), CONTRADICTORY)
        kept = batch.filter(keep)
        pairs.add_batch(kept)
        for row in kept.select(["prompt", "source", "preference", "split"]).to_pylist():
            prompts.add(row["prompt"], None, row["source"], row["split"])
            counts.keep((row["source"], row["preference"]), row["split"])
