"""From raw sources to prompts, pairs and the table of counts: deduplicated, split by prompt, checked for leaks.

Memory holds a few bytes per record and one batch of texts; texts and their fingerprints wait in temporary files.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow.parquet as pq

from rlphf.config import load
from rlphf.data.counts import ALL, COUNTS, Counts
from rlphf.data.dedup import unusable
from rlphf.data.discover import discover
from rlphf.data.quarantine import QUARANTINE, QUARANTINED, quarantined
from rlphf.data.records import PAIRS, PROMPTS
from rlphf.data.sources import alpaca_eval, hh_rlhf, hub, koala, psoups, table
from rlphf.data.sources.raw import Bad, Dropped, Pair, Prompt, Raw
from rlphf.data.splits import check_leaks
from rlphf.data.waiting import Waiting
from rlphf.data.writer import TableWriter
from rlphf.errors import InputError
from rlphf.files import atomic_file, read_parquet
from rlphf.settings_data import Source
from rlphf.tracking.record import step


def prepare_step(config: Path, raw: Path | None, out: Path) -> None:
    """Prepare the sources that the experiment `config` names, or, if `raw` is given, those that are found in that folder.

    Raises InputError as `prepare` does, and for an `out` in `raw`.
    """
    if raw and out.resolve().is_relative_to(raw.resolve()):
        raise InputError(f"--out: {out} lies in the folder of --raw, so it would be read the next time; name another folder")
    experiment = load(config)
    data = experiment.data.model_copy(update={"sources": discover(raw)}) if raw else experiment.data
    root = raw or Path(".")
    # A source that is missing is named below, by what reads it.
    paths = {source.path: root / source.path for source in data.sources if source.kind != "hub"}
    inputs = {name: path for name, path in paths.items() if path.exists()}
    with step("data", out, experiment, data, inputs) as run:
        prepare(data.sources, out, experiment.seed, data.validation, data.test, data.on_bad_record, root)
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
        # 1. Read everything once; what may be kept waits, because a later record can contradict it.
        waiting = stack.enter_context(Waiting(out, seed, validation, test))
        with waiting.writing(), ExitStack() as aside:
            quarantine = aside.enter_context(TableWriter(files["quarantine"], QUARANTINE)) if "quarantine" in files else None
            _collect(sources, root, waiting, quarantine, counts)
        # 2. Keep what nothing contradicted, and each prompt once.
        with TableWriter(files["pairs"], PAIRS) as pairs, TableWriter(files["prompts"], PROMPTS) as prompts:
            waiting.keep(pairs, prompts, counts)
        if sources:
            counts.check(validation, test)
        with ExitStack() as opened:
            written = (opened.enter_context(pq.ParquetFile(files[n], pre_buffer=False)) for n in ("pairs", "prompts"))
            check_leaks(*written, folder=out)
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


def _names(sources: list[Source], root: Path) -> list[str]:
    """Return how outputs call each source: relative to `root` or as configured.

    Other absolute paths have their last two parts, or as many more as tell them from the other sources.
    """
    known = [source.path if source.kind == "hub" else _short(Path(source.path), root) for source in sources]
    taken = {name for name in known if isinstance(name, str)}
    long = {name.parts for name in known if isinstance(name, Path)}
    return [name if isinstance(name, str) else _grown(name.parts, long, taken) for name in known]


def _short(path: Path, root: Path) -> str | Path:
    """Return the name of a path, or the path itself if it is absolute and not in `root`."""
    if path.is_relative_to(root):
        return path.relative_to(root).as_posix()
    return path if path.is_absolute() else path.as_posix()


def _grown(parts: tuple[str, ...], others: set[tuple[str, ...]], taken: set[str]) -> str:
    """Return the last parts of a path, at least two, that neither end another path of `others` nor make a name in `taken`."""
    for count in range(2, len(parts)):
        name = Path(*parts[-count:]).as_posix()
        if name not in taken and sum(other[-count:] == parts[-count:] for other in others) == 1:
            return name
    return Path(*parts).as_posix()


def _collect(sources: list[Source], root: Path, waiting: Waiting, quarantine: TableWriter | None, counts: Counts) -> None:
    """Sort what the sources yield: what may be kept into `waiting`, the rest into the other tables."""
    for source, name in zip(sources, _names(sources, root), strict=True):
        for raw in _read(source, root):
            match raw:
                case Pair():
                    if reason := unusable(raw.chosen, raw.rejected):
                        counts.drop((name, raw.preference), reason)
                    else:
                        waiting.add_pair(raw, name)
                case Prompt():
                    waiting.add_prompt(raw, name)
                case Dropped():
                    counts.drop((name, raw.preference), raw.reason)
                case Bad():
                    if quarantine is None:
                        raise raw.error()
                    file = name
                    if source.kind != "hub":
                        file = (name / Path(raw.place.path).relative_to(root / source.path)).as_posix()
                    quarantine.add(*quarantined(raw, name, file))
                    counts.drop((name, source.preference), QUARANTINED)
