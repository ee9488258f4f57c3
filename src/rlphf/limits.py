"""How much memory a command may take, and the line that says that memory or disk ran out.

An allocation beyond the limit fails, which libraries report; without a limit the kernel would kill the process without a word.
"""

import errno
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

# The exit status of a command that needs more than there is.
NOT_ENOUGH = 3
# Addresses that are set aside for the stacks of a thread of torch's and one of numpy's; they count, though hardly any is used.
STACKS = 2 * 8
# How libraries report it, besides Python's MemoryError: torch's allocator, C++, the loader of shared libraries, the kernel.
NO_MEMORY = ("can't allocate memory", "cannot allocate memory", "bad_alloc", "failed to map segment", "out of memory")
NO_SPACE = ("no space left on device", "disk quota exceeded")


# MiB that SLURM granted to a job: its own variable, and the one in which a workflow hands it on (`hand_on_grant`).
GRANTED, HANDED_ON = "SLURM_MEM_PER_NODE", "RLPHF_GRANTED_MB"
# MiB of a SLURM job's memory for the Snakemake process that runs the step in it; 115 were measured.
SNAKEMAKE = 200


def may_take(cgroups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int:
    """Return the MiB of memory that a process may take here: the machine's, or what SLURM or a control group grants of it.

    Snakemake's share is taken off what SLURM grants, or SLURM would end the job before the limit is met. `cgroups` is where
    control groups are mounted, `own` the file that names the process's.
    """
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20]
    granted = os.environ.get(GRANTED) or os.environ.get(HANDED_ON, "0")
    if granted.isdigit():
        found.append(max(int(granted) - SNAKEMAKE, int(granted) // 2))
    for line in own.read_text().splitlines() if own.exists() else ():
        _, kinds, path = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        top, name = (cgroups / "memory", "memory.limit_in_bytes") if kinds else (cgroups, "memory.max")
        group = top / path.lstrip("/")
        for place in (group, *group.parents):
            if place.is_relative_to(top) and (place / name).exists():
                text = (place / name).read_text().strip()
                found.append(int(text) // 2**20 if text.isdigit() else 0)
    # No limit is written as 0, "max", or a number beyond any memory.
    return min(size for size in found if size > 0)


def hand_on_grant() -> None:
    """Let the steps that a workflow starts know what SLURM granted to the job that it runs in.

    Snakemake's plugin runs a step by an inner `srun`, from whose environment it takes SLURM's own variables.
    """
    if granted := os.environ.get(GRANTED):
        os.environ[HANDED_ON] = granted


def limit_memory(megabytes: int) -> None:
    """Let this process, and those that it starts, each have at most `megabytes` MiB of memory that it may write to.

    Files that are mapped for reading, such as weights, do not count. Where there is a GPU nothing is limited: its driver maps
    more than it takes; and other systems than Linux count otherwise.
    """
    if sys.platform != "linux" or Path("/dev/nvidiactl").exists():
        return
    # pyarrow's own allocator sets a GiB aside from the start, which would count.
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    size = (megabytes + STACKS * threads()) * 2**20
    resource.setrlimit(resource.RLIMIT_DATA, (size if most == resource.RLIM_INFINITY else min(size, most), most))


def threads() -> int:
    """Return how many threads a library starts: the first number of OMP_NUM_THREADS, or one per core if that is none."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    wanted = int(first) if first.isdecimal() and len(first) < 6 else 0
    return wanted or os.cpu_count() or 1


def lacking(error: BaseException, megabytes: int) -> str | None:
    """Return one line about the memory or disk that was not enough, or None for any other error.

    `megabytes` is the limit under which the command ran. Errors that were raised while such an error was handled count, too.
    """
    for found in _chain(error):
        text = f"{type(found).__name__}: {' '.join(str(found).split())}"[:300]
        if type(found).__name__ == "OutOfMemoryError":
            return f"needs more memory than the GPU has; `rlphf plan` says what would make it fit ({text})"
        number = found.errno if isinstance(found, OSError) else None
        if number in (errno.ENOSPC, errno.EDQUOT) or any(words in text.lower() for words in NO_SPACE):
            return f"no space is left on a disk; make room (`rlphf gc` finds what no result needs), and start it again ({text})"
        if isinstance(found, MemoryError) or number == errno.ENOMEM or any(words in text.lower() for words in NO_MEMORY):
            what = f"more than the {megabytes} MB of memory that it may take (under SLURM the profile's mem_mb)"
            return f"needs {what}; `rlphf plan` says what would make it fit ({text})"
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
