"""Tables of a run without an oracle: the gold model's scores as chances against the backbone's answers."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from rlphf.config import load
from rlphf.data.records import PAIRS, PROMPTS, RESPONSES
from rlphf.errors import InputError
from rlphf.evaluate.judges.gold import gold_step
from rlphf.evaluate.scores import SCORES, Scores, chances, read_scores
from rlphf.evaluate.table_files import write_table
from rlphf.evaluate.tables import all_tables, verdicts_of
from rlphf.figures import contests, plots
from rlphf.files import read_parquet, write_parquet

METHODS, COMBINATIONS = ("vb", "pp", "psoups"), ("P1A-P3A", "P1A-P3B")


def scored(method: str, combination: str, criterion: str, values: list[list[float]]) -> list[dict]:
    return [
        {"prompt_id": f"q{i}", "method": method, "combination": combination, "sample": k, "criterion": criterion, "score": value}
        for i, row in enumerate(values)
        for k, value in enumerate(row)
    ]


def test_a_chance_is_the_sigmoid_of_the_difference_to_the_backbones_mean_score_on_the_prompt():
    rows = scored("vb", "", "P1A", [[0.0, 2.0], [5.0, 5.0]]) + scored("pp", "P1A", "P1A", [[1.0, 2.0], [4.0, 5.0]])
    found = chances(Scores(pa.Table.from_pylist(rows, SCORES)), "vb")
    sigmoid = 1 / (1 + np.exp(-1))
    assert found.cell("pp", "P1A").values["P1A"] == pytest.approx(np.array([[0.5, sigmoid], [1 - sigmoid, 0.5]]))
    assert found.cell("vb", "P1A").values["P1A"] == pytest.approx(np.array([[1 - sigmoid, sigmoid], [0.5, 0.5]]))


def test_chances_need_the_backbones_scores_by_the_same_criterion():
    rows = scored("vb", "", "P1A", [[0.0]]) + scored("pp", "P1B", "P1B", [[1.0]])
    with pytest.raises(InputError, match="method vb.*: no scores by criterion P1B"):
        chances(Scores(pa.Table.from_pylist(rows, SCORES)), "vb")


@pytest.fixture
def run(tmp_path: Path, tiny_backbone: Path, make_reward) -> tuple[Path, Path]:
    """Configuration and seed folder of a run on real text that the gold model has judged."""
    settings = {
        "experiment": "real",
        "preferences": ["P1A", "P3A", "P3B"],
        "combination_preferences": ["P1A", "P3A", "P3B"],
        "prompts": {"source": "questions"},
        "annotator": {"kind": "rule"},
        "data": {"sources": [{"kind": "alpaca_eval", "path": "raw"}]},
        "user_evaluation": {"methods": []},
        "evaluation": {"judges": ["gold"], "methods": METHODS, "gold_raw": ["general"], "samples": 2, "bootstrap": 20},
    }
    config, folder = tmp_path / "config.yaml", tmp_path / "seed-1103"
    config.write_text(yaml.safe_dump(settings | {"evaluation": settings["evaluation"] | {"methods": list(METHODS)}}))
    asked = [{"id": f"q{i}", "prompt": f"Why {i}?", "topic": None, "source": "questions", "split": "test"} for i in range(3)]
    write_parquet(folder / "prompts" / "prompts.parquet", pa.Table.from_pylist(asked, PROMPTS))
    cells = {"vb": [("vb", "")]} | {name: [(name, c) for c in COMBINATIONS] for name in ("pp", "psoups")}
    cells["adapters"] = [(name, p) for name in ("base", "adapter") for p in ("P1A", "P3A", "P3B")]
    files = []
    for name, found in cells.items():
        rows = [
            {"prompt_id": f"q{i}", "method": method, "combination": c, "sample": k, "response": f"{method} {c} {k}."}
            | {"tokens": 4, "finished": True}
            for method, c in found
            for i in range(3)
            for k in range(2)
        ]
        files.append(folder / "responses" / name / "responses.parquet")
        write_parquet(files[-1], pa.Table.from_pylist(rows, RESPONSES))
    for preference in ("P1A", "P3A", "P3B"):
        pair = {"id": preference, "prompt": "Why?", "chosen": "a", "rejected": "b", "preference": preference, "user": None}
        pairs = [pair | {"probability": 1.0, "source": "questions", "split": "train"}]
        write_parquet(folder / "pairs" / preference / "pairs.parquet", pa.Table.from_pylist(pairs, PAIRS))
        scores = [{"id": preference, "split": "train", "chosen": 1.0, "rejected": 0.0, "probability": 1.0}]
        write_parquet(folder / "reward" / preference / "scores.parquet", pa.Table.from_pylist(scores))
    merges = [{"combination": c, "rule": "delta", "relative_error": 0.0} for c in COMBINATIONS]
    write_parquet(folder / "soups" / "merges.parquet", pa.Table.from_pylist(merges))
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


def test_every_figure_can_be_drawn_of_these_tables(run, tmp_path):
    for name, rows in all_tables(load(run[0]), run[1]).items():
        write_table(tmp_path / "tables", name, rows)
    for draw in (plots.curves, plots.adapters, plots.methods, plots.criteria, plots.tradeoff, plots.front, plots.costs):
        assert draw(tmp_path / "tables").axes or draw is plots.front
    for draw in (plots.adapter_effects, contests.win_rates, contests.judges, contests.release_bugs):
        draw(tmp_path / "tables").canvas.draw()
