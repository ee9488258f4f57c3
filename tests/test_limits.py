"""What a command may take: an allocation beyond its limit, or a full disk, ends it in one line with a status of its own."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rlphf.limits import GRANTED, HANDED_ON, SNAKEMAKE, hand_on_grant, lacking, may_take, threads

SOURCE = Path(__file__).parent.parent / "src"
# A command that does what it is told, beside those of the command line.
RUN = """
import sys, types
import rlphf.cli as cli
from rlphf.command import Command
module = types.ModuleType("hungry")
exec("def step():\\n    " + sys.argv[2], module.__dict__)
sys.modules["hungry"] = module
cli.COMMANDS += (Command("hungry", "hungry:step", "takes memory"),)
sys.argv = ["rlphf", *sys.argv[1].split(), "hungry"]
sys.exit(cli.main())
"""
HUNGRY = {
    "python": "bytearray(2**30)",
    "numpy": "import numpy; numpy.ones(2**27)",
    "arrow": "import pyarrow; pyarrow.allocate_buffer(2**30)",
    "torch": "import torch; torch.ones(2**28)",
    "torch in parts": "import torch; kept = [torch.ones(2**22) for _ in range(64)]",
    "while another error is handled": """
    try:
        bytearray(2**30)
    except MemoryError:
        raise RuntimeError("cannot go on")
""",
}


def run(options: str, body: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", RUN, options, body], env=environment, capture_output=True, text=True)


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="nothing is limited where there is a GPU")
@pytest.mark.parametrize("name", HUNGRY)
def test_what_needs_more_than_it_may_take_ends_in_one_line(name: str) -> None:
    done = run("--memory-mb 600", HUNGRY[name])
    assert done.returncode == 3, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "rlphf: error: needs more than the 600 MB of memory that it may take (under SLURM the profile's mem_mb)"
    )


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="nothing is limited where there is a GPU")
def test_what_libraries_do_at_the_end_says_nothing_more() -> None:
    done = run("--memory-mb 600", "import atexit; atexit.register(bytearray, 2**30); bytearray(2**30)")
    assert done.returncode == 3 and len(done.stderr.splitlines()) == 1, done.stderr


def test_what_needs_less_runs_and_without_a_limit_there_is_none() -> None:
    for options in ("--memory-mb 1500", ""):
        done = run(options, "bytearray(2**29)")
        assert (done.returncode, done.stderr) == (0, "")


def test_a_process_may_take_what_slurm_or_its_control_group_grants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (GRANTED, HANDED_ON):
        monkeypatch.delenv(name, raising=False)
    own, group = tmp_path / "own", tmp_path / "job" / "step"
    assert may_take(tmp_path, own) == (machine := os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20)
    own.write_text("0::/job/step\n")
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    assert may_take(tmp_path, own) == machine
    (group.parent / "memory.max").write_text(f"{300 * 2**20}\n")
    assert may_take(tmp_path, own) == 300
    monkeypatch.setenv(GRANTED, "450")
    assert may_take(tmp_path, own) == 450 - SNAKEMAKE
    monkeypatch.setenv(GRANTED, "300")
    assert may_take(tmp_path, own) == 150
    own.write_text("9:cpu:/job\n8:memory,hugetlb:/job\n0::/\n")
    (tmp_path / "memory" / "job").mkdir(parents=True)
    (tmp_path / "memory" / "job" / "memory.limit_in_bytes").write_text(f"{100 * 2**20}\n")
    assert may_take(tmp_path, own) == 100


def test_a_grant_is_handed_on_to_steps_that_do_not_see_slurms_own_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(HANDED_ON, "1000")
    monkeypatch.delenv(GRANTED, raising=False)
    hand_on_grant()
    assert may_take() == 1000 - SNAKEMAKE
    monkeypatch.setenv(GRANTED, "600")
    hand_on_grant()
    monkeypatch.delenv(GRANTED)
    assert may_take() == 600 - SNAKEMAKE


def test_what_pyarrow_sets_aside_does_not_count() -> None:
    body = "import pyarrow as pa, pyarrow.parquet as pq; pq.write_table(pa.table({'x': [1]}), '/dev/null')"
    done = run("--memory-mb 200", body)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_full_disk_ends_in_one_line() -> None:
    # The device refuses every byte.
    body = "import os; os.write(os.open('/dev/full', os.O_WRONLY), b'x')"
    done = run("", body)
    assert done.returncode == 3, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("rlphf: error: no space is left on a disk; make room (`rlphf gc` finds what no result needs)")


def test_a_full_disk_is_told_also_by_libraries_that_have_errors_of_their_own() -> None:
    from safetensors import SafetensorError

    error = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert (lacking(error, 600) or "").startswith("no space is left on a disk")


def test_other_errors_are_none_of_these() -> None:
    assert lacking(ValueError("a mistake"), 600) is None
    assert lacking(OSError(errno.EACCES, "Permission denied"), 600) is None
    assert (lacking(OSError(errno.EDQUOT, "Disk quota exceeded"), 600) or "").startswith("no space is left")
    assert (lacking(OSError(errno.ENOMEM, "Cannot allocate memory"), 600) or "").startswith(
        "needs more than the 600 MB of memory"
    )


def test_a_full_gpu_is_told_apart() -> None:
    class OutOfMemoryError(RuntimeError):
        """As torch names its own."""

    assert (lacking(OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), 600) or "").startswith(
        "needs more memory than the GPU"
    )


@pytest.mark.parametrize(("given", "found"), [("4,1", 4), (" 3 ", 3), ("", 0), ("many", 0), ("-2", 0), ("0", 0), ("9" * 5000, 0)])
def test_threads_are_the_first_number_or_one_per_core(given: str, found: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert threads() == (found or os.cpu_count())
