"""Claims about the page as a file: the same bytes, nothing that a text could end or begin, and no half of it."""

import html.parser
import json

import pytest
from tests.explorer.conftest import HOSTILE

from rlphf.cli import main
from rlphf.evaluate.table_files import read_table
from rlphf.explorer.charts import curves, front
from rlphf.explorer.content import content
from rlphf.explorer.page import as_json, explorer_step
from rlphf.figures.style import COLOURS


class Scripts(html.parser.HTMLParser):
    """The elements of a page, and the texts of its scripts by id."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.scripts: dict[str, str] = {}
        self._id: str | None = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._id = dict(attrs).get("id", "") if tag == "script" else None

    def handle_data(self, data):
        if self._id is not None:
            self.scripts[self._id] = self.scripts.get(self._id, "") + data


@pytest.fixture(scope="module")
def text(explored):
    return (explored[0].parent / "explorer.html").read_text(encoding="utf-8")


def test_the_page_holds_what_was_gathered_and_all_that_draws_it(explored, text):
    page = Scripts(text)
    assert json.loads(page.scripts["content"]) == json.loads(json.dumps(content(explored[1], explored[0])))
    assert "vegaEmbed" in json.loads(page.scripts["vega"]) and page.scripts[""].startswith('\n"use strict"')
    named = [value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")]
    assert set(named) <= {"data:,", "#main", None}


def test_no_answer_becomes_markup(text):
    assert "onerror" in text and not [
        tag for tag, attributes in Scripts(text).elements if tag == "img" or "onerror" in attributes
    ]


def test_json_of_anything_can_stand_in_a_script():
    value = [HOSTILE, "\u2028\u2029", "ä", {"a": 0.25}]
    assert "<" not in as_json(value) and json.loads(as_json(value)) == value


def test_the_page_has_the_same_bytes_when_made_again(explored, text, tmp_path):
    explorer_step(explored[0].parent, explored[0], tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == text


def test_curves_are_reward_and_kl_of_each_axis_in_the_colours_of_the_figures(explored):
    charts = curves(read_table(explored[0].parent / "tables", "curves"))
    assert [chart["group"] for chart in charts] == 2 * ["expertise"] + 2 * ["informativeness"] + 2 * ["style"]
    for chart in charts:
        scale = chart["spec"]["encoding"]["color"]["scale"]
        assert scale["range"] == list(COLOURS[: len(scale["domain"])])
        assert {row["policy"] for row in chart["spec"]["data"]["values"]} == set(scale["domain"])
    assert "P1A elementary ends at" in charts[0]["spec"]["description"]


def test_the_front_says_on_its_axis_what_its_bands_are(explored):
    (chart,) = front(read_table(explored[0].parent / "tables", "front"))
    titles = [layer["encoding"]["y"].get("title") for layer in chart["spec"]["layer"]]
    assert "Score (bands: 95 % intervals)" in titles


def test_a_page_of_users_alone_needs_no_tables_and_names_what_it_was_made_of(explored, tmp_path):
    arguments = ["explorer", "--users", "--results", str(tmp_path), "--seed-folder", str(explored[0])]
    assert main([*arguments, "--out", str(tmp_path / "users.html")]) == 0
    page = Scripts((tmp_path / "users.html").read_text(encoding="utf-8"))
    assert json.loads(page.scripts["content"])["methods"] == [] and json.loads(page.scripts["chart-specs"]) == []
    record = json.loads((tmp_path / "users" / "record.json").read_text(encoding="utf-8"))
    assert record["inputs"].keys() == {"config", "prompts", "users", "user_scores", "answers/sft", "answers/psoups_inferred"}


def test_without_rows_there_are_no_charts():
    assert curves([]) == front([]) == []


def test_what_cannot_be_shown_is_refused_in_one_line_and_nothing_is_written(tmp_path, capsys):
    arguments = ["explorer", "--results", str(tmp_path), "--seed-folder", str(tmp_path / "seed-7")]
    assert main([*arguments, "--out", str(tmp_path / "explorer.html")]) == 2
    assert capsys.readouterr().err.startswith(f"rlphf: error: {tmp_path}/seed-7: no such folder")
    assert list(tmp_path.iterdir()) == []
