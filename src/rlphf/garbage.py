"""`rlphf gc`: what lies in an experiment's folder and no result needs. It never touches an output of the DAG.

That is what killed writers left under temporary names, checkpoints of steps that have finished, and whole seeds that are named.
"""

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path

from rlphf.errors import InputError
from rlphf.files import UNFINISHED
from rlphf.tracking.entries import entries, read_or_empty, settled
from rlphf.tracking.record import RECORD, SYNC_LOCK, WORKFLOW
from rlphf.tracking.store import locked

CHECKPOINTS = "checkpoints"
# Names of unfinished files and folders of `files.atomic_file` and `atomic_folder`, and of the temporary folders of figures and
# soups; tempfile ends each with eight characters.
TEMPORARY = re.compile(rf"({re.escape(UNFINISHED)}.+|\.(figures|soup))\.[a-z0-9_]{{8}}")


def gc_step(results: Path, seeds: Sequence[str] | None = None, delete: bool = False) -> None:
    """Print what no result in `results` needs, with its size, and with `delete` remove it.

    `seeds` names seeds of which nothing is to be kept. Raises InputError where there is no experiment, a seed is not there, or
    something is at work.
    """
    workflow = read_or_empty(results / WORKFLOW)
    if not workflow:
        raise InputError(f"{results}: is no experiment's folder; give one such as results/demo")
    # What sends records writes files here after the last step, too.
    lock = results / SYNC_LOCK
    with locked(lock) if delete and lock.exists() else nullcontext():
        check_idle(results)
        found = {path: "of a seed that was named" for path in named(results, seeds or ())}
        found |= {path: why for path, why in garbage(results) if not any(path.is_relative_to(kept) for kept in found)}
        total = 0.0
        for path, why in sorted(found.items()):
            size = bytes_of(path) / 1e6
            total += size
            print(f"{size:10.1f} MB  {path}  ({why})")
            if delete:
                shutil.rmtree(path) if _is_folder(path) else path.unlink()
    done = "removed" if delete else "can be removed, by --delete" if found else "found"
    print(f"{total:10.1f} MB in {len(found)} places {done}")


def check_idle(results: Path) -> None:
    """Raise InputError where a workflow or a step is at work in `results`: what looks left behind may be in use."""
    workflow = read_or_empty(results / WORKFLOW)
    for entry in entries(results):
        try:
            record, status = settled(entry, workflow)
        except InputError:
            continue
        if status == "running":
            raise InputError(f"{results}: process {record['pid']} on {record['host']} is at work in it; wait for it, or stop it")


def garbage(results: Path) -> Iterator[tuple[Path, str]]:
    """Yield (path, why no result needs it); nothing below a path that was yielded."""
    waiting = [results]
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            if TEMPORARY.fullmatch(path.name):
                yield path, "not whole: its writer was killed"
            elif not _is_folder(path):
                continue
            elif path.name == CHECKPOINTS and read_or_empty(path.parent / RECORD).get("status") == "finished":
                yield path, "the step has finished"
            else:
                waiting.append(path)


def named(results: Path, seeds: Sequence[str]) -> list[Path]:
    """Return the folders of `seeds`; raise InputError for one that is not there."""
    for seed in seeds:
        if not seed.isdigit() or not (results / f"seed-{seed}").is_dir():
            raise InputError(f"--seeds: {results} has no seed {seed}; give numbers such as 1103")
    return [results / f"seed-{seed}" for seed in seeds]


def bytes_of(path: Path) -> int:
    """Return the bytes of a file, or of all files of a folder; of a link, its own."""
    files = path.rglob("*") if _is_folder(path) else [path]
    return sum(file.lstat().st_size for file in files if not _is_folder(file))


def _is_folder(path: Path) -> bool:
    """Whether a path is a folder and no link to one: what a link points to lies elsewhere and stays."""
    return path.is_dir() and not path.is_symlink()
