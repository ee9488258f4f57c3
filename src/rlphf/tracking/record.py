"""What a step leaves beside its outputs: record.json (what made them, from what) and metrics.jsonl (as it runs).

Nothing here knows MLflow or imports anything heavy: `rlphf.tracking.sync` sends records on, in a process of its own.
"""

import errno
import json
import math
import os
import platform
import resource
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlphf.errors import InputError
from rlphf.files import read_json, write_json, write_text
from rlphf.processes import is_first
from rlphf.tracking.provenance import described, device, display, is_alive, now, provenance, versions

if TYPE_CHECKING:
    from rlphf.config import Experiment
    from rlphf.settings import Section

RECORD, METRICS, SAMPLES, SENT = "record.json", "metrics.jsonl", "samples.jsonl", ".sync.json"
WORKFLOW, EARLIER = ".workflow.json", ".earlier"
# Held by whoever sends the records of an experiment, or clears its folder up.
SYNC_LOCK = ".sync.lock"


class Terminated(SystemExit):
    """Raised by SIGTERM inside a step, so that temporary files go and the record says "killed"."""


class Run:
    """A running step: what it logs and names ends up in its record. Made by `step`."""

    def __init__(self, folder: Path, record: dict[str, Any]):
        self.folder, self.record = folder, record
        self._outputs: list[Path] = []
        self._unwritten: dict[str, bytes] = {}
        self._warned = False

    def log(self, metrics: Mapping[str, Any], step: int = 0) -> None:
        """Append scalars (numbers or one-element tensors) to metrics.jsonl; each name's steps should grow."""
        values = {name: _plain(float(value)) for name, value in metrics.items()}
        self._append(METRICS, {"step": int(step), "time": time.time_ns() // 1_000_000, "metrics": values})

    def log_samples(self, samples: Iterable[Mapping[str, Any]], step: int = 0) -> None:
        """Append sample responses, one row each, to samples.jsonl, which goes to MLflow as an artifact as it grows."""
        for sample in samples:
            self._append(SAMPLES, {"step": int(step), **sample})

    def latest(self, *names: str) -> dict[str, float]:
        """Return the last logged value of each of the metrics `names`, in their order; of those that were logged."""
        found = {name: value for line in read_metrics(self.folder / METRICS) for name, value in line["metrics"].items()}
        return {name: found[name] for name in names if name in found}

    def resume(self, start: int) -> None:
        """Take over metrics and samples of steps < `start` from the attempt before, as the step goes on from a checkpoint.

        What that attempt logged from `start` on was undone with it. To be called before the first `log`; 0 changes nothing.
        """
        before = _newest_with_metrics(self.folder)
        if start <= 0 or before is None:
            return
        # Metrics last and each file at once: an attempt that is killed here took over nothing, and the one before it is still
        # the newest with metrics.
        for name in (SAMPLES, METRICS):
            kept = [line for line in _lines(before / name) if line["step"] < start]
            if kept:
                self._begin(name, kept)
        self.record["resumed_from"] = start
        self.save()

    def artifact(self, *paths: Path | str) -> None:
        """Name files or folders (their small files) that are to be seen in MLflow."""
        self.record["artifacts"] += [Path(os.path.relpath(path, self.folder)).as_posix() for path in paths]
        self.save()

    def output(self, *paths: Path | str) -> None:
        """Name outputs; their digests are taken when the step finishes. The step's own folder holds the record and is none."""
        for path in map(Path, paths):
            if path.absolute() == self.folder.absolute():
                raise ValueError(f"{path} holds the record itself; name the files or folders in it")
            self._outputs.append(path)

    def tag(self, **tags: Any) -> None:
        """Add tags that were not known when the step began."""
        self.record["tags"] |= {name: str(value) for name, value in tags.items()}
        self.save()

    def save(self) -> None:
        """Write record.json. Where that is not possible the step goes on: what it has to say is written later."""
        try:
            write_json(self.folder / RECORD, self.record)
        except OSError as error:
            self._warn(RECORD, error)

    def write(self) -> None:
        """Write record.json, as at the start and at the end of a step; raise InputError where that is not possible."""
        try:
            write_json(self.folder / RECORD, self.record)
        except OSError as error:
            reason = f"cannot be written ({error.strerror or error})"
            raise InputError(f"{self.folder / RECORD}: {reason}; make room for it and run the step again") from None

    def end(self, status: str, error: str | None = None) -> None:
        """Write how the step ended; outputs' digests only if it finished. Raises InputError where nothing can be written."""
        self.record["outputs"] = {display(p): described(p) for p in self._outputs} if status == "finished" else {}
        for name in self._unwritten:
            self._flush(name)
        if lost := {name: data.count(b"\n") for name, data in self._unwritten.items() if data}:
            self.record["unwritten_lines"] = lost
        if error:
            self.record["error"] = error
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2)
        end = now()
        seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(self.record["start"])).total_seconds()
        self.record |= {"status": status, "end": end, "seconds": round(seconds, 3), "peak_mb": round(peak, 1), "device": device()}
        self.write()

    def _begin(self, name: str, lines: Iterable[Mapping[str, Any]]) -> None:
        write_text(self.folder / name, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    def _append(self, name: str, line: dict[str, Any]) -> None:
        self._unwritten[name] = self._unwritten.get(name, b"") + (json.dumps(line, ensure_ascii=False) + "\n").encode()
        self._flush(name)

    def _flush(self, name: str) -> None:
        """Append the lines that are not in the file `name` yet; on a disk without room they are kept for the next time."""
        data = self._unwritten[name]
        try:
            # One write for all, so that a reader never sees two writers' halves, and a kill cuts at most the last line.
            with (self.folder / name).open("ab", buffering=0) as stream:
                size = stream.seek(0, os.SEEK_END)
                if stream.write(data) < len(data):
                    stream.truncate(size)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._unwritten[name] = b""
        except OSError as error:
            self._warn(name, error)

    def _warn(self, name: str, error: OSError) -> None:
        if not self._warned:
            reason = f"cannot be written now ({error.strerror or error})"
            print(f"rlphf: tracking: {self.folder / name}: {reason}; the step goes on", file=sys.stderr, flush=True)
        self._warned = True


class Unrecorded(Run):
    """What a step's further processes log and name: it goes nowhere, since the first one's record is the step's."""

    def save(self) -> None:
        """Write nothing."""

    def _begin(self, name: str, lines: Iterable[Mapping[str, Any]]) -> None:
        pass

    def write(self) -> None:
        """Write nothing."""

    def _append(self, name: str, line: dict[str, Any]) -> None:
        pass


@contextmanager
def step(
    name: str,
    folder: Path | str,
    config: "Experiment | None" = None,
    params: "Mapping[str, Any] | Section | None" = None,
    inputs: Mapping[str, Path | str] | None = None,
    tags: Mapping[str, Any] | None = None,
) -> Iterator[Run]:
    """Run a step under a record in `folder`, which belongs to this step alone.

    `config` gives config hash and seed (else `tags` or the workflow's record do); `params` is a mapping or a section of the
    configuration; `inputs` are {name: file or folder}, whose digests are recorded. A start begins a new record; the one of
    an earlier start is set aside until it has been sent.
    The record ends as finished, as failed with one line of the error, or, on SIGTERM and Ctrl-C, as killed. Of several
    processes that share a step (`rlphf.processes`) the first one alone has a record. A step goes on where metrics cannot be
    written for a while. Raises InputError for an input that is not there, when another process is running a step in `folder`,
    or when the record cannot be written at the start or at the end.
    """
    folder = Path(folder)
    if not is_first():
        yield Unrecorded(folder, {"artifacts": [], "tags": {}})
        return
    folder.mkdir(parents=True, exist_ok=True)
    attempts = _attempts(set_aside(folder, RECORD))
    if params is not None and not isinstance(params, Mapping):
        params = params.model_dump(mode="json")
    tags = {key: str(value) for key, value in (tags or {}).items()}
    if config is not None and (made := [name for name, on in config.mistakes if on]):
        tags["mistakes"] = ", ".join(made)
    parent = _workflow_of(folder)
    record = {
        **provenance(),
        "step": name,
        "parent": parent.get("id"),
        "config_hash": tags.get("config_hash", parent.get("config_hash")),
        "seed": tags.get("seed"),
        "working_directory": Path(os.path.relpath(Path.cwd(), folder.absolute())).as_posix(),
        "params": json.loads(json.dumps(params or {}, default=str)),
        "tags": tags,
        "inputs": {},
        "outputs": {},
        "artifacts": [],
        "attempts": attempts,
        "device": device(),
        "threads": os.environ.get("OMP_NUM_THREADS") or os.cpu_count(),
        "versions": versions(),
    }
    if config is not None:
        from rlphf.config import config_hash

        record |= {"config_hash": config_hash(config), "seed": config.seed}
    (folder / METRICS).write_bytes(b"")
    run = Run(folder, record)
    run.write()
    handled = threading.current_thread() is threading.main_thread()
    previous = signal.signal(signal.SIGTERM, _terminate) if handled else None
    try:
        for key, path in (inputs or {}).items():
            where = f"step {name}: input {key}: {path}"
            if not Path(path).exists():
                raise InputError(f"{where} does not exist; run the step that makes it")
            if not (Path(path).is_file() or Path(path).is_dir()):
                raise InputError(f"{where} is neither a file nor a folder; give one of them")
            try:
                record["inputs"][key] = {"path": display(path), **described(Path(path))}
            except OSError as error:
                raise InputError(f"{where} cannot be read ({error})") from None
        run.save()
        yield run
        run.end("finished")
    except BaseException as error:
        if handled:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        killed = isinstance(error, (KeyboardInterrupt, Terminated))
        message = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        # What stopped the step is what a person has to know, also where it cannot be recorded.
        with suppress(InputError):
            run.end("killed" if killed else "failed", " ".join(message.split())[:1000])
        raise
    finally:
        if handled:
            signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)


