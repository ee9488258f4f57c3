"""What methods are said to have cost is the sum of what their steps measured."""

import pytest

from rlphf.config import Experiment, parse
from rlphf.evaluate.budgets import budgets, shares

EXPERIMENT = parse(
    {
        "experiment": "test",
        "preferences": ["P1A", "P2A", "P3C"],
        "combination_preferences": ["P1A", "P2A"],
        "ppo": {"batch_size": 8},
        "mt": {"epochs": 2},
        "evaluation": {"methods": ["vb", "rlhf", "mt", "pmorl", "psoups", "mod"]},
    }
)
NAMES = ("P1A", "P2A", "P3C", "general")
PAIRS = dict(zip(NAMES, (10, 20, 40, 80), strict=True))
RAW = {"P2A": 500, "general": 900}


def rows(missing: str = "", experiment: Experiment = EXPERIMENT) -> dict[str, dict]:
    steps = {f"{kind}/{name}": 1.0 for kind in ("rollouts", "annotate") for name in NAMES}
    steps |= {f"{kind}/{name}": 10.0 for kind in ("reward", "ppo") for name in (*NAMES, "pmorl")}
    steps |= {"sft/mt": 100.0}
    steps.pop(missing, None)
    timings = [{"step": name, "seconds": seconds, "peak_mb": None} for name, seconds in steps.items()]
    trained = [("ppo", name, 4) for name in NAMES] + [("ppo", "pmorl", 6), ("sft", "mt", 9), ("reward", "P1A", 50)]
    curves = [
        {"kind": kind, "preference": name, "step": step, "metric": metric, "value": 0.0}
        for kind, name, count in trained
        # Transformers' trainers count from 1.
        for step in range(kind != "ppo", count + (kind != "ppo"))
        for metric in ("kl", "score")
    ]
    return {row["method"]: row for row in budgets(experiment, timings, curves, PAIRS, RAW, {"mod": 300}, {"mod": 0.6})}


def test_each_method_counts_its_own_models_pairs_updates_and_samples():
    found = {m: (r["trainings"], r["pairs"], r["updates"], r["samples"]) for m, r in rows().items()}
    assert found == {
        "vb": (0, 0, 0, 0),
        "rlhf": (2, 80, 4, 32),
        "mt": (1, 30, 9, 60),
        "pmorl": (2, 30, 6, 48),
        "psoups": (4, 30, 8, 64),
        "mod": (4, 30, 8, 64),
    }


def test_raw_pairs_count_where_they_are_learned_and_cost_no_rollouts():
    reward = EXPERIMENT.reward.model_copy(update={"raw": ["P2A"]})
    found = rows("rollouts/P2A", EXPERIMENT.model_copy(update={"reward": reward}))
    assert {method: row["pairs"] for method, row in found.items()} == {"vb": 0, "rlhf": 80} | dict.fromkeys(
        ("mt", "pmorl", "psoups", "mod"), 510
    )
    assert found["mt"]["samples"] == 1020 and found["psoups"]["seconds"] == 42


def test_seconds_are_those_of_all_steps_that_a_method_needs():
    found = rows()
    assert {m: r["seconds"] for m, r in found.items()} == {"vb": 0, "rlhf": 22, "mt": 104, "pmorl": 24, "psoups": 44, "mod": 44}
    assert found["mod"]["answer_ms"] == pytest.approx(2.0) and found["vb"]["answer_ms"] is None


def test_policies_that_trained_together_share_the_seconds():
    found = shares([{"step": "ppo/P1A+P2A", "seconds": 30.0}, {"step": "backbone", "seconds": 7.0}])
    assert found == {"ppo/P1A": 15.0, "ppo/P2A": 15.0, "backbone": 7.0}


def test_a_step_that_was_not_measured_leaves_the_sum_unknown():
    found = rows(missing="reward/P2A")
    assert found["psoups"]["seconds"] is None and found["mt"]["seconds"] == 104
