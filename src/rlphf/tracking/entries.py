"""The records under an experiment's folder, and what is to be sent of them; reads files and knows nothing of MLflow."""

import json
import os
import platform
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rlphf.errors import InputError
from rlphf.files import read_json, visible
from rlphf.tracking.provenance import is_alive
from rlphf.tracking.record import EARLIER, METRICS, RECORD, SAMPLES, WORKFLOW

STATUSES = ("running", "finished", "failed", "killed")
# What a record has by name.
MAPPINGS = ("params", "tags", "inputs", "outputs", "versions")
LARGEST_ARTIFACT = 5 * 2**20

Point = tuple[str, float, int, int]
"""Name, value, time in ms and step of a metric."""


@dataclass(frozen=True)
class Entry:
    """A record file below `results`; `home` is the step's folder, `earlier` whether the record was set aside by a later start."""

    path: Path
    home: Path
    earlier: bool
    results: Path

    @property
    def folder(self) -> Path:
        """The folder with the record's metrics and what was sent of them."""
        return self.path.parent

    def is_moving(self, record: Mapping[str, Any]) -> bool:
        """Whether a later start has begun to set this record aside: what is read here now may be incomplete."""
        return not self.earlier and (self.home / EARLIER / record["id"]).exists()


def entries(results: Path) -> list[Entry]:
    """All records: workflows first, so that a step finds its parent's run; then by path."""
    found = []
    # Folders come and go under a running workflow, which os.walk takes without complaint.
    for folder, _, files in os.walk(results):
        for name in (WORKFLOW, RECORD):
            if name in files:
                earlier = Path(folder).parent.name == EARLIER
                found.append(Entry(Path(folder, name), Path(folder).parents[1] if earlier else Path(folder), earlier, results))
    return sorted(found, key=lambda e: (e.path.name != WORKFLOW, e.path))


def read_or_empty(path: Path) -> dict[str, Any]:
    """A file of our own, or {} when it is not there (or not readable, which is as good)."""
    try:
        value = read_json(path)
        return value if isinstance(value, dict) else {}
    except InputError:
        return {}


def _checked(path: Path) -> dict[str, Any]:
    record = read_json(path)
    tests: dict[str, Callable[[Any], Any]] = {
        "id": uuid.UUID,
        "step": str.strip,
        "status": STATUSES.index,
        "start": datetime.fromisoformat,
        "host": str.strip,
        "pid": int,
    }
    # A workflow's record has not all of them.
    given = [field for field in MAPPINGS if isinstance(record, dict) and field in record]
    for field, test in (*tests.items(), *((field, dict.items) for field in given)):
        try:
            test(record[field])
        except (KeyError, ValueError, TypeError, AttributeError):
            raise InputError(f"{path}: field {field!r} is missing or wrong; run the step again, or remove the file") from None
    return record


def settled(entry: Entry, workflow: Mapping[str, Any], closed: bool = False) -> tuple[dict[str, Any], str]:
    """A record and its status: one that says "running" though its process is gone was killed.

    A process on another host cannot be seen; it is taken for gone when its workflow, which waits for it, is over, and when a
    person says that nothing runs any more (`closed`). If it lived after all, its record says so in the end.
    """
    record = _checked(entry.path)
    if record["status"] != "running":
        return record, record["status"]
    over = closed or (record.get("parent") is not None and _is_over(record["parent"], workflow))
    elsewhere = record["host"] != platform.node()
    if not entry.earlier and is_alive(record) and not (over and elsewhere):
        return record, "running"
    # It may have ended in good order between the two looks at it.
    record = _checked(entry.path)
    return record, "killed" if record["status"] == "running" else record["status"]


def _is_over(parent: str, workflow: Mapping[str, Any]) -> bool:
    """Whether the start `parent` of a workflow is over: ended, killed, or another one has begun; `workflow` is the last."""
    try:
        return workflow["id"] != parent or workflow["status"] in STATUSES[1:] or not is_alive(workflow)
    except KeyError:
        return False


def superseded(entry: Entry) -> bool:
    """Whether a record set aside is no longer needed: until the step finishes, its next attempt may take over metrics."""
    return entry.path.name == WORKFLOW or read_or_empty(entry.home / RECORD).get("status") == "finished"


