"""Table `release_bugs`: the arms of a small run whose answers are made by hand."""

from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from tests.train.choosing import row

from rlphf.data.records import PAIR_SCORES, PAIRS
from rlphf.evaluate.bootstrap import Bootstrap
from rlphf.evaluate.release_bugs import _accuracies, release_bugs, values
from rlphf.evaluate.scores import HELPFULNESS, MEAN, SCORES, read_scores
from rlphf.evaluate.tables import ORACLE
from rlphf.files import read_parquet, write_parquet


@pytest.fixture
def priced(finished_run, tmp_path: Path):
    """The run with two arms: one that answers at random, and one whose reward models know the leaked rows by heart."""
    _, seed_folder, experiment = finished_run
    (tmp_path / "seed-7").symlink_to(seed_folder)
    folder = tmp_path / "run"
    folder.mkdir()
    for part in ("judge", "pairs", "reward"):
        (folder / part).symlink_to(seed_folder / part)
    rows = [row for row in read_parquet(seed_folder / ORACLE, SCORES).to_pylist() if row["method"] == "psoups"]
    rng = Random(1)
    for mistake, change in (("random_reward_head", lambda x: x * rng.random()), ("duplicated_pairs", lambda x: x)):
        table = pa.Table.from_pylist([row | {"score": change(row["score"])} for row in rows], SCORES)
        write_parquet(folder / "mistakes" / mistake / ORACLE, table)
    for preference in experiment.combination_preferences:
        scored = read_parquet(seed_folder / "reward" / preference / "scores.parquet").to_pylist()
        leaked = [row | {"split": "leaked", "chosen": 1.0, "rejected": 0.0} for row in scored if row["split"] == "train"]
        path = folder / "mistakes" / "duplicated_pairs" / "reward" / preference / "scores.parquet"
        write_parquet(path, pa.Table.from_pylist(scored + leaked))
    update = {"priced": ["random_reward_head", "duplicated_pairs"]}
    return folder, experiment.model_copy(update=update)


@pytest.fixture
def rows(priced):
    folder, experiment = priced
    found = release_bugs(experiment, folder, ORACLE, Bootstrap(7, 200))
    return {(row["mistake"], row["method"], row["criterion"], row["against"]): row for row in found}


def test_a_method_is_compared_with_itself_prompt_by_prompt(priced, rows):
    folder, experiment = priced
    clean, made = (read_scores(f / ORACLE) for f in (folder, folder / "mistakes" / "random_reward_head"))
    for criterion in (MEAN, HELPFULNESS):
        row = rows["random_reward_head", "psoups", criterion, "without it"]
        old, new = (values(scores, "psoups", criterion, experiment) for scores in (clean, made))
        assert row["before"] == pytest.approx(old.mean()) and row["after"] == pytest.approx(new.mean())
        assert row["effect"] == pytest.approx((new - old).mean()) and row["n"] == len(old)
        assert row["ci_low"] < row["effect"] < row["ci_high"] < 0


def test_soups_are_also_compared_with_pp_as_it_is(priced, rows):
    folder, experiment = priced
    row = rows["random_reward_head", "psoups", MEAN, "pp"]
    assert row["before"] == pytest.approx(values(read_scores(folder / ORACLE), "pp", MEAN, experiment).mean())
    assert row["after"] == pytest.approx(rows["random_reward_head", "psoups", MEAN, "without it"]["after"])


def test_what_changes_nothing_has_no_effect(rows):
    row = rows["duplicated_pairs", "psoups", MEAN, "without it"]
    assert row["effect"] == row["ci_low"] == row["ci_high"] == 0
    assert rows["duplicated_pairs", "reward models", "accuracy", "without it"]["effect"] == 0


def test_accuracy_on_held_out_repeats_stands_against_that_on_unseen_pairs(priced, rows):
    folder, experiment = priced
    row = rows["duplicated_pairs", "reward models", "accuracy", "unseen pairs"]
    test = [
        (np.sign(r["chosen"] - r["rejected"]) + 1) / 2
        for p in experiment.combination_preferences
        for r in read_parquet(folder / "reward" / p / "scores.parquet").to_pylist()
        if r["split"] == "test"
    ]
    assert row["before"] == pytest.approx(np.mean(test)) and row["after"] == 1.0 and row["n"] == 120
    assert 0 < row["ci_low"] < row["effect"] < row["ci_high"]


def test_held_out_repeats_and_unseen_pairs_are_drawn_apart_also_where_they_are_equally_many(tmp_path):
    # Both sides are right on every other of ten prompts: drawn alike, each resample's gap would be 0.
    splits = [(split, i) for split in ("test", "leaked") for i in range(10)]
    pairs = [row(i + 10 * (split == "test"), f"{split} {i}?", "Yes.", "No.", None, "test") for split, i in splits]
    scored = [
        {"id": pair["id"], "split": split, "chosen": float(i % 2), "rejected": 0.5, "probability": None}
        for pair, (split, i) in zip(pairs, splits, strict=True)
    ]
    write_parquet(tmp_path / "pairs" / "P1A" / "pairs.parquet", pa.Table.from_pylist(pairs, PAIRS))
    write_parquet(tmp_path / "reward" / "P1A" / "scores.parquet", pa.Table.from_pylist(scored, PAIR_SCORES))
    _, gap = _accuracies(["P1A"], tmp_path, tmp_path, Bootstrap(7, 200))
    assert gap["effect"] == 0 and gap["ci_low"] < -0.2 and gap["ci_high"] > 0.2


def test_a_baseline_in_another_precision_is_priced_as_the_change_of_the_difference(priced):
    folder, experiment = priced
    rows = read_parquet(folder / ORACLE, SCORES).to_pylist()
    halved = [
        r | {"score": r["score"] / (2 if r["method"] == "pp" else 1)} for r in rows if r["method"] in ("vb", "pp", "psoups")
    ]
    write_parquet(folder / "mistakes" / "low_precision_baselines" / ORACLE, pa.Table.from_pylist(halved, SCORES))
    experiment = experiment.model_copy(update={"priced": ["low_precision_baselines"]})
    found = {(r["method"], r["criterion"]): r for r in release_bugs(experiment, folder, ORACLE, Bootstrap(7, 200))}
    assert {method for method, _ in found} == {"vb", "pp", "psoups", "psoups - pp"}
    assert found["psoups - pp", MEAN]["effect"] == pytest.approx(-found["pp", MEAN]["effect"])


def test_an_experiment_that_prices_nothing_has_no_rows(finished_run):
    _, seed_folder, experiment = finished_run
    assert release_bugs(experiment, seed_folder, ORACLE, Bootstrap(7, 200)) == []
