"""Tables of a run whose policies text rules reward and judge: scores as percentiles among the backbone's answers."""

from math import erf, sqrt
from pathlib import Path

import numpy as np
import pytest
from tests.evaluate.judging import scored

from rlphf.config import load
from rlphf.errors import InputError
from rlphf.evaluate.judges.rules import rules_step
from rlphf.evaluate.schemas import USER_TABLES
from rlphf.evaluate.scores import percentiles, read_scores
from rlphf.evaluate.summary import summary
from rlphf.evaluate.table_files import write_table
from rlphf.evaluate.tables import all_tables, verdicts_of


def test_a_percentile_is_that_of_a_normal_distribution_with_the_backbones_mean_and_deviation():
    answers = {("vb", ""): [[10.0, 20.0], [30.0, 40.0]], ("pp", "P2A"): [[25.0, 0.0], [60.0, 36.0]]}
    found = percentiles(scored({cell: {"P2A": values} for cell, values in answers.items()}), "vb")
    for cell, values in answers.items():
        wanted = [[(1 + erf((x - 25) / sqrt(125) / sqrt(2))) / 2 for x in row] for row in values]
        assert found.cell(*cell).values["P2A"] == pytest.approx(np.array(wanted))


def test_where_all_answers_of_the_backbone_score_alike_higher_is_all_and_lower_is_nothing():
    # The mean of three times 0.1 is a little more than 0.1.
    cells = {("vb", ""): [0.1, 0.1, 0.1], ("pp", "P3A"): [0.0, 0.1, 0.1], ("mod", "P3A"): [0.2, 0.1, 0.1]}
    found = percentiles(scored({cell: {"P3A": values} for cell, values in cells.items()}), "vb")
    assert [found.cell(*cell).values["P3A"].ravel().tolist() for cell in cells] == [[x, 0.5, 0.5] for x in (0.5, 0.0, 1.0)]


def test_percentiles_need_the_backbones_scores_by_the_same_criterion():
    with pytest.raises(InputError, match="method vb.*: no scores by criterion P1B"):
        percentiles(scored({("vb", ""): {"P1A": [0.0]}, ("pp", "P1B"): {"P1B": [1.0]}}), "vb")


@pytest.fixture
def run(real_run) -> tuple[Path, Path]:
    """Configuration and seed folder of such a run."""
    config, folder, files = real_run({"ppo": {"reward": "rule"}}, {"judges": ["rules"]})
    rules_step(config, folder / "prompts" / "prompts.parquet", files, verdicts_of("rules", load(config), folder))
    return config, folder


def test_as_first_judge_the_rules_score_every_response_and_single_policies(run):
    scores = read_scores(verdicts_of("rules", load(run[0]), run[1]))
    assert scores.cell("psoups", "P1A-P3A").samples == 2 and scores.cell("adapter", "P3B").samples == 2
    assert not scores.knows("helpfulness") and scores.knows("P1A")


def test_a_judge_without_helpfulness_leaves_it_out_of_every_table(run):
    tables = all_tables(load(run[0]), run[1])
    for name in ("methods", "differences", "win_rates", "matrix", "averages", "adapter_effects"):
        assert tables[name] and all(row["criterion"] != "helpfulness" for row in tables[name])
    overall = {
        row["method"]: row["mean"] for row in tables["methods"] if (row["combination"], row["criterion"]) == ("all", "mean")
    }
    assert overall["vb"] == pytest.approx(0.5, abs=0.1) and all(0 <= row["mean"] <= 1 for row in tables["methods"])
    # No mean is judged over a school year and a polarity; here they are percentiles, and tables of the first judge have one.
    assert {row["criterion"] for row in tables["averages"]} == {"majority"}


def test_without_reward_models_tables_have_no_pairs_and_no_accuracies(run):
    tables = all_tables(load(run[0]), run[1])
    assert tables["reward_models"] == tables["data"] == []
    assert {(row["method"], row["trainings"], row["pairs"]) for row in tables["budgets"]} == {
        ("vb", 0, 0),
        ("pp", 0, 0),
        ("psoups", 3, 0),
    }


def test_the_summary_names_no_reward_model_and_no_helpfulness(run, tmp_path):
    made = all_tables(load(run[0]), run[1]) | {name: [] for name in (*USER_TABLES, "claims")}
    for name, rows in made.items():
        write_table(tmp_path, name, rows)
    said = summary(tmp_path, Path("figures"), Path("soups"))
    assert "P1A elementary" in said and "reward model" not in said and "helpfulness" not in said


def test_every_figure_can_be_drawn_of_these_tables(run, drawn):
    drawn(all_tables(load(run[0]), run[1]))
