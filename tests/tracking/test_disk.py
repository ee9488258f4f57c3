"""What a disk without room, or one that is read-only, does to steps, to their records and to the store."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from rlphf.cli import main
from rlphf.config import Experiment, save
from rlphf.errors import InputError
from rlphf.tracking.entries import read_or_empty
from rlphf.tracking.record import METRICS, RECORD, SAMPLES, read_metrics, step
from rlphf.tracking.sync import follow, sync

Disk = Callable[[int], Path]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def fill(disk: Path) -> Path:
    """Take all room of a disk; return the file to remove for having it again."""
    with (disk / "filler").open("wb", buffering=0) as stream:
        try:
            while stream.write(bytes(512)):
                pass
        except OSError:
            return disk / "filler"


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)


def record(folder: Path) -> dict:
    return json.loads((folder / RECORD).read_text())


def rows(database: Path, query: str) -> list[tuple]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def test_metrics_wait_for_room_and_the_step_goes_on(disk: Disk, capfd: pytest.CaptureFixture[str]) -> None:
    folder = disk(256) / "ppo"
    with step("ppo", folder) as run:
        run.log({"kl": 0.0}, step=0)
        filler = fill(folder.parent)
        for i in range(1, 400):
            run.log({"kl": i / 10, "reward": -i}, step=i)
            run.log_samples([{"response": "yes" * 20}], step=i)
        run.tag(rule="delta")
        written = len(read_metrics(folder / METRICS))
        assert written < 400
        filler.unlink()
        run.log({"kl": 40.0}, step=400)
        assert [line["step"] for line in read_metrics(folder / METRICS)] == list(range(401))
    assert len((folder / SAMPLES).read_text().splitlines()) == 399
    assert (record(folder)["status"], record(folder)["tags"]) == ("finished", {"rule": "delta"})
    shown = capfd.readouterr().err
    assert shown.count("\n") == 1
    assert shown.startswith("rlphf: tracking: ") and "cannot be written now (No space left on device)" in shown


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_step_whose_record_cannot_be_written_at_the_start_does_nothing_and_says_so(disk: Disk, how: str, capfd) -> None:
    results = disk(256)
    save(Experiment(experiment="small"), results.parent / "config.yaml")
    if how == "full":
        fill(results)
    else:
        remount(results, "ro")
    there = sorted(results.rglob("*"))
    command = ["data", "prompts", "--config", str(results.parent / "config.yaml"), "--out", str(results / "prompts/a.parquet")]
    assert main(command) == 2
    shown = capfd.readouterr().err
    assert shown.count("\n") == 1 and shown.startswith(f"rlphf: error: {results}/prompts")
    assert ("No space left" if how == "full" else "Read-only file system") in shown
    assert [path for path in sorted(results.rglob("*")) if path.is_file() and path.stat().st_size] == [
        path for path in there if path.is_file()
    ]


def test_a_step_whose_record_cannot_be_written_at_the_end_says_so_in_one_line(disk: Disk) -> None:
    folder = disk(256) / "ppo"
    with pytest.raises(InputError) as ended, step("ppo", folder) as run:
        (folder / "adapter.bin").write_bytes(b"weights")
        run.output(folder / "adapter.bin")
        fill(folder.parent)
    reason = "cannot be written (No space left on device); make room for it and run the step again"
    assert str(ended.value) == f"{folder / RECORD}: {reason}"
    assert (folder / "adapter.bin").read_bytes() == b"weights"
    assert record(folder)["status"] == "running"


def test_what_stopped_a_step_is_said_also_where_it_cannot_be_recorded(disk: Disk) -> None:
    folder = disk(256) / "ppo"
    with pytest.raises(ValueError, match="the real reason"), step("ppo", folder):
        fill(folder.parent)
        raise ValueError("the real reason")


LIMITED = """
import resource, sys
from rlphf.tracking.record import step
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
with step("ppo", "out") as run:
    run.log({"kl": 0.0}, step=0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, hard))
    for i in range(1, 50):
        run.log({"kl": i / 10}, step=i)
    run.tag(rule="delta")
    if sys.argv[1] == "lifted":
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
"""


@pytest.mark.parametrize("how", ["lifted", "kept"])
def test_files_that_may_not_grow_stop_no_step_before_its_end(tmp_path: Path, how: str) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, how], cwd=tmp_path, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    lines = done.stderr.splitlines()
    assert lines[0] == f"rlphf: tracking: out/{METRICS}: cannot be written now (No space left on device); the step goes on"
    steps = [line["step"] for line in read_metrics(tmp_path / "out" / METRICS)]
    if how == "lifted":
        assert (done.returncode, len(lines)) == (0, 1)
        assert record(tmp_path / "out")["status"] == "finished" and steps == list(range(50))
        assert "unwritten_lines" not in record(tmp_path / "out")
    else:
        assert done.returncode == 1 and lines[-1].endswith("(File too large); make room for it and run the step again")
        assert steps == list(range(len(steps))) and 0 < len(steps) < 50


def steps_in(results: Path, count: int = 3) -> None:
    for name in ("P1A", "P1B"):
        with step("ppo", results / name, tags={"preference": name}) as run:
            for i in range(count):
                run.log({"kl": i / 10}, step=i)


ARRIVED = [(f"ppo {name}", "FINISHED", i) for name in ("P1A", "P1B") for i in range(3)]
QUERY = "select name, status, step from runs r join metrics m on r.run_uuid = m.run_uuid order by name, step"


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_records_wait_while_the_store_cannot_be_written(disk: Disk, how: str, empty_store: Path, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    store, results = disk(4096), tmp_path / "results/demo"
    database = Path(shutil.copy(empty_store, store))
    if how == "full":
        filler = fill(store)
    else:
        remount(store, "ro")
    steps_in(results)
    counts = sync(results, f"sqlite:///{database}", "demo")
    assert (counts.waiting, counts.metrics, len(counts.problems)) == (2, 0, 1)
    if how == "full":
        filler.unlink()
    else:
        remount(store, "rw")
    assert sync(results, f"sqlite:///{database}", "demo").waiting == 0
    assert sync(results, f"sqlite:///{database}", "demo").runs == 0
    assert rows(database, QUERY) == ARRIVED


def test_where_nothing_can_be_noted_nothing_is_doubled_and_the_follower_lives_on(
    disk: Disk, empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow")
    from rlphf.tracking import sync as syncing

    results, database = disk(256), Path(shutil.copy(empty_store, tmp_path))
    steps_in(results)
    fill(results)
    passes = iter([lambda: None, lambda: remount(results, "ro"), lambda: (remount(results, "rw"), (results / "filler").unlink())])

    def wait(seconds: float) -> None:
        try:
            next(passes)()
        except StopIteration:
            raise KeyboardInterrupt from None

    workflow = {"status": "running", "pid": os.getpid(), "host": os.uname().nodename}
    monkeypatch.setattr(syncing, "read_or_empty", lambda path: workflow if path.name == ".workflow.json" else read_or_empty(path))
    monkeypatch.setattr(syncing, "is_alive", lambda record: True)
    monkeypatch.setattr(syncing.time, "sleep", wait)
    total = follow(results, f"sqlite:///{database}", "demo")
    assert (total.waiting, total.broken) == (0, 0)
    assert rows(database, QUERY) == ARRIVED
    shown = capfd.readouterr().out
    assert "No space left on device" in shown and "nothing can be noted here, will be tried again" in shown
