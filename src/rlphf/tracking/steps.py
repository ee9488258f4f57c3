"""A workflow's own record, and what `rlphf track sync` does, which alone imports MLflow."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlphf.errors import InputError
from rlphf.files import read_json, write_json
from rlphf.tracking.provenance import display, now, provenance
from rlphf.tracking.record import WORKFLOW, set_aside

if TYPE_CHECKING:
    from rlphf.config import Experiment

DEFAULT_URI = "sqlite:///mlflow.db"


def start_step(config: "Path | Experiment", results: Path, targets: Iterable[str], pid: int) -> None:
    """Begin the workflow's record in `results` for the workflow's process `pid`, with the whole configuration as its params.

    The configuration may be a file, or one that is not saved yet. Raises InputError when another workflow is running there.
    """
    from rlphf.config import config_hash, load

    experiment = load(config) if isinstance(config, Path) else config
    params = experiment.model_dump(mode="json")
    start_workflow(results, experiment.experiment, config_hash(experiment), targets, params=params, pid=pid)


def start_workflow(
    results: Path | str,
    experiment: str,
    config_hash: str,
    targets: Iterable[str] = (),
    *,
    params: Mapping[str, Any] | None = None,
    pid: int | None = None,
) -> None:
    """Write the record that the steps in `results` (the experiment's own folder) point to as their parent.

    `pid` is the workflow's process (default: this one): once it is gone, a record that still says "running" is a killed one.
    Raises InputError when another workflow is running there.
    """
    results = Path(results)
    results.mkdir(parents=True, exist_ok=True)
    set_aside(results, WORKFLOW)
    record = {**provenance(pid), "step": "workflow", "experiment": experiment, "config_hash": config_hash}
    write_json(results / WORKFLOW, {**record, "targets": list(targets), "params": dict(params or {}), "tags": {}})


def end_workflow(results: Path | str, status: str) -> None:
    """Write into `results` how the workflow ended: "finished", "failed" or "killed"."""
    if status not in ("finished", "failed", "killed"):
        raise InputError(f"workflow status {status!r} is unknown; use finished, failed or killed")
    path = Path(results) / WORKFLOW
    write_json(path, {**read_json(path), "status": status, "end": now()})


def sync_step(
    config: Path | None, results: Path, follow: bool = False, parent_pid: int | None = None, closed: bool = False
) -> None:
    """Send the records under `results`, the experiment's folder, to MLflow; with `follow`, until the workflow has ended.

    MLFLOW_TRACKING_URI says where to, else the experiment's own setting, of `config` or of the last start; without either, it is
    SQLite in the working directory. Where these settings switch tracking off, nothing is sent. `closed` says that nothing runs
    any more on any host: records that say "running" are killed ones. Prints what was sent. Raises InputError if there is no such
    folder, or it is no experiment's own.
    """
    if follow and closed:
        raise InputError("--follow, --closed: a workflow that is followed is not over; give one of them")
    (uri, enabled), name = _last_tracking(results), results.absolute().name
    where = f"at the last start of {results}"
    if config is not None:
        from rlphf.config import load

        experiment = load(config)
        uri, name, enabled, where = experiment.tracking.uri, experiment.experiment, experiment.tracking.enabled, f"in {config}"
    if not enabled:
        print(f"tracking: switched off {where}; the records stay on disk")
        return
    uri = os.environ.get("MLFLOW_TRACKING_URI") or uri
    if not follow and not results.is_dir():
        raise InputError(f"{results}: no such folder; give the experiment's folder, such as results/demo")
    _check_folder(results)
    from rlphf.tracking import sync

    counts = sync.follow(results, uri, name, parent_pid) if follow else sync.sync(results, uri, name, closed)
    if not follow:
        for problem in counts.problems:
            print(f"tracking: {problem}")
    print(f"tracking: {counts}")


def _check_folder(results: Path) -> None:
    """Raise InputError for a folder in an experiment's, or of several: its records would be sent under a name of its own."""
    if (results / WORKFLOW).exists():
        return
    above = next((place for place in results.absolute().parents if (place / WORKFLOW).exists()), None)
    if above is not None:
        raise InputError(f"{results}: lies in the folder of an experiment; give that one, {display(above)}")
    below = sorted(results.glob(f"*/{WORKFLOW}"))
    if below:
        raise InputError(f"{results}: holds experiments; give the folder of one, such as {below[0].parent}")


def _last_tracking(results: Path) -> tuple[str, bool]:
    """Return the tracking address of the last start of the workflow in `results`, and whether it was switched on."""
    try:
        settings = read_json(results / WORKFLOW)["params"]["tracking"]
        return str(settings["uri"]), settings.get("enabled") is not False
    except (InputError, KeyError, TypeError, AttributeError):
        return DEFAULT_URI, True