def run_name(record: Mapping[str, Any]) -> str:
    """The name that people see: "demo · 2026-11-23 10:12" for a workflow, "ppo P1A" or "dpo individual" for a step."""
    if "experiment" in record:
        return f"{record['experiment']} · {datetime.fromisoformat(record['start']).astimezone():%Y-%m-%d %H:%M}"
    name, tags = record["step"], record.get("tags", {})
    about = [tags[key] for key in ("preference", "method", "model", "combination", "user") if key in tags]
    # "dpo per user" makes the model per_user.
    return " ".join([name, *(word for word in about if f" {word.replace('_', ' ')} " not in f" {name.replace('_', ' ')} ")])


def run_tags(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record's tags and what else one may want to filter runs by."""
    names = ("config_hash", "seed", "git_commit", "git_dirty", "device", "threads", "host", "slurm_job_id")
    known = {key: record.get(key) for key in names}
    tags = {
        **known,
        "rlphf.step": record["step"],
        "targets": " ".join(record["targets"]) if record.get("targets") else None,
        "attempt": len(record["attempts"]) + 1 if "attempts" in record else None,
        "resumed_from": record.get("resumed_from"),
        "seconds": record.get("seconds"),
        "peak_mb": record.get("peak_mb"),
        "error": record.get("error"),
        "mlflow.source.name": f"rlphf {record['step']}",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": record.get("git_commit"),
        **{f"version.{name}": version for name, version in record.get("versions", {}).items()},
        **record.get("tags", {}),
    }
    return {name: value for name, value in tags.items() if value is not None}


def unread(entry: Entry, record: Mapping[str, Any], offset: int) -> bytes:
    """The whole lines of metrics from byte `offset` on; none if the record was set aside meanwhile, as they may be another's."""
    path = entry.folder / METRICS
    if not path.exists():
        return b""
    with path.open("rb") as stream:
        stream.seek(offset)
        data = stream.read()
    if read_or_empty(entry.path).get("id") != record["id"]:
        return b""
    return data[: data.rfind(b"\n") + 1]


def batches(data: bytes, most: int, path: Path, problems: list[str]) -> Iterator[tuple[list[Point], int]]:
    """Yield (points, bytes read) for the lines of `data` in turn, `most` points at a time or those of one longer line.

    A line that is no metrics line is left out; `problems` gets a line about it that names `path`.
    """
    points: list[Point] = []
    size = 0
    for line in data.splitlines(keepends=True):
        try:
            row = json.loads(line)
            new = [(name, float(value), int(row["time"]), int(row["step"])) for name, value in row["metrics"].items()]
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            problems.append(f"{path}: a line is no metrics line and is left out: {line[:80]!r}")
            new = []
        if points and len(points) + len(new) > most:
            yield points, size
            points, size = [], 0
        points += new
        size += len(line)
    if size:
        yield points, size


def artifacts(entry: Entry, record: Mapping[str, Any], status: str) -> Iterator[tuple[Path, str]]:
    """Yield (file, folder among the run's artifacts) of a record's small files, those of its own included.

    Whatever a record names, nothing outside of the experiment's results is sent.
    """
    own = [SAMPLES] if status == "running" else [SAMPLES, entry.path.name]
    for path in (entry.folder / name for name in own):
        if path.exists() and path.stat().st_size <= LARGEST_ARTIFACT:
            yield path, ""
    for name in record.get("artifacts", ()):
        named = entry.home / name
        root = Path(named.name if ".." in Path(name).parts else name)
        for path in visible(named) if named.is_dir() else [named]:
            if not within(path, entry.results):
                continue
            if path.is_file() and path.stat().st_size <= LARGEST_ARTIFACT and not _replaced(path, entry, record):
                place = (root / path.relative_to(named)).parent.as_posix()
                yield path, "" if place == "." else place


def within(path: Path, results: Path) -> bool:
    """Whether a file or folder lies among the results, and is no link out of them."""
    return path.resolve().is_relative_to(results.resolve())


def _replaced(path: Path, entry: Entry, record: Mapping[str, Any]) -> bool:
    """Whether a file may be the work of a later start than the record's."""
    return entry.earlier and (record.get("end") is None or path.stat().st_mtime * 1000 > milliseconds(record["end"]))


def end_of(record: Mapping[str, Any], entry: Entry) -> int:
    """The end in ms; for a process that could not say, when it wrote last."""
    if record.get("end"):
        return milliseconds(record["end"])
    written = [p.stat().st_mtime for p in (entry.path, entry.folder / METRICS) if p.exists()]
    return int(max(written) * 1000)


def milliseconds(moment: str) -> int:
    """A time in ISO 8601 as milliseconds since 1970."""
    return round(datetime.fromisoformat(moment).timestamp() * 1000)
