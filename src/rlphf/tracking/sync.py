"""Sends the records of an experiment to MLflow, as they grow or later, each part once.

Steps only write files (`record`). Beside each record, .sync.json says how much of it has been confirmed by the store; what was
sent but not confirmed is sent again as it was, and the store knows it again. A store that is away only delays.
"""

import shutil
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlphf.address import said
from rlphf.errors import InputError
from rlphf.files import digest, write_json
from rlphf.tracking.entries import (
    Entry,
    artifacts,
    batches,
    end_of,
    entries,
    milliseconds,
    read_or_empty,
    run_name,
    run_tags,
    settled,
    superseded,
    unread,
)
from rlphf.tracking.notes import NOTE, note
from rlphf.tracking.provenance import is_alive, process_start
from rlphf.tracking.record import METRICS, SENT, SYNC_LOCK, WORKFLOW
from rlphf.tracking.registry import Model, models, register, sent_files
from rlphf.tracking.store import ENTITIES, Store, locked

STATUS = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


@dataclass
class Outcome:
    """What a pass did: things sent, records that `waiting` for the store, `broken` ones, and a line for each problem."""

    runs: int = 0
    metrics: int = 0
    artifacts: int = 0
    models: int = 0
    waiting: int = 0
    broken: int = 0
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"sent {self.runs} runs, {self.metrics} metric points, {self.artifacts} artifacts, {self.models} models; "
            f"{self.waiting} records wait, {self.broken} are broken"
        )


class Sender:
    """Brings one experiment in MLflow up to the records under `results`, its folder; opens the store when it is first needed."""

    def __init__(self, results: Path, uri: str, experiment: str, closed: bool = False):
        self.results, self.uri, self.experiment, self.closed = Path(results), uri, experiment, closed
        self.store: Store | None = None
        self.refused = False
        # {(record's file, its id): the adapters that its step made}: weights are hashed once, however long a registry refuses.
        self.made: dict[tuple[Path, str], list[Model]] = {}

    def send(self) -> Outcome:
        """Send what has not been sent yet. If the store is away, records wait; a broken record is skipped."""
        counts = Outcome()
        self.refused = False
        with locked(self.results / SYNC_LOCK):
            found, workflow = entries(self.results), read_or_empty(self.results / WORKFLOW)
            done: set[Path] = set()
            for entry in found:
                try:
                    # After a failure the store is opened anew, as that shows which runs were made all the same.
                    self.store = self.store or Store(self.uri, self.experiment)
                except Exception as error:
                    counts.problems.append(f"MLflow cannot be reached; records wait to be sent later ({_line(error)})")
                    break
                try:
                    if self._send(self.store, entry, workflow, counts):
                        done.add(entry.path)
                except InputError as error:
                    if entry.path.exists():
                        counts.broken += 1
                        counts.problems.append(str(error))
                except Exception as error:
                    # MLflow, SQLAlchemy and HTTP each have errors of their own; whichever it was, the record stays and waits.
                    counts.problems.append(f"{entry.path}: not sent, will be tried again ({_line(error)})")
                    self.store = None
            counts.waiting = len(found) - len(done) - counts.broken
            for entry in found:
                if entry.earlier and entry.path in done and superseded(entry):
                    shutil.rmtree(entry.folder)
        return counts

    def _send(self, store: Store, entry: Entry, workflow: Mapping[str, Any], counts: Outcome) -> bool:
        """Send what is new in a record; return whether all of it is there now."""
        record, status = settled(entry, workflow, self.closed)
        state = read_or_empty(entry.folder / SENT)
        run = store.runs.get(record["id"])
        if run is None and state.get("record") == record["id"] and state.get("run"):
            # Another sender has made it since the store was opened.
            store.find_runs()
            run = store.runs.get(record["id"])
        if run is None or state.get("run") != run or state.get("record") != record["id"]:
            state = {"record": record["id"], "run": run, "offset": 0, "described": None, "status": "running", "artifacts": {}}
        if run in store.deleted or (state.get("done") and state["status"] == status):
            return True

        def confirm(**changes: Any) -> None:
            state.update(changes)
            write_json(entry.folder / SENT, state)

        # 1. The run itself. One that was made but not confirmed is found by its tag.
        if run is None:
            parent = store.runs.get(record.get("parent") or "")
            run = store.create(record["id"], run_name(record), milliseconds(record["start"]), parent)
            counts.runs += 1
        if state["run"] is None:
            confirm(run=run)
        # 2. What is known about it. Inputs, tags and the end come after the start.
        key = (entry.path, record["id"])
        made = self.made[key] if key in self.made else models(entry, record, self.experiment, counts.problems)
        if status == "finished":
            self.made[key] = made
        tags = {**run_tags(record), NOTE: note(entry, record, status, made)}
        about = (record.get("params", {}), tags, record.get("inputs", {}))
        if state["described"] != digest(about):
            store.describe(run, *about)
            confirm(described=digest(about))
        # 3. Metrics, whole lines from where the last confirmed batch ended.
        for points, size in batches(unread(entry, record, state["offset"]), ENTITIES, entry.folder / METRICS, counts.problems):
            store.metrics(run, points)
            counts.metrics += len(points)
            confirm(offset=state["offset"] + size)
        # 4. Artifacts that are new or have changed, and the adapters that are to be registered.
        for path, place in (*artifacts(entry, record, status), *sent_files(made)):
            mark = [path.stat().st_size, path.stat().st_mtime_ns]
            name = f"{place}/{path.name}".lstrip("/")
            if state["artifacts"].get(name) != mark:
                store.artifact(run, path, place)
                counts.artifacts += 1
                confirm(artifacts={**state["artifacts"], name: mark})
        # 5. How it ended.
        if state["status"] != status:
            store.status(run, STATUS[status], None if status == "running" else end_of(record, entry))
            confirm(status=status)
        # 6. Adapters as versions of registered models.
        if made and not self._register(store, run, made, counts):
            return False
        if status != "running" and not entry.is_moving(record):
            confirm(done=True)
        return True

    def _register(self, store: Store, run: str, made: list[Model], counts: Outcome) -> bool:
        """Return whether a step's adapters are registered. A registry that refuses is left alone until the next pass."""
        if self.refused:
            return False
        try:
            counts.models += register(store.client, run, made)
        except Exception as error:
            # A store may have runs and no registry; what it raises then is its own.
            counts.problems.append(f"the model registry refuses; models wait to be registered later ({_line(error)})")
            self.refused = True
        return not self.refused


