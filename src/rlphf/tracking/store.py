"""One experiment in MLflow, and the only module that imports MLflow. It writes what it is told; `sync` knows what and when."""

import fcntl
import json
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from rlphf.errors import InputError
from rlphf.tracking.entries import Point

RECORD_TAG = "rlphf.record"
ENTITIES, PARAMS, DIGEST, PARAM, TAG, NAME = 1000, 100, 36, 6000, 8000, 250


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`; a process that dies gives its lock up."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


class Store:
    """The runs of one experiment at a tracking address; makes the SQLite store and the experiment if they are not there yet.

    `runs` maps a record's id to its run's, for all runs, `deleted` holds the ids of runs that a person has deleted. Raises
    whatever MLflow raises when the store is away.
    """

    def __init__(self, uri: str, experiment: str):
        # MLflow reads these when it is imported. It must not repeat a request by itself, as a run might be made twice.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
        from mlflow import MlflowClient

        database = sqlite_path(uri)
        if database is None:
            self.client = MlflowClient(tracking_uri=uri)
            self.experiment = self._experiment(experiment, None)
        else:
            # Several first writers at once would leave the store half made.
            with locked(database.parent / f".{database.name}.lock"):
                # MLflow retries a file that cannot be opened for minutes; SQLite says so at once.
                with closing(sqlite3.connect(database, timeout=20)) as connection:
                    connection.execute("pragma schema_version")
                self.client = MlflowClient(tracking_uri=uri)
                self.experiment = self._experiment(experiment, str(database.parent / "mlartifacts"))
        self.runs: dict[str, str] = {}
        self.deleted: set[str] = set()
        self.find_runs()

    def _experiment(self, name: str, artifacts: str | None) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            return self.client.create_experiment(name, artifact_location=artifacts)
        kept = found.artifact_location
        if artifacts is None and kept.startswith(("/", "file:")) and not Path(unquote(urlparse(kept).path)).parent.is_dir():
            raise InputError(
                f"experiment {name!r} was begun on the server's own machine and keeps its artifacts in {kept} there; "
                "send its records from that machine, or give the experiment another name"
            )
        if found.lifecycle_stage != "active":
            raise InputError(
                f"experiment {name!r} was deleted in MLflow; restore it with 'mlflow experiments restore -x "
                f"{found.experiment_id}', or remove it for good with 'mlflow gc'"
            )
        return found.experiment_id

    def find_runs(self) -> None:
        """Learn of the runs that are there, of other senders as well."""
        from mlflow.entities import ViewType

        token = None
        while True:
            page = self.client.search_runs([self.experiment], "", ViewType.ALL, page_token=token)
            for run in page:
                record = run.data.tags.get(RECORD_TAG)
                if record:
                    self._add(record, run.info.run_id, run.info.lifecycle_stage == "active")
            token = page.token
            if not token:
                return

    def _add(self, record: str, run: str, active: bool) -> None:
        """Remember a run. If a retry created two runs for one record, delete the larger id."""
        known = self.runs.get(record)
        if not active:
            self.deleted.add(run)
        if known is None or known in self.deleted:
            self.runs[record] = run
        elif active and run != known:
            self.runs[record], double = min(known, run), max(known, run)
            self.client.delete_run(double)

    def create(self, record: str, name: str, start: int, parent: str | None) -> str:
        """Make the run of a record, begun at `start` (ms), under the run `parent`; return its id."""
        tags = {RECORD_TAG: record, **({"mlflow.parentRunId": parent} if parent else {})}
        self.runs[record] = self.client.create_run(self.experiment, start, tags, name).info.run_id
        return self.runs[record]

    def describe(
        self, run: str, params: Mapping[str, Any], tags: Mapping[str, Any], inputs: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Set params (nested mappings are flattened), tags, and inputs {name: {path, sha256}}, as often as one likes."""
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag

        flat = [Param(_name(key), _text(value)[:PARAM]) for key, value in flatten(params)]
        for part in chunks(flat, PARAMS):
            self.client.log_batch(run, params=part)
        for part in chunks([RunTag(_name(key), _text(value)[:TAG]) for key, value in tags.items()], PARAMS):
            self.client.log_batch(run, tags=part)
        datasets = [
            DatasetInput(
                Dataset(name, described["sha256"][:DIGEST], "local", json.dumps({"uri": described["path"]})),
                [InputTag("mlflow.data.context", name)],
            )
            for name, described in inputs.items()
        ]
        for part in chunks(datasets, ENTITIES):
            self.client.log_inputs(run, part)

    def metrics(self, run: str, points: Sequence[Point]) -> None:
        """Add points; one that is there already (same name, value, time and step) is not added again, by the store's key."""
        from mlflow.entities import Metric

        for part in chunks([Metric(_name(name), value, time, step) for name, value, time, step in points], ENTITIES):
            self.client.log_batch(run, metrics=part)

    def artifact(self, run: str, path: Path, folder: str) -> None:
        """Copy a file into `folder` ("" is the top) of the run's artifacts, over one of its name."""
        self.client.log_artifact(run, str(path), folder or None)

    def status(self, run: str, status: str, end: int | None) -> None:
        """Set a run's status in MLflow's words and, for one that is over, its end (ms)."""
        if end is None:
            self.client.update_run(run, status)
        else:
            self.client.set_terminated(run, status, end)


def sqlite_path(uri: str) -> Path | None:
    """Return the absolute path of a sqlite:/// address, or None for another kind of address."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").partition("?")[0]).absolute()


def flatten(mapping: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ("outer.inner", value) for nested mappings."""
    for key, value in mapping.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def chunks(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    """Return `items` in pieces of at most `size`."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def _name(name: str) -> str:
    """MLflow takes letters, digits and "_-. :/" in names, as long as they read as a plain relative path."""
    parts = [part for part in re.sub(r"[^\w\-. :/]", "_", str(name)).split("/") if part not in ("", ".", "..")]
    return "/".join(parts)[:NAME] or "_"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
