"""Checkpoints of a training: tensors as safetensors and the rest as JSON, written whole or not at all; nothing is pickled.

Whole ones are told from damaged ones by digests, so a training goes on from the newest one that is as it was written.
"""

import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlphf.errors import InputError
from rlphf.files import atomic_folder, check_space, read_json, sha256, write_json
from rlphf.processes import count, is_first, wait
from rlphf.tracking.record import Run

KEEP = 2
OWNER, TENSORS, STATE, DIGESTS = "owner.json", "tensors.safetensors", "state.json", "digests.json"


@contextmanager
def own_checkpoints(folder: Path, *runs: Run) -> Iterator[Path]:
    """Yield `folder` for the checkpoints of the steps that are recorded in `runs`; once they are through, they are removed.

    What a run of another configuration, with other inputs or of another number of processes left there is removed first. So a
    changed setting never goes on from weights that were trained under the old one, and a step that is done again is really done
    again. Where several processes share the step, the first one does this, and the others wait for it.
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
        | {"inputs": {name: described["sha256"] for name, described in run.record["inputs"].items()}, "processes": count()}
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


def check_room(folder: Path, trained: Iterable[Tensor]) -> None:
    """Raise InputError where less is free than the checkpoints of `trained` and its result take.

    A checkpoint has the parameters, the optimizer's two moments of each, and of PPO the best policy; beside those that are kept
    there is one that is being written.
    """
    parameters = sum(parameter.numel() for parameter in trained)
    check_space(folder, 4 * 4 * parameters * (KEEP + 1), "checkpoints and what is trained")


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


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any], others: Mapping[str, Any] | None = None
) -> None:
    """Write checkpoint `step` below `folder` atomically and keep the two newest; `others` are further JSON files by name."""
    with atomic_folder(checkpoint_folder(folder, step)) as temporary:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, temporary / TENSORS)
        for name, value in {STATE: {"step": step, **state}, **(others or {})}.items():
            write_json(temporary / name, value)
        seal(temporary)
    for old in checkpoints(folder)[:-KEEP]:
        shutil.rmtree(old)


def checkpoint_folder(folder: Path, step: int) -> Path:
    """Return where checkpoint `step` lies."""
    return folder / f"step-{step:06d}"


def checkpoints(folder: Path) -> list[Path]:
    """Return the folders of the finished checkpoints, oldest first."""
    return sorted(folder.glob("step-*"), key=lambda path: int(path.name.removeprefix("step-")))


def newest_checkpoint(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return (tensors, state) of the newest checkpoint that is whole, or None; a damaged one falls back to the one before."""
    for path in reversed(checkpoints(folder)):
        if is_whole(path):
            return load_file(path / TENSORS), read_json(path / STATE)
    return None


def seal(folder: Path) -> None:
    """Write the digests of a folder's files into it, by which `is_whole` knows it again."""
    write_json(folder / DIGESTS, _digests(folder))


def is_whole(folder: Path) -> bool:
    """Whether a folder is as it was when it was sealed; prints a line about one that is not."""
    try:
        whole = read_json(folder / DIGESTS) == _digests(folder)
    except (OSError, InputError):
        whole = False
    if not whole:
        print(f"checkpoint: {folder} is damaged and passed over: its files are not what was written", file=sys.stderr, flush=True)
    return whole


def _digests(folder: Path) -> dict[str, str]:
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != DIGESTS]
    return {path.relative_to(folder).as_posix(): sha256(path) for path in found}
