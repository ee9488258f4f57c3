"""Counts what of the hostile corpus was refused, and says so at the end of a run."""

import os
from collections.abc import Callable
from importlib import import_module

import pytest

# What transformers says of its own while it loads is no line of an error of ours; it looks as it is imported.
os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}

# What commands import as they run, which takes longer than what they do here.
MODULES = ("rlphf.soup.merge", "rlphf.users.fit_soup", "rlphf.train.user_models", "rlphf.train.backbone", "rlphf.data.prepare")
REFUSED: set[str] = set()
ASKED: set[str] = set()


@pytest.fixture(scope="session", autouse=True)
def imported() -> None:
    """Import what commands import, so that no case stands for the time that it takes."""
    for name in MODULES:
        import_module(name)


@pytest.fixture
def refused(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say that a hostile input was refused as it should be."""
    ASKED.add(request.node.nodeid)
    return lambda name: REFUSED.add(request.node.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how much of the corpus was refused."""
    if ASKED:
        terminalreporter.write_line(f"hostile inputs: refused {len(REFUSED)} of {len(ASKED)}")
