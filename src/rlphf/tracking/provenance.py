"""Where something was made and by what: process, host, commit, versions, device, digests of files."""

import os
import platform
import subprocess
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlphf.files import sha256, visible

LIBRARIES = ("torch", "transformers", "trl", "peft", "tokenizers", "gguf", "datasets", "numpy", "pyarrow", "snakemake", "mlflow")


def now() -> str:
    """Return the time in ISO 8601, UTC, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def process_start(pid: int) -> str | None:
    """Return what tells process `pid` from any other that had or gets its number, or None when there is no such process."""
    try:
        # The name in field 2 may hold blanks; what follows it does not: field 3 is the state, field 22 the start in ticks.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "unknown"


def is_alive(record: Mapping[str, Any]) -> bool:
    """Whether the process that wrote a record runs still, as far as this host can tell (another host's counts as alive)."""
    return record["host"] != platform.node() or process_start(record["pid"]) == (record["process_start"] or "gone")


def display(path: Path | str) -> str:
    """Return `path` relative to the working directory if it lies there, with forward slashes."""
    path = Path(os.path.abspath(path))
    return (path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path).as_posix()


def described(path: Path) -> dict[str, Any]:
    """Return {sha256, bytes} of a file, or of a folder without its hidden files and folders."""
    files = [path] if path.is_file() else visible(path)
    return {"sha256": sha256(path), "bytes": sum(p.stat().st_size for p in files)}


def device() -> str:
    """Return the name of the GPU that torch would use, or "cpu"."""
    # A step that has not imported torch computes on the CPU; importing it here to ask would cost seconds.
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else "cpu"


def versions() -> dict[str, str]:
    """Return the installed versions of Python and the libraries that results may depend on."""
    from importlib import metadata

    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return found


def provenance(pid: int | None = None) -> dict[str, Any]:
    """Return the fields that every record begins with; `pid` is the process that it speaks for (default: this one).

    A process of a SLURM job adds `slurm_job_id`.
    """
    pid = os.getpid() if pid is None else pid
    record = {"id": uuid.uuid4().hex, "status": "running", "start": now(), "end": None, "host": platform.node()}
    job = {"slurm_job_id": os.environ["SLURM_JOB_ID"]} if "SLURM_JOB_ID" in os.environ else {}
    return {**record, "pid": pid, "process_start": process_start(pid), **job, **_git()}


def _git() -> dict[str, Any]:
    """Commit and whether tracked files differ from it; nothing outside a repository."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        return {"git_commit": git("rev-parse", "HEAD"), "git_dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return {}
