"""What all benchmarks share: sides run in turn, each in a process of its own, and a description of the machine.

This process stays small and imports no tensor library. See `benchmarks/__main__.py` for how to run them.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from rlphf.errors import InputError
from rlphf.tracking.provenance import provenance

ROOT = Path(__file__).parent.parent
TRL = ROOT / "benchmarks" / "requirements-trl.txt"
VENVS = ROOT / "benchmarks" / ".venvs"
# Libraries read these as they are imported: no network, and no threads beside those that are counted.
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRL_EXPERIMENTAL_SILENCE": "1",
}
# The Makefile sets these for every command; they decide how much memory the C library keeps.
MALLOC = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
Answer = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """How a run of the suite measures: `work` is a folder for what benchmarks write, removed when the suite ends.

    With `small` all sizes are for trying whether a benchmark works. `smollm2` is a folder of the model, None to make it.
    """

    work: Path
    small: bool = False
    rounds: int = 3
    threads: int = 1
    pairs: int = 1_000_000
    smollm2: Path | None = None
    device: str = "cpu"


@dataclass(frozen=True)
class Side:
    """What is measured: a function "module:name" with its keyword arguments, and the Python that runs it."""

    name: str
    target: str
    arguments: dict[str, Any] = field(default_factory=dict)
    python: Path = Path(sys.executable)


def measure(side: Side, options: Options) -> Answer:
    """Run a side in a process of its own; return its answer, with `peak_mb` and `versions`.

    Raises InputError with the last line that the process wrote to its standard error if it fails.
    """
    path = [str(ROOT / "src"), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, **QUIET, "PYTHONPATH": os.pathsep.join(path)}
    environment |= {name: str(options.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ARROW_NUM_THREADS")}
    if options.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        out = Path(folder) / "answer.json"
        command = [str(side.python), "-m", "benchmarks.child", side.target, json.dumps(side.arguments), str(out)]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace"
        )
        if done.returncode or not out.exists():
            lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["it says nothing"]
            raise InputError(f"{side.name}: {side.target} ended with status {done.returncode} ({lines[-1]})")
        return json.loads(out.read_text(encoding="utf-8"))


def interleaved(sides: Sequence[Side], options: Options) -> list[list[Answer]]:
    """Run the sides in turn, round after round, so that a machine that slows down slows all; return each side's answers."""
    rounds = [[measure(side, options) for side in sides] for _ in range(options.rounds)]
    return [list(answers) for answers in zip(*rounds, strict=True)]


def versions_of(answer: Answer, *names: str) -> dict[str, str]:
    """Return the versions of Python and of the libraries `names` that a side ran with."""
    return {name: answer["versions"][name] for name in ("python", *names) if name in answer["versions"]}


@cache
def graphics(options: Options) -> str | None:
    """Return the name of the GPU that torch finds, or None."""
    return measure(Side("torch", "benchmarks.harness:named_device"), options)["device"]


def named_device() -> Answer:
    """Side: ask torch for the name of the GPU."""
    import torch

    return {"device": torch.cuda.get_device_name() if torch.cuda.is_available() else None}


def machine(options: Options) -> dict[str, Any]:
    """Return what a measurement depends on besides the code: cores, threads, load before it, and the commit."""
    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": options.threads,
        "device": options.device if options.device == "cpu" else graphics(options),
        "load before": round(os.getloadavg()[0], 2),
        "commit": _commit(),
    }
    return found | {name: os.environ[name] for name in MALLOC if name in os.environ}


@cache
def _commit() -> str:
    """The commit, and whether files differ from it, as the suite finds them: the rows that it stores later are no change."""
    made = provenance()
    return made.get("git_commit", "unknown")[:12] + (" with changes" if made.get("git_dirty") else "")


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def trl_python() -> Path:
    """Return the Python of the environment that `requirements-trl.txt` describes, which is made when it is first asked for.

    Raises InputError with the last line of what failed; an environment that is not whole is made again.
    """
    folder = VENVS / "trl"
    python, ready = folder / "bin" / "python", folder / "ready"
    wanted = sha256(TRL.read_bytes()).hexdigest()
    if ready.exists() and ready.read_text() == wanted:
        return python
    print(f"making the environment of {TRL.name}", file=sys.stderr, flush=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
    for command in ([sys.executable, "-m", "venv", "--clear", str(folder)], [*pip, "--requirement", str(TRL)]):
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace")
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it says nothing"]
            raise InputError(f"{TRL.name}: cannot be installed ({lines[-1]}); check the network and pip's configuration")
    ready.write_text(wanted)
    return python
