"""A cluster for all tests of this folder, and Snakemake on it under the project's profile."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from tests.slurm.cluster import Cluster, missing, running
from tests.workflow.conftest import ROOT, environment

PROFILE = ROOT / "workflow" / "profiles" / "slurm"
ENDED = {"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL"}


def on(cluster: Cluster, folder: Path) -> dict[str, str]:
    """Return the environment in which commands run in `folder` and find the cluster."""
    own = environment(folder)
    return {
        **own,
        **cluster.variables,
        "PATH": os.pathsep.join((f"{cluster.folder}/bin", own["PATH"], cluster.variables["PATH"])),
    }


class Start:
    """Snakemake as it runs in a folder: its process, and what it has said so far."""

    def __init__(self, folder: Path, cluster: Cluster, arguments: tuple[str, ...]):
        self.log = Path(tempfile.mkstemp(dir=folder, prefix=".said.")[1])
        # As a person's shell would, and not as one that runs tests in the background and ignores Ctrl-C.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "snakemake", "--profile", "site.yaml", "--workflow-profile", str(PROFILE)]
            + ["--slurm-init-seconds-before-status-checks", "6", *arguments],
            cwd=folder,
            env=on(cluster, folder),
            stdout=self.log.open("w"),
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    @property
    def said(self) -> str:
        """What Snakemake has printed."""
        return self.log.read_text()

    def ends(self, seconds: float = 300) -> int:
        """Wait for the end; return the exit status. A test that hangs is stopped as a person would stop it."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)
            raise AssertionError(f"still running after {seconds} s:\n{self.said}") from None


@pytest.fixture(scope="session")
def start_cluster() -> Callable[[], AbstractContextManager[Cluster]]:
    """Start a cluster of three nodes, one of them with two GPUs in name; skip the test where SLURM is not installed."""
    if reason := missing():
        pytest.skip(reason)

    @contextmanager
    def start() -> Iterator[Cluster]:
        # pytest's own folders are private, and munge refuses those.
        with tempfile.TemporaryDirectory(prefix="slurm-") as folder:
            Path(folder).chmod(0o755)
            with running(Path(folder)) as cluster:
                yield cluster

    return start


@pytest.fixture(scope="session")
def cluster(start_cluster: Callable[[], AbstractContextManager[Cluster]]) -> Iterator[Cluster]:
    """A running cluster that all tests share."""
    with start_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def snakemake(cluster: Cluster) -> Iterator[Callable[..., Start]]:
    """Start Snakemake in a folder with arguments, under the profile and an unchanged copy of the site's template."""
    started: list[Start] = []

    def start(folder: Path, *arguments: str) -> Start:
        shutil.copy(PROFILE / "site.yaml", folder)
        started.append(Start(folder, cluster, arguments))
        return started[-1]

    yield start
    for one in started:
        # Of a test that failed.
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


@pytest.fixture(scope="session")
def wait_for() -> Callable[..., None]:
    """Wait until something is true."""

    def wait(condition: Callable[[], object], seconds: float = 150, what: str = "") -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"not within {seconds} s: {what}")
            time.sleep(0.05)

    return wait
