"""A run that is killed at any moment, all of its processes at once, goes on when it is started again and makes the same bytes.

RLPHF_KILLS says how often (3), RLPHF_KILL_SEED what the moments are drawn from.
"""

import os
import shutil
import signal
import subprocess
import time
from datetime import datetime
from pathlib import Path
from random import Random

import pytest
from tests.workflow.made import learned, outputs

from rlphf.files import UNFINISHED, read_json

pytestmark = pytest.mark.workflow

KILLS, SEED = int(os.environ.get("RLPHF_KILLS", "3")), int(os.environ.get("RLPHF_KILL_SEED", "1103"))
# After which part of an undisturbed run's time a start is killed: some come through to the longest job's end.
MOMENTS = (0.05, 0.4)


def processes(folder: Path) -> dict[int, str]:
    """Return {number: command} of the processes that work in a folder."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(path / "cwd")).is_relative_to(folder):
                found[int(path.name)] = (path / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found


def gone(folder: Path, kept: str = "", seconds: float = 60.0) -> dict[int, str]:
    """Wait until no process works in a folder, those left out whose command names `kept`; return what is left by then."""
    end = time.monotonic() + seconds
    while (left := {n: c for n, c in processes(folder).items() if not kept or kept not in c}) and time.monotonic() < end:
        time.sleep(0.2)
    return left


def kill(process: subprocess.Popen[str], folder: Path) -> None:
    """Kill Snakemake with all its jobs, and see that nothing but the follower of records is left."""
    jobs = [command for command in processes(folder).values() if "rlphf" in command and "bash" not in command]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert gone(folder, kept="track sync", seconds=10) == {}
    at_work = [command.split(" --config")[0].rpartition("/")[2] for command in jobs if "track sync" not in command]
    print(f"killed {', '.join(at_work) or 'between jobs'}", flush=True)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_makes_the_bytes_of_an_undisturbed_one(finished, new_copy, snakemake, start_in, ci):
    moments, kills, runs = Random(SEED), 0, 0
    whole = undisturbed_seconds(finished)
    while kills < KILLS:
        process, moment = start_in(new_copy, *ci), whole * moments.uniform(*MOMENTS)
        try:
            process.wait(moment)
            check(finished, new_copy, process)
            # It was through before it could be killed: the next one starts at the beginning.
            runs += 1
            assert gone(new_copy) == {}
            shutil.rmtree(new_copy / "results")
        except subprocess.TimeoutExpired:
            print(f"{kills + 1}: after {moment:.1f} s ", end="")
            kill(process, new_copy)
            kills += 1
            done = snakemake(new_copy, *ci, "--unlock")
            assert done.returncode == 0, done.stdout + done.stderr
    process = start_in(new_copy, *ci)
    process.wait()
    check(finished, new_copy, process)
    print(f"survived {kills} kills with seed {SEED}, in {runs + 1} runs")
    # The followers of all starts have seen that their Snakemake is gone.
    assert gone(new_copy) == {}
    assert not list((new_copy / "results").rglob("checkpoints"))
    assert "Nothing to be done" in said(snakemake(new_copy, *ci))


def undisturbed_seconds(folder: Path) -> float:
    """Return how long the run in a folder took."""
    record = read_json(folder / "results" / "ci" / ".workflow.json")
    return (datetime.fromisoformat(record["end"]) - datetime.fromisoformat(record["start"])).total_seconds()


def said(done: subprocess.CompletedProcess[str]) -> str:
    return done.stdout + done.stderr


def check(finished: Path, folder: Path, process: subprocess.Popen[str]) -> None:
    """See that a run has ended well, with the bytes and the metrics of the undisturbed one."""
    log = (folder / "snakemake.log").read_text()
    logs = "\n".join(path.read_text() for path in sorted(folder.glob("results/ci/**/*.log")))
    assert process.returncode == 0, f"{log}\n{logs}"
    first, second = outputs(finished), outputs(folder)
    assert len(first) > 60 and set(first) == set(second)
    assert {name for name in first if first[name] != second[name]} == set()
    assert learned(finished) == learned(folder)


@pytest.mark.slow
def test_what_is_left_behind_is_removed_and_nothing_is_repeated(finished, run_in, snakemake, ci):
    seed = Path("results", "ci", "seed-1103")
    (finished / seed / "ppo" / "P1A" / "checkpoints" / "step-000001").mkdir(parents=True)
    (finished / seed / "soups" / f"{UNFINISHED}P1A-P2A.abcdefgh").mkdir()
    before = outputs(finished)
    done = run_in(finished, "rlphf", "gc", "--results", "results/ci", "--delete")
    assert done.returncode == 0 and "in 2 places removed" in done.stdout, said(done)
    assert not (finished / seed / "ppo" / "P1A" / "checkpoints").exists()
    assert outputs(finished) == before
    assert "Nothing to be done" in said(snakemake(finished, *ci))
