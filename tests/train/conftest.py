"""A step's record to train under."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rlphf.tracking.record import Run, step


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """The record of a step in a folder of its own."""
    with step("test", tmp_path / "record") as run:
        yield run