def read_metrics(path: Path | str) -> list[dict[str, Any]]:
    """Return the lines {step, time in ms, metrics: {name: number}} of a metrics.jsonl; a cut last line is left out."""
    return [{**line, "metrics": {name: float(v) for name, v in line["metrics"].items()}} for line in _lines(Path(path))]


def set_aside(folder: Path, name: str) -> dict[str, Any]:
    """Move the record `name` of an earlier start, its metrics and what was sent of them, to .earlier/<id>/; return it, or {}.

    Raises InputError when the step that wrote it is running still. A record that cannot be read is left to be replaced; what
    lies beside it is nobody's then and is removed, or the next record's would be appended to it.
    """
    parts = (METRICS, SAMPLES, SENT) if name == RECORD else (SENT,)
    try:
        record = json.loads((folder / name).read_text(encoding="utf-8"))
        key = uuid.UUID(record["id"]).hex
        working = record["status"] == "running" and record["pid"] != os.getpid() and is_alive(record)
        here = record["host"] == platform.node()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        for part in parts:
            (folder / part).unlink(missing_ok=True)
        return {}
    if working and here:
        raise InputError(f"{folder}: process {record['pid']} is at work here; wait for it, or stop it")
    target = folder / EARLIER / key
    target.mkdir(parents=True, exist_ok=True)
    # The record goes last: whoever reads it here before and after its metrics knows that they belong together.
    for part in (*parts, name):
        if (folder / part).exists():
            os.replace(folder / part, target / part)
    return record


