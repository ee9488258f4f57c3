"""The claim that the picture in docs/architecture.md is the graph of the demo's rules."""

import pytest
from docs.dag import picture, placed
from tests.workflow.conftest import ROOT

pytestmark = pytest.mark.workflow


def test_picture_of_the_dag_is_what_make_docs_draws(clean, snakemake):
    done = snakemake(clean, "--rulegraph", "mermaid-js")
    assert done.returncode == 0, done.stderr
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert page == placed(page, picture(done.stdout, clean / "workflow" / "rules"))
