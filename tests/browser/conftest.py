"""A browser and an explorer to open in it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.browser.chromium import Chromium
from tests.explorer.conftest import build_explored

from rlphf.explorer.page import explorer_step

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """Chromium, with a profile of its own; tests are skipped where there is none."""
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium on this machine; install the package chromium")
    running = Chromium(program, tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The explorer of a small run with users, one of whose answers would be markup."""
    folder = tmp_path_factory.mktemp("page")
    seed_folder, _ = build_explored(folder)
    explorer_step(folder, seed_folder, folder / "users.html", users=True)
    return folder / "explorer.html"
