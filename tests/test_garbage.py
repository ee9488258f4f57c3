"""What no result needs is found and removed; what a result needs, or a killed step can go on from, stays."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rlphf.cli import main
from rlphf.errors import InputError
from rlphf.files import atomic_file, atomic_folder, write_json, write_text
from rlphf.garbage import gc_step
from rlphf.tracking.record import SYNC_LOCK, step
from rlphf.tracking.steps import end_workflow, start_workflow
from rlphf.tracking.store import locked

SOURCE = Path(__file__).parent.parent / "src"
# Writes a file and a folder, and is killed before either is whole.
KILLED = """
import os, signal, sys
from pathlib import Path
from rlphf.files import atomic_file, atomic_folder
folder = Path(sys.argv[1])
with atomic_folder(folder / "adapter") as temporary, atomic_file(folder / "pairs.parquet") as other:
    (temporary / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """An experiment with a finished step and an interrupted one, both with checkpoints, in two seeds."""
    folder = tmp_path / "results" / "mine"
    start_workflow(folder, "mine", "hash")
    for seed in (7, 1103):
        for name in ("P1A", "P2A"):
            place = folder / f"seed-{seed}" / "ppo" / name
            write_text(place / "checkpoints" / "step-000001" / "state.json", "{}")
            try:
                with step("ppo", place) as run:
                    with atomic_folder(place / "adapter") as temporary:
                        write_text(temporary / "adapter_config.json", "{}")
                    run.output(place / "adapter")
                    if name == "P2A":
                        raise KeyboardInterrupt
            except KeyboardInterrupt:
                pass
    end_workflow(folder, "failed")
    return folder


@pytest.fixture
def littered(results: Path) -> set[str]:
    """What was there before a step was killed while it wrote."""
    before = names(results)
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", KILLED, str(results / "seed-7" / "ppo" / "P2A")], env=environment)
    assert done.returncode == -9 and len(names(results)) == len(before) + 3
    return before


def test_it_lists_and_removes_what_killed_writers_left_and_checkpoints_of_finished_steps(results, littered, capsys) -> None:
    there = names(results)
    gc_step(results)
    assert names(results) == there
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("  (")[2] for line in lines[:-1]] == [
        "the step has finished)",
        "the step has finished)",
        "not whole: its writer was killed)",
        "not whole: its writer was killed)",
    ]
    assert lines[-1].endswith("in 4 places can be removed, by --delete")
    gc_step(results, delete=True)
    gone = {
        f"seed-{seed}/ppo/P1A/checkpoints{rest}" for seed in (7, 1103) for rest in ("", "/step-000001", "/step-000001/state.json")
    }
    assert names(results) == littered - gone
    assert (results / "seed-7" / "ppo" / "P2A" / "checkpoints" / "step-000001" / "state.json").exists()
    capsys.readouterr()
    gc_step(results, delete=True)
    assert capsys.readouterr().out.strip() == "0.0 MB in 0 places removed"


def test_a_seed_goes_when_it_is_named_and_no_other(results) -> None:
    gc_step(results, ["7"], delete=True)
    assert {path.name for path in results.glob("seed-*")} == {"seed-1103"}
    assert (results / "seed-1103" / "ppo" / "P1A" / "adapter" / "adapter_config.json").exists()
    for wrong in ("8", "*", "../mine", "1103/ppo"):
        with pytest.raises(InputError, match="has no seed"):
            gc_step(results, [wrong], delete=True)
    assert (results / "seed-1103" / "ppo" / "P1A" / "adapter").exists()


def test_what_a_sender_is_writing_is_not_removed(results) -> None:
    deleting = threading.Thread(target=gc_step, args=(results,), kwargs={"delete": True})
    sent = results / "seed-7" / "ppo" / "P2A" / ".sync.json"
    with locked(results / SYNC_LOCK), atomic_file(sent) as temporary:
        deleting.start()
        deleting.join(1)
        assert temporary.exists()
    deleting.join()
    assert sent.exists()


def test_a_link_is_not_followed(results, tmp_path: Path, capsys) -> None:
    kept = tmp_path / "elsewhere" / ".rlphf-kept.abcdefgh"
    write_text(kept, "mine" * 10**6)
    (results / "seed-7" / "linked").symlink_to(tmp_path / "elsewhere")
    (results / "seed-1103" / ".rlphf-soups.abcdefgh").symlink_to(tmp_path / "elsewhere")
    (results / "seed-8").symlink_to(tmp_path / "elsewhere")
    gc_step(results, ["8"], delete=True)
    assert capsys.readouterr().out.splitlines()[-1] == "       0.0 MB in 4 places removed"
    assert kept.exists() and (results / "seed-7" / "linked").is_symlink()
    assert not any(os.path.lexists(results / name) for name in ("seed-8", "seed-1103/.rlphf-soups.abcdefgh"))


def test_while_something_is_at_work_nothing_is_removed(results, littered) -> None:
    there = names(results)
    start_workflow(results, "mine", "hash")
    with pytest.raises(InputError, match=f"process {os.getpid()} on .* is at work in it"):
        gc_step(results, delete=True)
    end_workflow(results, "finished")
    with step("ppo", results / "seed-7" / "ppo" / "P2A"):
        with pytest.raises(InputError, match="is at work in it"):
            gc_step(results, delete=True)
    assert there <= names(results)


def test_a_folder_that_is_no_experiments_is_refused_in_one_line(tmp_path: Path, capsys) -> None:
    write_json(tmp_path / ".rlphf-data.abcdefgh", {})
    assert main(["gc", "--results", str(tmp_path), "--delete"]) == 2
    assert capsys.readouterr().err == f"rlphf: error: {tmp_path}: is no experiment's folder; give one such as results/demo\n"
    assert (tmp_path / ".rlphf-data.abcdefgh").exists()


def test_temporary_names_are_those_that_files_are_written_under(tmp_path: Path) -> None:
    from rlphf.garbage import TEMPORARY

    with atomic_file(tmp_path / "a.parquet") as one, atomic_folder(tmp_path / "b") as other:
        assert TEMPORARY.fullmatch(one.name) and TEMPORARY.fullmatch(other.name)
    for kept in (
        ".notes.markdown",
        ".sync.json",
        ".sync.lock",
        ".tracking.log",
        ".workflow.json",
        ".snakemake_timestamp",
        ".earlier",
        "adapter",
    ):
        assert not TEMPORARY.fullmatch(kept)
