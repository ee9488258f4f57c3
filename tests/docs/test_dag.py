"""Claims about the picture of the DAG; that it is the DAG's, tests/workflow/test_picture.py says."""

import pytest
from docs.dag import END, START, picture, placed, read_graph, thinned

MERMAID = """\
---
title: DAG
---
flowchart TB
\tid0[all]
\tid1[tables]
\tid2[ppo]
\tid3[ppo_P1A_P2A]
\tid4[reward]
\tstyle id0 fill:#D95757,stroke-width:2px,color:#333333
\tid1 --> id0
\tid4 --> id1
\tid2 --> id1
\tid3 --> id1
\tid4 --> id2
\tid4 --> id3
"""


def test_policies_that_train_together_are_one_rule_and_all_is_left_out():
    assert read_graph(MERMAID) == {("reward", "tables"), ("ppo", "tables"), ("reward", "ppo")}


def test_an_edge_that_a_longer_way_says_is_left_out_and_no_other():
    long = {("a", "b"), ("b", "c"), ("c", "d")}
    assert thinned(long | {("a", "c"), ("a", "d"), ("b", "d")}) == long
    assert thinned({("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")}) == {("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")}


def test_rules_stand_in_the_group_of_their_file(tmp_path):
    (tmp_path / "models.smk").write_text("rule reward:\n    input: 1\n\n\nrule ppo:\n    input: 1\n")
    (tmp_path / "evaluation.smk").write_text("rule tables:\n    input: 1\n\n\nrule other:\n    input: 1\n")
    lines = picture(MERMAID, tmp_path).splitlines()
    assert lines[:3] == [START.strip(), "```mermaid", "flowchart TB"] and lines[-2:] == ["```", END.strip()]
    assert lines[3:-2] == [
        '  subgraph evaluation_smk["evaluation.smk"]',
        "    tables",
        "  end",
        '  subgraph models_smk["models.smk"]',
        "    reward",
        "    ppo",
        "  end",
        "  ppo --> tables",
        "  reward --> ppo",
    ]


def test_the_picture_takes_the_place_between_its_marks():
    assert placed(f"before\n{START}old\n{END}after\n", f"{START}new\n{END}") == f"before\n{START}new\n{END}after\n"


@pytest.mark.parametrize("page", ["", START, END, f"{START}{END}{START}{END}"])
def test_a_page_without_one_place_for_it_is_refused(page):
    with pytest.raises(ValueError, match="no place"):
        placed(page, "new")
