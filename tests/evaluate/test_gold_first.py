"""Tables of a run without an oracle: the gold model's scores as chances against the backbone's answers."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.evaluate.judging import scored

from rlphf.config import load
from rlphf.data.records import PAIRS
from rlphf.errors import InputError
from rlphf.evaluate.judges.gold import gold_step
from rlphf.evaluate.scores import SCORES, chances, read_scores
from rlphf.evaluate.tables import all_tables, verdicts_of
from rlphf.files import read_parquet, write_parquet


def test_a_chance_is_the_sigmoid_of_the_difference_to_the_backbones_mean_score_on_the_prompt():
    cells = {("vb", ""): [[0.0, 2.0], [5.0, 5.0]], ("pp", "P1A"): [[1.0, 2.0], [4.0, 5.0]]}
    found = chances(scored({cell: {"P1A": values} for cell, values in cells.items()}), "vb")
    sigmoid = 1 / (1 + np.exp(-1))
    assert found.cell("pp", "P1A").values["P1A"] == pytest.approx(np.array([[0.5, sigmoid], [1 - sigmoid, 0.5]]))
    assert found.cell("vb", "P1A").values["P1A"] == pytest.approx(np.array([[1 - sigmoid, sigmoid], [0.5, 0.5]]))


def test_chances_need_the_backbones_scores_by_the_same_criterion():
    with pytest.raises(InputError, match="method vb.*: no scores by criterion P1B"):
        chances(scored({("vb", ""): {"P1A": [0.0]}, ("pp", "P1B"): {"P1B": [1.0]}}), "vb")


@pytest.fixture
def run(real_run, tiny_backbone: Path, make_reward) -> tuple[Path, Path]:
    """Configuration and seed folder of a run on real text that the gold model has judged."""
    config, folder, files = real_run(
        {"data": {"sources": [{"kind": "alpaca_eval", "path": "raw"}]}}, {"judges": ["gold"], "gold_raw": ["general"]}
    )
    for preference in ("P1A", "P3A", "P3B"):
        pair = {"id": preference, "prompt": "Why?", "chosen": "a", "rejected": "b", "preference": preference, "user": None}
        pairs = [pair | {"probability": 1.0, "source": "questions", "split": "train"}]
        write_parquet(folder / "pairs" / preference / "pairs.parquet", pa.Table.from_pylist(pairs, PAIRS))
        scores = [{"id": preference, "split": "train", "chosen": 1.0, "rejected": 0.0, "probability": 1.0}]
        write_parquet(folder / "reward" / preference / "scores.parquet", pa.Table.from_pylist(scores))
    out = verdicts_of("gold", load(config), folder)
    gold_step(config, folder / "prompts" / "prompts.parquet", files, tiny_backbone, make_reward(preference="gold"), out)
    return config, folder


def test_as_first_judge_it_scores_every_response_and_single_policies_by_their_own_preference(run):
    scores = read_scores(verdicts_of("gold", load(run[0]), run[1]))
    assert scores.cell("psoups", "P1A-P3A").samples == 2
    assert set(scores.cell("vb", "").values) == {"P1A", "P3A", "P3B", "helpfulness"}
    assert set(scores.cell("adapter", "P3B").values) == {"P3B", "helpfulness"}


def test_tables_without_an_oracle_have_the_backbone_at_a_half_and_every_row_in_0_to_1(run):
    tables = all_tables(load(run[0]), run[1])
    overall = {(r["method"], r["criterion"]): r for r in tables["methods"] if r["combination"] == "all"}
    assert overall["vb", "mean"]["mean"] == pytest.approx(0.5, abs=0.1)
    assert overall["psoups", "mean"]["mean"] != pytest.approx(overall["vb", "mean"]["mean"], abs=1e-3)
    assert all(0 <= row["mean"] <= 1 for row in tables["methods"])
    assert [(row["preference"], row["criterion"]) for row in tables["adapter_effects"][:2]] == [
        ("P1A", "P1A"),
        ("P1A", "helpfulness"),
    ]
    assert {row["judge"] for row in tables["averages"]} == {"gold"} and len(tables["adapters"]) == 3
    assert {row["pairs"] for row in tables["budgets"] if row["method"] == "psoups"} == {3}
    assert {row["source"] for row in tables["data"]} == {"questions"}


def test_all_its_scores_are_in_the_file(run):
    table = read_parquet(verdicts_of("gold", load(run[0]), run[1]), SCORES)
    # Three prompts and two samples: vb by four criteria, two methods for two combinations by three, six arms by two.
    assert table.num_rows == 6 * (4 + 2 * 2 * 3 + 6 * 2)


def test_every_figure_can_be_drawn_of_these_tables(run, drawn):
    drawn(all_tables(load(run[0]), run[1]))
