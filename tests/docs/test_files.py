"""Claims about files that other programs read: the citation, the workflow catalog's; and about numbers that are repeated."""

import re
from datetime import date

import yaml
from tests.docs.commands import ROOT, command_faults
from tests.docs.pages import read_page

from rlphf import __version__
from rlphf.evaluate.matrix import PAPER_AVERAGES, PAPER_HEAD_TO_HEAD

REPRODUCING = (ROOT / "docs" / "reproducing.md").read_text(encoding="utf-8")
PAPERS = {"arXiv:2310.11564": (2023, "Jang"), "arXiv:2402.05133": (2024, "Li")}


def read(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_the_citation_has_what_its_format_wants_and_names_both_papers():
    citation = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation) and citation["cff-version"] == "1.2.0"
    assert citation["version"] == __version__ and citation["license"] == "Apache-2.0"
    found = {}
    for paper in citation["references"]:
        (identifier,) = paper["identifiers"]
        assert paper["url"] == f"https://arxiv.org/abs/{identifier['value'].removeprefix('arXiv:')}"
        assert all(set(author) == {"family-names", "given-names"} for author in paper["authors"]) and len(paper["authors"]) > 3
        found[identifier["value"]] = (paper["year"], paper["authors"][0]["family-names"])
    assert found == PAPERS
    page = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8").replace("\n", " ")
    for paper in citation["references"]:
        assert all(author["family-names"] in page for author in paper["authors"])
        assert paper["identifiers"][0]["value"].replace(":", " ") in page


def test_the_workflow_catalogs_flags_are_snakemakes():
    usage = read(".snakemake-workflow-catalog.yml")["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment"}
    assert command_faults(f"snakemake {usage['mandatory-flags']['flags']}", whole=True) == []
    rules = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "workflow").rglob("*.smk"))
    assert usage["software-stack-deployment"]["conda"] is bool(re.search(r"^ +conda:", rules, re.MULTILINE))
    assert usage["software-stack-deployment"]["report"] is ("report(" in rules)


def test_the_licence_is_the_one_that_is_named():
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


def test_the_changelog_has_a_section_for_what_is_not_released_and_sound_dates():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    heads = re.findall(r"^## \[(.+?)\](?: - (.+))?$", text, re.MULTILINE)
    assert heads[0] == ("Unreleased", "")
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) and date.fromisoformat(day) for version, day in heads[1:])
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= {
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
    }


def numbers(text: str) -> set[str]:
    """Return the decimal numbers of a text, each with its interval where it has one; those of sections are left out."""
    whole = re.findall(r"(?<![\w.])-?\d+\.\d+ \[[-+.\d]+, [-+.\d]+\]", re.sub(r"\s+", " ", text))
    return set(whole) | set(re.findall(r"(?<![\w.])\d+\.\d+(?![\w.]*\d)", re.sub(r"[Ss]ection \d+\.\d+", "", text)))


def test_every_number_of_ours_in_reproducing_was_measured_where_the_pages_that_it_names_say_so():
    stated = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("docs/results.md", "docs/learning.md")}
    known = set().union(*map(numbers, stated.values()))
    theirs = {f"{100 * share:.2f}" for shares in PAPER_AVERAGES.values() for share in shares.values()}
    theirs |= {f"{100 * PAPER_HEAD_TO_HEAD['psoups', 'pmorl']:.2f}"}
    found = numbers(read_page(REPRODUCING).prose)
    assert len(found) > 30 and theirs <= found
    assert found - known - theirs == set()


def test_numbers_are_found():
    assert numbers("Section 4.4 has 0.5 [0.25, -1.5], 59.06 %.") == {"0.5 [0.25, -1.5]", "0.5", "0.25", "1.5", "59.06"}
    assert numbers("| +0.5\n[0.2, 0.8] |") == {"0.5 [0.2, 0.8]", "0.5", "0.2", "0.8"}
    assert numbers("v1.2.3 1e-5 2310.11564v3") == set()


def test_continuous_integration_runs_style_and_types_besides_the_tests():
    steps = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlint:")[2].partition("\n\n")[0]
    assert re.search(r"^\s*make .*\blint\b", steps, re.MULTILINE) and re.search(r"^\s*make .*\btest\b", steps, re.MULTILINE)
    assert all(tool in lint for tool in ("ruff check", "ruff format --check", "mypy", "snakefmt --check"))
