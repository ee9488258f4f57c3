"""Sides that the tests of the harness run in processes of their own."""

import os
import time
from pathlib import Path
from typing import Any

from benchmarks.child import timed


def allocate(mb: int) -> dict[str, Any]:
    """Touch so much memory, and give it back before the end."""
    return {"bytes": len(b"x" * (mb << 20))}


def sleeping(seconds: float) -> dict[str, Any]:
    return timed(lambda: time.sleep(seconds), repeats=2)


def surroundings() -> dict[str, Any]:
    return {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE")}


def noting(path: str, name: str) -> None:
    with Path(path).open("a") as stream:
        stream.write(name)


def failing() -> None:
    raise ValueError("the model has no layers")
