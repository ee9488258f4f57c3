"""Claims about how sides are measured: each alone in its process, in turn, and with one line where one fails."""

import re
import subprocess
from pathlib import Path

import pytest
from benchmarks import __main__ as suite
from benchmarks import harness
from benchmarks.child import timed
from benchmarks.harness import ROOT, Options, Side, interleaved, measure, trl_python
from benchmarks.table import Row, stored

from rlphf.errors import InputError


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Options:
    """Two rounds of the sides in `sides.py`, with three threads."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    return Options(tmp_path, rounds=2, threads=3)


def side(name: str, **arguments) -> Side:
    return Side(name, f"sides:{name}", arguments)


def test_peak_memory_is_the_sides_own_and_not_what_started_it(options):
    ballast = b"x" * (400 << 20)
    peak = measure(side("allocate", mb=100), options)["peak_mb"]
    assert 100 < peak < 300 < len(ballast)


def test_waiting_is_wall_time_and_no_cpu_time_and_the_first_time_does_not_count(options):
    answer = measure(side("sleeping", seconds=0.2), options)
    assert len(answer["seconds"]) == len(answer["cpu_seconds"]) == 2
    assert min(answer["seconds"]) >= 0.2 > max(answer["cpu_seconds"])


def test_cpu_time_is_that_of_the_work():
    found = timed(lambda: sum(range(3_000_000)), repeats=1, warm=0)
    assert found["cpu_seconds"][0] > 0


def test_sides_get_the_threads_and_no_gpu(options):
    answer = measure(side("surroundings"), options)
    assert (answer["OMP_NUM_THREADS"], answer["CUDA_VISIBLE_DEVICES"], answer["HF_HUB_OFFLINE"]) == ("3", "", "1")


def test_a_side_says_with_which_versions_it_ran(options):
    assert "python" in measure(side("surroundings"), options)["versions"]


def test_sides_take_turns(options, tmp_path):
    log = tmp_path / "log"
    a, b = (Side(name, "sides:noting", {"path": str(log), "name": name}) for name in "ab")
    answers = interleaved([a, b], options)
    assert log.read_text() == "abab" and [len(answer) for answer in answers] == [2, 2]


def test_a_side_that_fails_gives_one_line_that_names_it(options):
    with pytest.raises(InputError) as caught:
        measure(side("failing"), options)
    assert re.fullmatch(r"failing: sides:failing ended with status 1 \(ValueError: the model has no layers\)", str(caught.value))


def test_a_benchmark_that_fails_is_one_line_and_the_others_go_on(options, tmp_path, monkeypatch, capsys):
    def failing(options: Options):
        measure(side("failing"), options)

    monkeypatch.setattr(suite, "SCRIPTS", {"ppo": failing, "users": lambda options: [Row("users", "Users", missing="a test")]})
    monkeypatch.setattr(suite, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(suite, "PAGE", tmp_path / "page.md")
    assert suite.main(["--only", "ppo", "users"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1 and errors[0].startswith("benchmarks: error: ppo: failing:")
    assert [row.name for row in stored(tmp_path / "results.json")] == ["users"]
    assert "not measured: a test" in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "0"], "--rounds: '0' is no whole number above zero"),
        (["--smollm2", "nowhere"], "--smollm2: nowhere: holds no model"),
        (["--only", "tokens"], "invalid choice: 'tokens'"),
    ],
)
def test_a_wrong_option_ends_the_suite_before_it_measures(arguments, message, capsys):
    with pytest.raises(SystemExit) as caught:
        suite.main(arguments)
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_an_environment_that_cannot_be_installed_is_one_line_and_not_taken_for_ready(tmp_path, monkeypatch):
    def run(command: list[str], **_) -> subprocess.CompletedProcess:
        return subprocess.CompletedProcess(command, 1 if "pip" in command else 0, "", "first\nERROR: no such release\n")

    monkeypatch.setattr(harness, "VENVS", tmp_path)
    monkeypatch.setattr(harness.subprocess, "run", run)
    with pytest.raises(InputError, match=r"requirements-trl.txt: cannot be installed \(ERROR: no such release\)"):
        trl_python()
    assert not (tmp_path / "trl" / "ready").exists()


def test_trl_runs_beside_the_very_packages_of_the_project():
    def pins(path: Path) -> dict[str, str]:
        lines = [line.split("==") for line in path.read_text().splitlines() if line and not line.startswith("#")]
        return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in lines}

    ours, theirs = pins(ROOT / "requirements.lock"), pins(harness.TRL)
    assert {name for name, version in theirs.items() if ours.get(name) != version} == {"trl"}
