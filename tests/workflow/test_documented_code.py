"""The claim that the Python which the pages show runs on a finished run, with its paths put in."""

import re
import sys

import pytest
from tests.docs.pages import read_page
from tests.workflow.conftest import ROOT

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "config" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block.text, id=f"{path.relative_to(ROOT).as_posix()}:{block.line}")
    for path in PAGES
    for block in read_page(path.read_text(encoding="utf-8")).blocks
    if block.language == "python"
]


@pytest.mark.parametrize("code", BLOCKS)
def test_python_of_a_page_runs_on_the_results_of_a_run(finished, run_in, code):
    here = re.sub(r"P1A-P2A-P3A", "P1A-P2A", code).replace("results/demo", "results/ci").replace("demo-1103", "ci-1103")
    done = run_in(finished, sys.executable, "-c", here)
    assert done.returncode == 0, done.stderr
    # What is shown prints something.
    assert "print(" not in code or done.stdout.strip()
