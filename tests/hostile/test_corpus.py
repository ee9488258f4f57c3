"""Every hostile input ends in one line, exit status 2 and no output, in bounded time and memory."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.hostile import records, settings
from tests.hostile.cases import Case, content
from tests.hostile.models import model_cases
from tests.hostile.records import record_cases
from tests.hostile.settings import setting_cases
from tests.hostile.tables import table_cases

from rlphf.cli import main
from rlphf.tracking.record import METRICS, RECORD

CASES = [*record_cases(), *setting_cases(), *table_cases(), *model_cases()]
ACCEPTED = [*records.ACCEPTED, *settings.ACCEPTED]
SAMPLE = list({case.reader: case for case in CASES if not case.slow and not case.limited}.values())
RECORDS = [case for case in CASES if case.reader.startswith(("raw table", "users prism")) and not case.limited]
SECONDS = 120
MEMORY = 2**31
# A process of its own that may take so much memory and no more.
CHILD = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY}, {MEMORY}))
from rlphf.cli import main
sys.exit(main(sys.argv[1:]))
"""


def outputs(folder: Path) -> list[str]:
    """Return all files below a folder but for steps' records, which say that a step failed and why."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if not path.is_dir() and path.name not in (RECORD, METRICS)
    )


def in_this_process(arguments: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run a command; return its status and what it wrote to stderr. One that hangs is stopped."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"no end after {SECONDS} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        return main(list(arguments)), capfd.readouterr().err
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def in_a_process(arguments: tuple[str, ...], folder: Path) -> tuple[int, str]:
    """Run a command in a process of its own with bounded memory; return its status and what it wrote to stderr."""
    command = [sys.executable, "-c", CHILD, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    return done.returncode, done.stderr


def check(case: Case, folder: Path, status: int, shown: str, before: list[str]) -> None:
    assert status == 2, shown[-2000:]
    assert shown.startswith("rlphf: error: ") and shown.endswith("\n"), shown[-2000:]
    line = shown.removesuffix("\n")
    assert len(line.splitlines()) == 1 and line.isprintable() and len(line) < 2000, shown[-2000:]
    assert outputs(folder) == before and not (folder / "owned").exists()


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.slow) if c.slow else c for c in CASES], ids=lambda case: case.name[:90]
)
def test_hostile_input_is_refused(case, tmp_path, monkeypatch, capfd, refused):
    monkeypatch.chdir(tmp_path)
    case.plant(tmp_path)
    before = outputs(tmp_path)
    if case.limited:
        status, shown = in_a_process(case.arguments, tmp_path)
    else:
        status, shown = in_this_process(case.arguments, capfd)
    check(case, tmp_path, status, shown, before)
    refused(case.name)


@pytest.mark.slow
@pytest.mark.parametrize("case", SAMPLE, ids=lambda case: case.reader)
def test_one_input_of_each_reader_is_refused_by_a_process_as_well(case, tmp_path):
    case.plant(tmp_path)
    before = outputs(tmp_path)
    command = [sys.executable, "-m", "rlphf.cli", *case.arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS)
    check(case, tmp_path, done.returncode, done.stderr, before)


def test_the_corpus_is_large_and_its_cases_are_different():
    assert len(CASES) >= 200 and len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", RECORDS, ids=lambda case: case.name)
def test_what_is_set_aside_ends_no_worse_than_what_is_refused(case, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    case.plant(tmp_path)
    config = tmp_path / "config.yaml"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps(settings | {"data": settings.get("data", {}) | {"on_bad_record": "quarantine"}}))
    status, shown = in_this_process(case.arguments, capfd)
    assert status in (0, 2) and shown.count("\n") == (status == 2)


@pytest.mark.parametrize(
    ("name", "reason", "arguments", "files"), ACCEPTED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_what_looks_hostile_and_is_sound_is_read(name, reason, arguments, files, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for path, data in files.items():
        content(data)(tmp_path / path)
    status, shown = in_this_process(arguments, capfd)
    assert (status, shown) == (0, ""), reason
