"""One side of a benchmark in a process of its own: what its function returns, its time, and its peak memory.

Sides run in other environments than this project's, too, so this needs the standard library and what `rlphf` has of it alone.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from rlphf.tracking.provenance import versions


def resident_mb(field: str = "VmRSS") -> float:
    """Return the memory of this process in MB (2**20 bytes): at present, or for "VmHWM" at its peak.

    Linux hands the peak that `getrusage` reports on from the process that starts a program, so a small child of a large parent
    would report the parent's. It stands in only where there is no /proc.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 2**20)
    line = next(line for line in status.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024


def cpu_seconds() -> float:
    """Return the CPU seconds of all threads of this process so far, in and out of the kernel."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def timed(work: Callable[[], Any], repeats: int, warm: int = 1) -> dict[str, list[float]]:
    """Do `work` `warm` times unmeasured, then `repeats` times; return the wall and the CPU seconds of each.

    On a GPU, `work` has to end in a value that the CPU reads.
    """
    found: dict[str, list[float]] = {"seconds": [], "cpu_seconds": []}
    for number in range(warm + repeats):
        start, used = time.perf_counter(), cpu_seconds()
        work()
        if number >= warm:
            found["seconds"].append(time.perf_counter() - start)
            found["cpu_seconds"].append(cpu_seconds() - used)
    return found


def peak_mb() -> float:
    """Return the peak of this process in MB: of what torch allocated on the GPU if it used one, else of resident memory."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    return resident_mb("VmHWM")


def main() -> None:
    """Call the function `module:name` with keyword arguments in JSON, and write the answer to the file named last."""
    target, arguments, out = sys.argv[1:]
    module, name = target.split(":")
    found = getattr(import_module(module), name)(**json.loads(arguments)) or {}
    answer = {"peak_mb": peak_mb(), "versions": versions(), **found}
    Path(out).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
