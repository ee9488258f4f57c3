"""A copy of the repository with its own source code, Snakemake in it, and one finished run of the smallest experiment."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PARTS = ("Snakefile", "README.md", "pyproject.toml", "config", "notebooks", "src", "workflow")
# The experiment `ci`, cut down to one combination, and without users.
SMALLEST = """\
preferences: [P1A, P2A]
combination_preferences: [P1A, P2A]
user_evaluation: {methods: []}
soup: {compared: {ties: {rule: ties}}}
evaluation: {methods: [vb, rlhf, pp, mt, pmorl, psoups, mod], front: [P1A, P2A], bootstrap: 50}
"""
CI = ("--configfile", "config/experiments/ci.yaml", "smallest.yaml")

Plan = dict[str, list[str]]
"""Planned jobs: {rule: values of its wildcard besides the seed, or "" for each job without one}, sorted."""


def environment(folder: Path) -> dict[str, str]:
    """Return the environment in which commands run on the copy in `folder`, as `make` would set it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SNAKEMAKE", "MLFLOW", "RLPHF"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    own = {"PATH": path, "PYTHONPATH": str(folder / "src"), "XDG_CACHE_HOME": str(folder / ".cache")}
    return {**kept, **own}


def run_snakemake(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Snakemake in `folder` under the default profile, but not quiet about its jobs unless asked."""
    command = [sys.executable, "-m", "snakemake", "--quiet", "host", "--workflow-profile", "workflow/profiles/default"]
    return subprocess.run([*command, *arguments], cwd=folder, env=environment(folder), capture_output=True, text=True)


def planned(folder: Path, *arguments: str) -> Plan:
    """Return the jobs that a dry run in `folder` plans, rule `all` left out; policies that train together count one by one."""
    done = run_snakemake(folder, "--dry-run", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    text = done.stdout + done.stderr
    jobs: Plan = {}
    for name, body in re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", text, re.MULTILINE):
        found = re.search(r"^    wildcards: (.+)$", body, re.MULTILINE)
        wildcards = dict(pair.split("=") for pair in found[1].split(", ")) if found else {}
        wildcards.pop("seed", None)
        if name.startswith("ppo_"):
            jobs.setdefault("ppo", []).extend(name.split("_")[1:])
        else:
            jobs.setdefault(name, []).append(next(iter(wildcards.values()), ""))
    assert jobs or "Nothing to be done" in text, text
    jobs.pop("all", None)
    return {name: sorted(values) for name, values in jobs.items()}


def copy_to(folder: Path) -> Path:
    """Copy what a clone has, and runs need, to `folder`."""
    folder.mkdir()
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy2(source, folder / part)
    (folder / "smallest.yaml").write_text(SMALLEST)
    return folder


def run_to_the_end(folder: Path) -> Path:
    """Run the smallest experiment in `folder`, and wait for what sends its records to MLflow."""
    done = run_snakemake(folder, *CI)
    logs = "\n".join(path.read_text() for path in sorted(folder.glob("results/ci/**/*.log")))
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{logs}"
    sent = folder / "results" / "ci" / ".tracking.log"
    for _ in range(300):
        if "tracking: sent" in sent.read_text():
            return folder
        time.sleep(0.2)
    raise AssertionError(f"nothing was sent to MLflow: {sent.read_text()}")


@pytest.fixture(scope="session")
def snakemake() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Snakemake in a folder with arguments."""
    return run_snakemake


@pytest.fixture(scope="session")
def plan() -> Callable[..., Plan]:
    """Return the jobs that a dry run in a folder with arguments plans."""
    return planned


@pytest.fixture(scope="session")
def ci() -> tuple[str, ...]:
    """The arguments of the smallest experiment."""
    return CI


@pytest.fixture(scope="session")
def run_in() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command in a copy of the repository, with the copy's own source code."""

    def run(folder: Path, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(list(map(str, command)), cwd=folder, env=environment(folder), capture_output=True, text=True)

    return run


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which nothing has run."""
    return copy_to(tmp_path_factory.mktemp("clean") / "rlphf")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository in which the smallest experiment has run; about a minute on two cores."""
    return run_to_the_end(copy_to(tmp_path_factory.mktemp("finished") / "rlphf"))


@pytest.fixture(scope="session")
def pretended(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Take the jobs of a dry run with arguments for done: return a copy of the repository with empty files for their outputs."""

    def pretend(*arguments: str) -> Path:
        folder = copy_to(tmp_path_factory.mktemp("pretended") / "rlphf")
        done = run_snakemake(folder, "--dry-run", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        for line in re.findall(r"^    output: (.+)$", done.stdout + done.stderr, re.MULTILINE):
            for path in map(folder.joinpath, line.split(", ")):
                # What ends like a number is a folder: a soup on the front.
                is_file = path.suffix[1:].isalpha()
                (path.parent if is_file else path).mkdir(parents=True, exist_ok=True)
                if is_file:
                    path.touch()
        done = run_snakemake(folder, "--touch", "--forceall", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return folder

    return pretend


@pytest.fixture
def new_copy(tmp_path: Path) -> Path:
    """A copy of the repository for a test of its own."""
    return copy_to(tmp_path / "copy")


@pytest.fixture(scope="session")
def start_in() -> Callable[..., subprocess.Popen[str]]:
    """Start Snakemake in a folder with arguments, in a session of its own, as a terminal would."""

    def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "snakemake", "--workflow-profile", "workflow/profiles/default", *arguments]
        with (folder / "snakemake.log").open("w") as log:
            return subprocess.Popen(
                command, cwd=folder, env=environment(folder), stdout=log, stderr=log, text=True, start_new_session=True
            )

    return start


@pytest.fixture
def another_run(tmp_path: Path) -> Callable[[], Path]:
    """Run the smallest experiment once more, in a copy of its own."""
    return lambda: run_to_the_end(copy_to(tmp_path / "again"))
