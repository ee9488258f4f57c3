"""Claims about docs/papers.md: each row names code and a test, and its tables of settings say what the code does."""

import re

import pytest
from tests.docs.commands import ROOT
from tests.docs.pages import tables

from rlphf.config import Experiment, load_layers
from rlphf.config_reference import flow

PAGE = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
CONFIG = ROOT / "config"


def of(experiment: str) -> Experiment:
    """Return an experiment of config/, or what holds where no file names a key (`default`)."""
    if experiment == "default":
        return Experiment(experiment="none")
    return load_layers([CONFIG / "config.yaml", CONFIG / "experiments" / f"{experiment}.yaml"])


def setting(experiment: Experiment, key: str) -> str:
    value = experiment.model_dump(mode="json")
    for part in key.split("."):
        value = value[part]
    return flow(value)


INDEXES = [rows for head, rows in tables(PAGE) if head == ["what", "implemented by", "checked by"]]
SETTINGS = [(head, rows) for head, rows in tables(PAGE) if head[0] == "key"]


def test_both_papers_have_an_index_and_a_table_of_settings():
    assert len(INDEXES) == 2 and all(len(rows) > 20 for rows in INDEXES)
    assert len(SETTINGS) == 2 and all(len(rows) > 20 for _, rows in SETTINGS)


@pytest.mark.parametrize("row", [row for rows in INDEXES for row in rows], ids=lambda row: row[0])
def test_a_row_names_what_implements_it_and_what_checks_it(row):
    # That the names exist is checked with those of all pages.
    what, code, tests = row
    assert what and code and tests
    assert all(re.fullmatch(r"`rlphf(\.\w+)+:[\w.]+`", name) for name in code.split(", ")), code
    assert all(re.fullmatch(r"`tests/[\w/]+\.py::test_\w+`", name) for name in tests.split(", ")), tests


@pytest.mark.parametrize(("head", "rows"), SETTINGS, ids=["psoups", "prlhf"])
def test_settings_are_those_of_the_experiments(head, rows):
    experiments = {name: of(name) for name in (cell.strip("`") for cell in head[2:])}
    assert "demo" in experiments
    for key, _, *cells in rows:
        expected = [f"`{setting(experiment, key.strip('`'))}`" for experiment in experiments.values()]
        assert cells == expected, key
