"""Stored tables of an imagined experiment: what the figures are drawn from."""

from itertools import permutations
from pathlib import Path
from random import Random

import pytest

from rlphf.evaluate.schemas import CAPTIONS
from rlphf.evaluate.table_files import write_table
from rlphf.preferences import PREFERENCES, combinations

METHODS = ("vb", "pp", "psoups", "psoups_unprompted")
COMBINATIONS = (*combinations(["P1A", "P1B", "P2A", "P2B", "P3A", "P3B"]), "all")


def around(rng: Random, name: str, middle: float) -> dict:
    """A value with its interval."""
    value = middle + rng.uniform(-0.1, 0.1)
    return {name: value, "ci_low": value - rng.uniform(0.01, 0.1), "ci_high": value + rng.uniform(0.01, 0.1)}


def build_tables(folder: Path) -> Path:
    """Write the tables that figures read to `folder`."""
    rng = Random(1)
    rows: dict[str, list[dict]] = dict.fromkeys(CAPTIONS, [])
    rows["curves"] = [
        {"preference": p, "kind": "ppo", "step": step, "metric": metric, "value": start + step * rng.random()}
        for p in PREFERENCES
        for metric, start in (("score", 0), ("kl", 0), ("length", 40))
        for step in range(20)
    ]
    rows["reward_models"] = [
        {"preference": p, "split": split, "n": 96, "ceiling": 0.85} | around(rng, "accuracy", 0.8)
        for p in PREFERENCES
        for split in ("train", "test")
    ]
    rows["adapter_effects"] = [
        {"preference": p, "criterion": c, "before": 0.4, "after": 0.5} | around(rng, "delta", 0.4 if p == c else 0.0)
        for p in PREFERENCES
        for c in (*PREFERENCES, "helpfulness")
    ]
    rows["adapters"] = [
        {key: row[key] for key in ("preference", "before", "after", "delta", "ci_low", "ci_high")}
        | {"seed": 1, "kl": 3.0, "length_before": 40.0, "length_after": 41.0}
        for row in rows["adapter_effects"]
        if row["preference"] == row["criterion"]
    ]
    rows["methods"] = [
        {"method": m, "combination": c, "criterion": criterion, "n": 72} | around(rng, "mean", 0.3 + 0.15 * i)
        for i, m in enumerate(METHODS)
        for c in COMBINATIONS
        for criterion in ("mean", "helpfulness", *(PREFERENCES if c == "all" else ()))
    ]
    rows["win_rates"] = [
        {"method_a": a, "method_b": b, "combination": "all", "criterion": c, "wins": 5, "losses": 3, "ties": 0, "rate": 0.6}
        | around(rng, "rate_half_ties", 0.5)
        for a, b in permutations(METHODS, 2)
        for c in ("majority", "mean", "helpfulness")
    ]
    rows["matrix"] = [
        {key: row[key] for key in ("method_a", "method_b", "criterion", "wins", "losses", "ties", "rate")}
        | {"judge": judge, "paper_gpt4": None}
        | around(rng, "rate_half_ties", 0.5)
        for judge in ("oracle", "gold")
        for row in rows["win_rates"]
    ]
    rows["release_bugs"] = [
        {"mistake": m, "method": "psoups", "criterion": c, "against": against, "before": 0.7, "after": 0.6, "n": 96}
        | around(rng, "effect", -0.1)
        for m in ("random_reward_head", "factor_merge")
        for c in ("mean", "helpfulness")
        for against in ("without it", "pp")
    ]
    rows["front"] = [
        {"first": "P2A", "second": "P2B", "weight": i / 4, "criterion": criterion, "n": 72} | around(rng, "mean", 0.3 + i / 10)
        for i in range(5)
        for criterion in ("P2A", "P2B", "helpfulness")
    ]
    rows["budgets"] = [
        {"method": m, "trainings": 2, "pairs": 9, "updates": 3, "samples": 24, "seconds": 60.0 + i, "answer_ms": 5.0}
        for i, m in enumerate(METHODS)
    ]
    for name, found in rows.items():
        write_table(folder, name, found)
    return folder


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tables(tmp_path_factory.mktemp("tables"))