def _attempts(earlier: dict[str, Any]) -> list[dict[str, Any]]:
    if not earlier or earlier["status"] == "finished":
        return []
    status = "killed" if earlier["status"] == "running" else earlier["status"]
    last = {key: earlier.get(key) for key in ("id", "start", "end", "error", "resumed_from")}
    return [*earlier.get("attempts", []), {**last, "status": status}]


def _workflow_of(folder: Path) -> dict[str, Any]:
    """The running workflow that a step belongs to; none, or one that cannot be read, is no reason for a step to stop."""
    for parent in folder.absolute().parents:
        try:
            workflow = read_json(parent / WORKFLOW)
            return workflow if workflow["status"] == "running" else {}
        except (InputError, KeyError, TypeError):
            continue
    return {}


def _newest_with_metrics(folder: Path) -> Path | None:
    """The latest attempt that logged anything; one that was killed before it got to work has nothing to take over."""
    found = [p.parent for p in (folder / EARLIER).glob(f"*/{RECORD}") if _lines(p.parent / METRICS)]
    return max(found, key=lambda p: read_json(p / RECORD)["start"], default=None)


def _lines(path: Path) -> list[dict[str, Any]]:
    lines = []
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def _plain(value: float) -> float | str:
    """JSON has no NaN and no infinity: they are written as the strings "nan", "inf" and "-inf", which float() reads."""
    return value if math.isfinite(value) else str(value)


def _terminate(number: int, frame: Any) -> None:
    raise Terminated(128 + number)
