"""Claims about the table of folders in docs/architecture.md: what it says is imported is what the code imports."""

import ast
import re
import sys
from functools import cache
from pathlib import Path

import pytest
from tests.docs.commands import ROOT
from tests.docs.pages import tables

from rlphf.sources import imports

SOURCE = ROOT / "src"
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
(ROWS,) = [rows for head, rows in tables(PAGE) if head == ["folder", "one idea", "imports"]]
SHARED = "shared"
# By folder, in the table's order: the cell that says what is imported.
CELLS = {SHARED if i == 0 else cells[0].strip("`/"): cells[-1] for i, cells in enumerate(ROWS)}
# Libraries that are named otherwise than they are imported, and those that are imported anywhere without being named.
NAMES = {"sklearn": "scikit-learn", "vl_convert": "vl-convert", "jupyter_client": "jupyter-client"}
LIGHT = {"pydantic", "yaml", "psutil", "tqdm"}
# Imports of a folder that lies further down in the table, and why they are there.
EXCEPTIONS = {
    ("rlphf.cards", "data"): "the card of a reward model has the accuracy of every split",
    ("rlphf.cards", "soup"): "the card of a soup shows its recipe",
    ("rlphf.cards", "tracking"): "a card is made of the run that wrote its model",
    ("rlphf.data.annotate", "testbed"): "the simulated annotator is the testbed's oracle",
    ("rlphf.data.annotate", "lm"): "an annotator may be a reward model, which is imported when it is asked",
    ("rlphf.data.questions.prompts", "testbed"): "an experiment asks the testbed's prompts, everyday ones or a file's",
    ("rlphf.users.fewshot", "train"): "a new user's row is trained as P-DPO trains it",
}


def modules() -> dict[str, Path]:
    """Return the files of the package by module."""
    paths = (SOURCE / "rlphf").rglob("*.py")
    return {".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def folder(module: str) -> str:
    """Return the row of the table in which a module belongs."""
    name = (module.split(".") + [""])[1]
    return name if name in CELLS else SHARED


@cache
def libraries() -> dict[str, set[str]]:
    """Return what each folder imports of other packages, the standard library aside."""
    found: dict[str, set[str]] = {name: set() for name in CELLS}
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found[folder(module)].update(name.split(".")[0] for name in names)
    ours = sys.stdlib_module_names | LIGHT | {"rlphf"}
    return {name: known - ours for name, known in found.items()}


def reached() -> set[tuple[str, str]]:
    """Return (module, folder) of all imports between folders, except of what all share."""
    pairs = {(module, folder(other)) for module in modules() for other in imports(module)}
    return {(module, aim) for module, aim in pairs if aim not in (SHARED, folder(module))}


def test_every_module_beside_the_folders_is_named():
    named = set(re.findall(r"`(\w+)`", ROWS[0][0])) | {name for name in CELLS if (SOURCE / "rlphf" / f"{name}.py").is_file()}
    assert named == {path.stem for path in (SOURCE / "rlphf").glob("*.py")} - {"__init__"}
    folders = {path.name for path in (SOURCE / "rlphf").iterdir() if (path / "__init__.py").is_file()}
    assert folders == {name for name in CELLS if (SOURCE / "rlphf" / name).is_dir()}


@pytest.mark.parametrize("name", CELLS)
def test_a_folder_imports_the_folders_of_its_row_and_those_lie_above_it(name):
    found = {aim for module, aim in reached() - EXCEPTIONS.keys() if folder(module) == name}
    assert found == set(re.findall(r"`(\w+)/`", CELLS[name]))
    order = list(CELLS)
    assert not found - set(order[: order.index(name)])


def test_every_exception_is_an_import_of_a_folder_further_down():
    order = list(CELLS)
    assert EXCEPTIONS.keys() <= reached()
    assert all(order.index(aim) > order.index(folder(module)) for module, aim in EXCEPTIONS)


@pytest.mark.parametrize("name", CELLS)
def test_a_folder_imports_the_libraries_of_its_row(name):
    words = set(re.findall(r"[\w-]+", re.sub(r"`[^`]*`", "", CELLS[name])))
    known = set().union(*libraries().values())
    assert {NAMES.get(library, library) for library in libraries()[name]} == words & {NAMES.get(one, one) for one in known}
