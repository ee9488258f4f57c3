"""Claims about `make figures`: it draws what there are tables for, again, from a copy of them alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.figures.test_plots import FIGURES
from tests.figures.test_users import FIGURES as USER_FIGURES

from rlphf.evaluate.schemas import SCHEMAS, USER_TABLES
from rlphf.evaluate.table_files import write_table

ROOT = Path(__file__).parents[2]


def make_figures(results: Path) -> subprocess.CompletedProcess[str]:
    """Run `make figures` on a folder of results, with this environment in the place of the one that make sets up."""
    command = ["make", "--old-file=setup", "figures", f"BIN={Path(sys.executable).parent}", f"RESULTS={results}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def pictures(results: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (results / "figures").iterdir() if path.suffix in (".png", ".pdf", ".ipynb")}


def names(*figures: tuple) -> set[str]:
    return {f"{draw.__name__}.{kind}" for group in figures for draw in group for kind in ("png", "pdf")}


@pytest.mark.slow
def test_all_figures_of_stored_tables_are_drawn_again_with_the_same_bytes(tables, tmp_path):
    results = tmp_path / "a run"
    shutil.copytree(tables, results / "tables")
    drawn = []
    for _ in range(2):
        done = make_figures(results)
        assert done.returncode == 0, done.stderr
        drawn.append(pictures(results))
    assert set(drawn[0]) == names(FIGURES, USER_FIGURES) | {"results.ipynb", "users.ipynb"}
    assert drawn[0] == drawn[1]


@pytest.mark.slow
@pytest.mark.parametrize("about_users", [False, True])
def test_figures_without_tables_to_draw_are_left_out(tables, tmp_path, about_users):
    # Without users these tables are there, and empty; an experiment about users alone has no others.
    shutil.copytree(tables, tmp_path / "tables")
    for name in SCHEMAS:
        if about_users and name not in USER_TABLES:
            for path in (tmp_path / "tables").glob(f"{name}.*"):
                path.unlink()
        elif not about_users and name in USER_TABLES:
            write_table(tmp_path / "tables", name, [])
    done = make_figures(tmp_path)
    assert done.returncode == 0, done.stderr
    expected = names(USER_FIGURES) | {"users.ipynb"} if about_users else names(FIGURES) | {"results.ipynb"}
    assert set(pictures(tmp_path)) == expected


def test_a_folder_without_tables_is_refused_in_one_line(tmp_path):
    done = make_figures(tmp_path / "none")
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if line.startswith("rlphf: error:")] == [
        f"rlphf: error: {tmp_path / 'none' / 'tables'}: holds no tables; run the step that makes them"
    ]
