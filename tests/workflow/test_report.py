"""Claims about Snakemake's report of a finished run: what is in it, and that it needs nothing else."""

import json
import re

import pytest

from rlphf.config import load_layers, save
from rlphf.evaluate.schemas import SCHEMAS, USER_TABLES
from rlphf.files import write_json

pytestmark = pytest.mark.workflow


def test_an_experiment_about_users_alone_has_a_report_of_what_it_made(pretended, snakemake, tmp_path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw.yaml").write_text(f"user_data: {{path: {tmp_path / 'raw'}}}\n")
    personas = ("--configfile", "config/experiments/personas.yaml", str(tmp_path / "raw.yaml"))
    folder = pretended(*personas)
    results = folder / "results" / "personas"
    layers = [
        folder / "config" / "config.yaml",
        *(folder / path if "experiments" in path else tmp_path / "raw.yaml" for path in personas[1:]),
    ]
    save(load_layers(layers), results / "seed-1103" / "config.yaml")
    write_json(results / "tables" / "users" / "record.json", {"versions": {"torch": "1.2.3+of-users"}, "outputs": {}})
    done = snakemake(folder, *personas, "--report", str(tmp_path / "report.html"))
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    described = re.sub(r"<[^>]+>", "", listed(text, "workflow-desc"))
    assert "methods that serve" in described and "1.2.3+of-users" in described and "pdpo_both" in described
    # Nothing that it has not: no answers to read, no summary.
    assert not any(word in described for word in ("explorer.html", "users.html", "Main results", "System Message"))
    assert {f"results/personas/tables/{name}.csv" for name in USER_TABLES} <= set(listed(text, "results"))


@pytest.fixture(scope="module")
def report(finished, snakemake, ci, tmp_path_factory):
    """The report's text."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    done = snakemake(finished, *ci, "--report", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    return path.read_text(encoding="utf-8")


def listed(report, name):
    """The value of the variable that is set in the script `name`."""
    found = re.search(rf'<script id="{name}">\s*var \w+ = (.*);$', report, re.MULTILINE)
    assert found
    return json.loads(found[1])


def test_all_tables_and_figures_are_listed_and_lie_in_it(finished, report):
    results = listed(report, "results")
    folder = finished / "results" / "ci"
    tables = {f"results/ci/tables/{name}.{kind}" for name in SCHEMAS for kind in ("csv", "md")}
    figures = {path.relative_to(finished).as_posix() for path in (folder / "figures").glob("*.png")}
    assert len(figures) >= 11 and set(results) == tables | figures
    assert all(result["data_uri"].startswith("data:") and result["caption"] for result in results.values())


def test_it_begins_with_the_main_results_versions_and_configuration(finished, report):
    described = listed(report, "workflow-desc")
    first = (finished / "results" / "ci" / "summary.txt").read_text().splitlines()[0]
    versions = json.loads((finished / "results" / "ci" / "tables" / "record.json").read_text())["versions"]
    assert first.split()[0] in described and "experiment" in described
    for text in (versions["torch"], "combination_preferences"):
        assert text in re.sub(r"<[^>]+>", "", described)


def test_it_asks_for_nothing_from_elsewhere(report):
    head, _, body = report.partition("<body>")
    outside = re.compile(r"<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//")
    assert not outside.search(head) and not outside.search(body[: body.index('<script id="results">')])