def sync(results: Path, uri: str, experiment: str, closed: bool = False) -> Outcome:
    """Send everything under `results`, the experiment's folder, that MLflow at `uri` does not have yet, each part once.

    One run per workflow start, one under it per step; those of an earlier start too. `closed` says that no other host is at work
    there any more: what still says "running" was killed. Never raises for a store that is away: `waiting` counts what is left
    for later.
    """
    return Sender(results, uri, experiment, closed).send()


def follow(results: Path, uri: str, experiment: str, parent_pid: int | None = None, interval: float = 2.0) -> Outcome:
    """Send every `interval` seconds until the process `parent_pid` is gone or the workflow's record has ended, then a last time.

    Without `parent_pid`, Ctrl-C ends it as well. Prints each problem once. Returns the sum of all passes.
    """
    if parent_pid is not None and threading.current_thread() is threading.main_thread():
        # Ctrl-C reaches all processes of a terminal; this one stays to send how the others ended.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    sender, total = Sender(results, uri, experiment), Outcome()
    parent = None if parent_pid is None else process_start(parent_pid)
    over = read_or_empty(results / WORKFLOW)
    last = False
    while True:
        try:
            # The record of a workflow that ended before says nothing about the one that is about to begin.
            workflow = read_or_empty(results / WORKFLOW)
            ended = workflow.get("status") != "running" or not is_alive(workflow)
            ended = ended and (parent_pid is None or workflow != over)
            gone = parent_pid is not None and (parent is None or process_start(parent_pid) != parent)
            last = last or ended or gone
            try:
                counts = sender.send()
            except OSError as error:
                # A full disk, say: what was sent cannot be noted now, and is known again when it is sent again.
                problem = f"{results}: nothing can be noted here, will be tried again ({_line(error)})"
                counts = Outcome(waiting=len(entries(results)), problems=[problem])
            for problem in counts.problems:
                if problem not in total.problems:
                    print(f"tracking: {problem}", flush=True)
                    total.problems.append(problem)
            total.runs, total.metrics = total.runs + counts.runs, total.metrics + counts.metrics
            total.artifacts, total.models = total.artifacts + counts.artifacts, total.models + counts.models
            total.waiting, total.broken = counts.waiting, counts.broken
            if last:
                return total
            time.sleep(interval)
        except KeyboardInterrupt:
            last = True


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {said(error)[:300]}"
