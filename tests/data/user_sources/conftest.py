"""Imports of users out of files below a test's folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rlphf.data.user_import import import_users
from rlphf.settings_users import UserData


@pytest.fixture
def imported(tmp_path: Path) -> Callable[..., dict[str, list[dict]]]:
    """Import users of a source from a path below tmp_path; return the rows of each table by its name."""

    def imported(source: str, path: str, bad: str = "error", seed: int = 7, **settings) -> dict[str, list[dict]]:
        data = UserData(source=source, path=str(tmp_path / path), **{"validation": 0.0, "test": 0.0, **settings})
        tables = import_users(data, seed, bad)
        return {name: table.to_pylist() for name, table in tables._asdict().items()}

    return imported
