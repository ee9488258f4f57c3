import json
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from tests.figures.test_plots import FIGURES

from rlphf.errors import InputError
from rlphf.figures import notebook
from rlphf.figures.notebook import figures_step
from rlphf.figures.style import save

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
RESULTS = NOTEBOOKS[0].parent / "results.ipynb"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_committed_notebook_is_valid_and_holds_no_outputs(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    nbformat.validate(content)
    assert set(content["metadata"]["language_info"]) == {"name"}
    for cell in content["cells"]:
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert (cell["outputs"], cell["execution_count"]) == ([], None)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_cells_keep_ids_that_say_what_they_show(path):
    # An editor that made up ids would change them at every save, and every cell would be in the difference.
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    ids = [cell["id"] for cell in cells]
    assert len(set(ids)) == len(ids)
    for cell in cells:
        shown = re.findall(r"(?:show\(\w+\.|_ = save\(\w+\.|table\(\")(\w+)", "".join(cell["source"]))
        assert cell["id"] in ("title", "setup") or cell["id"].endswith("-text") or shown == [cell["id"].removesuffix("-table")]


def test_notebook_draws_every_figure_with_the_bytes_that_another_process_draws(tables, tmp_path):
    figures_step(RESULTS, tables, tmp_path / "figures")
    drawn = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert drawn == {path.stem for path in (tmp_path / "figures").glob("*.pdf")}
    assert drawn == {draw.__name__ for draw in FIGURES}
    for name, draw in sorted((draw.__name__, draw) for draw in FIGURES):
        save(draw(tables), tmp_path / "here", name)
        for kind in ("png", "pdf"):
            assert (tmp_path / "figures" / f"{name}.{kind}").read_bytes() == (tmp_path / "here" / f"{name}.{kind}").read_bytes()
    text = (tmp_path / "figures" / "results.ipynb").read_text(encoding="utf-8")
    outputs = [output for cell in json.loads(text)["cells"] for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output["data"]]
    assert len(pictures) == len(drawn) - 1
    # A reader who sees no pictures is told what each one shows.
    assert len({output["metadata"]["image/png"]["alt"] for output in pictures}) == len(pictures)
    # Times are not shown in it, so that it is the same for the same results.
    assert "Training time" not in text and "seconds" not in text
    assert str(tmp_path) not in text
    assert "iopub" not in text
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def write_notebook(path, *cells):
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    content = new_notebook(cells=[new_code_cell(text, id=f"c{i}") for i, text in enumerate(cells)], metadata=metadata)
    path.write_text(nbformat.writes(content), encoding="utf-8")


def test_a_notebook_that_fails_is_one_line_and_leaves_nothing(tables, tmp_path):
    write_notebook(
        tmp_path / "bad.ipynb",
        "import os, pathlib\npathlib.Path(os.environ['RLPHF_FIGURES'], 'half.png').write_text('x')",
        "from rlphf.evaluate.table_files import read_table\n"
        "read_table(pathlib.Path(os.environ['RLPHF_TABLES']) / 'no', 'methods')",
    )
    with pytest.raises(InputError, match=r"bad.ipynb: .*methods.parquet: cannot be read as Parquet") as error:
        figures_step(tmp_path / "bad.ipynb", tables, tmp_path / "figures")
    assert "\n" not in str(error.value)
    assert not [path for path in (tmp_path / "figures").iterdir() if path.suffix in (".png", ".ipynb")]


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("raise ValueError('\\x1b[31mred\\x1b[0m\\nand more')", "ValueError: red and more"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import os; os._exit(1)", "its kernel died, as for want of memory; run it again"),
        ("import time; time.sleep(60)", "a cell took more than 3 seconds; make it do less"),
    ],
)
def test_how_a_notebook_fails_is_said_in_one_line(tables, tmp_path, monkeypatch, cell, message):
    monkeypatch.setattr(notebook, "TIMEOUT", 3)
    write_notebook(tmp_path / "bad.ipynb", cell)
    with pytest.raises(InputError) as error:
        figures_step(tmp_path / "bad.ipynb", tables, tmp_path / "figures")
    assert str(error.value) == f"{tmp_path / 'bad.ipynb'}: {message}"


@pytest.mark.parametrize("text", ["no JSON", "[]", "3", '{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{}]}'])
def test_what_is_no_notebook_is_refused(tables, tmp_path, text):
    (tmp_path / "bad.ipynb").write_text(text)
    with pytest.raises(InputError, match="bad.ipynb: cannot be read as a notebook") as error:
        figures_step(tmp_path / "bad.ipynb", tables, tmp_path / "figures")
    assert "\n" not in str(error.value)


def test_a_folder_without_tables_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no tables"):
        figures_step(RESULTS, tmp_path, tmp_path / "figures")
