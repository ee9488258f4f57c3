"""Writers of raw files, and the folder of real raw data where there is one."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlphf.data.prepare import prepare
from rlphf.files import read_parquet
from rlphf.settings_data import Source


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write records as JSONL (or as one JSON list for .json) to a path below tmp_path, gzipped for .gz."""

    def write(name: str, records: list[Any]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        listed = name.removesuffix(".gz").endswith(".json")
        text = json.dumps(records, indent=1) if listed else "".join(json.dumps(record) + "\n" for record in records)
        path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
        return path

    return write


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., dict[str, list[dict]]]:
    """Prepare sources below tmp_path; return the rows of each table by its name."""

    def run(
        *sources: Source, out: Path = tmp_path / "out", seed: int = 7, validation: float = 0.0, test: float = 0.0, bad="error"
    ):
        prepare(list(sources), out, seed, validation, test, bad, tmp_path)
        return {path.stem: read_parquet(path).to_pylist() for path in sorted(out.glob("*.parquet"))}

    return run


@pytest.fixture(scope="session")
def real_raw() -> Path:
    """Return the folder of real raw data, or skip."""
    path = Path(os.environ.get("RLPHF_RAW") or Path(__file__).parents[3] / "shared" / "data" / "raw")
    if not path.is_dir():
        pytest.skip(f"no real raw data: {path} is not there (set RLPHF_RAW to its folder)")
    return path
