"""Checkpoints of a training loop: tensors as safetensors and the rest as JSON, written whole or not at all."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlphf.errors import InputError
from rlphf.files import atomic_folder, read_json, write_json
from rlphf.processes import is_first, wait
from rlphf.tracking.record import Run

KEEP = 2
OWNER = "owner.json"


@contextmanager
def own_checkpoints(folder: Path, *runs: Run) -> Iterator[Path]:
    """Yield `folder` for the checkpoints of the steps that are recorded in `runs`; once they are through, they are removed.

    What a run of another configuration or with other inputs left there is removed first. So a changed setting never goes
    on from weights that were trained under the old one, and a step that is done again is really done again. Where several
    processes share the step, the first one does this, and the others wait for it.
    """
    if is_first():
        _take(folder, runs)
    wait()
    try:
        yield folder
    except BaseException:
        # Input that is refused before anything was trained leaves nothing to go on from.
        if is_first() and [path.name for path in folder.iterdir()] == [OWNER]:
            shutil.rmtree(folder)
        raise
    if is_first():
        shutil.rmtree(folder)


def _take(folder: Path, runs: Sequence[Run]) -> None:
    owner = [
        {key: run.record[key] for key in ("step", "config_hash", "seed", "tags")}
        | {"inputs": {name: described["sha256"] for name, described in run.record["inputs"].items()}}
        for run in runs
    ]
    if folder.exists() and _owner(folder) != owner:
        shutil.rmtree(folder)
    write_json(folder / OWNER, owner)


def _owner(folder: Path) -> Any:
    try:
        return read_json(folder / OWNER)
    except InputError:
        return None


def trainer_checkpoint(folder: Path) -> str | None:
    """Return the newest checkpoint that a transformers Trainer finished in `folder`, for `resume_from_checkpoint`, or None.

    The Trainer writes its checkpoints in place, its state last, so a kill can leave one that cannot be read.
    """
    for path in sorted(folder.glob("checkpoint-*"), key=lambda p: int(p.name.rpartition("-")[2]), reverse=True):
        try:
            read_json(path / "trainer_state.json")
            return str(path)
        except InputError:
            continue
    return None


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """Return the optimizer's state as {"optimizer/<parameter>/<key>": tensor}; `names` are in the order of its parameters."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer/{names[i]}/{key}": torch.as_tensor(value).clone()
        for i, entry in state.items()
        for key, value in entry.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, names: list[str], tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for i, name in enumerate(names):
        prefix = f"optimizer/{name}/"
        state[i] = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    whole = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})


def save_checkpoint(folder: Path, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write checkpoint `step` below `folder` atomically and keep the two newest."""
    with atomic_folder(folder / f"step-{step:06d}") as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, temporary / "tensors.safetensors")
        write_json(temporary / "state.json", {"step": step, **state})
    for old in checkpoints(folder)[:-KEEP]:
        shutil.rmtree(old)


def checkpoints(folder: Path) -> list[Path]:
    """Return the folders of the finished checkpoints, oldest first."""
    return sorted(folder.glob("step-*"))


def newest_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return (tensors, state) of the newest checkpoint that can be read, or None; a damaged one falls back to the one before."""
    for path in reversed(checkpoints(folder)):
        try:
            return load_file(path / "tensors.safetensors"), read_json(path / "state.json")
        except (OSError, SafetensorError, InputError):
            continue
    return None
