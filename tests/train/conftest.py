"""A step's record to train under, and a way to kill what trains."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from rlphf.tracking.record import Run, step


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """The record of a step in a folder of its own."""
    with step("test", tmp_path / "record") as run:
        yield run


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """Run what trains with one of TRL's or transformers' trainers until it has written the checkpoint of a step."""

    @contextmanager
    def killed(step: int) -> Iterator[None]:
        from rlphf.train.checkpoint import save_checkpoint

        def save(folder: Path, number: int, *rest: Any) -> None:
            save_checkpoint(folder, number, *rest)
            if number == step:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("rlphf.train.resumable.save_checkpoint", save)
            yield

    return killed
