"""Claims about config/README.md: it is what the models say, for every key."""

import re
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import Field
from tests.test_config import CONFIG, sections

from rlphf.config import Experiment
from rlphf.config_file import write_step
from rlphf.config_reference import HEADER, kind, reference
from rlphf.errors import InputError
from rlphf.settings import Section
from rlphf.settings_data import Source
from rlphf.settings_own import OwnPreference, TextRule
from rlphf.settings_soup import Merging

CELLS = re.compile(r"(?<!\\)\|")


def tables(text: str) -> dict[str, dict[str, list[str]]]:
    """Return {heading: {key: cells of its row}} of a page."""
    found: dict[str, dict[str, list[str]]] = {}
    for line in text.splitlines():
        if line.startswith("##"):
            found[line.lstrip("# ")] = {}
        elif line.startswith("| `"):
            cells = [cell.strip() for cell in CELLS.split(line)[1:-1]]
            list(found.values())[-1][cells[0].strip("`")] = cells
    return found


def test_reference_is_what_config_write_makes_of_the_models(tmp_path):
    write_step(CONFIG / "config.yaml", tmp_path / "config.yaml")
    assert (tmp_path / "README.md").read_text() == (CONFIG / "README.md").read_text()


def test_every_key_has_a_row_with_its_description_in_its_own_section():
    found = tables(reference())
    named = {name.removeprefix("config").lstrip(".") or "experiment": model for name, model in sections(Experiment)}
    named |= {"data.sources[]": Source, "own_preferences[]": OwnPreference, "own_preferences[].rule": TextRule}
    named |= {"soup.compared[]": Merging}
    assert set(found) == set(named)
    for name, model in named.items():
        assert list(found[name]) == list(model.model_fields), name
        for key, field in model.model_fields.items():
            cells = found[name][key]
            assert len(cells) == 4 and all(cells[:2]), cells
            assert cells[3].replace("&lt;", "<").replace(r"\|", "|") == field.description, cells


def test_defaults_are_those_that_hold_where_no_file_names_the_key():
    found, whole = tables(reference()), Experiment(experiment="mine").model_dump(mode="json")
    compared = 0
    for name, rows in found.items():
        here = whole
        if "[]" in name:
            continue
        for part in name.split(".") if name != "experiment" else []:
            here = here[part]
        for key, cells in rows.items():
            if cells[2] not in ("", "needed"):
                assert yaml.safe_load(cells[2].strip("`")) == here[key], f"{name}.{key}"
                compared += 1
    assert compared > 150
    assert {key for rows in found.values() for key, cells in rows.items() if cells[2] == "needed"} == {
        "experiment",
        *("kind", "path"),
        *("axis", "name", "prompt"),
    }


class Kinds(Section):
    """One key of every kind."""

    number: float = Field(1.0, gt=0, le=2)
    whole: Annotated[int, Field(ge=3, lt=2**31)] | None = None
    word: Literal["a", "b|c", ""] = "a"
    single: Literal[3] = 3
    name: str = Field("x", min_length=1)
    some: Annotated[list[int], Field(min_length=1)] = [1]
    three: Annotated[list[str], Field(min_length=3, max_length=3)] = ["", "", ""]
    few: Annotated[list[str], Field(max_length=2)] = []
    rates: dict[str, float] = {}
    switch: bool = False
    sources: list[Source] = []


def test_what_a_key_may_be_is_said_in_words():
    said = {key: kind(schema, key) for key, schema in Kinds.model_json_schema()["properties"].items()}
    assert said == {
        "number": "number above 0 and at most 2",
        "whole": "integer at least 3 or `null`",
        "word": "`a`, `b|c` or `''`",
        "single": "`3`",
        "name": "text not empty",
        "some": "list of at least 1, each integer",
        "three": "list of 3, each text",
        "few": "list of 0 to 2, each text",
        "rates": "mapping, each value number",
        "switch": "`true` or `false`",
        "sources": "list, each mapping, see [`sources[]`](#sources)",
    }


@pytest.mark.parametrize("name", ["README.md", "schema.json"])
def test_another_file_beside_the_output_is_kept_and_nothing_is_written(tmp_path, name):
    (tmp_path / name).write_text("# Mine\n")
    with pytest.raises(InputError, match=rf"{re.escape(name)}: is none that this command writes"):
        write_step(CONFIG / "config.yaml", tmp_path / "config.yaml")
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "# Mine\n"


@pytest.mark.parametrize("name", [".", "/", "schema.json", "README.md"])
def test_a_configuration_is_no_folder_and_none_of_what_is_written_beside_it(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="--out: .* cannot be the configuration"):
        write_step(CONFIG / "config.yaml", Path(name))
    assert not list(tmp_path.iterdir())


def test_an_earlier_reference_is_replaced(tmp_path):
    (tmp_path / "README.md").write_text(HEADER + "\nof other settings\n")
    (tmp_path / "schema.json").write_text((CONFIG / "schema.json").read_text().replace("seed", "other"))
    write_step(CONFIG / "config.yaml", tmp_path / "config.yaml")
    assert (tmp_path / "README.md").read_text() == reference()
