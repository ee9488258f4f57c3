"""Stored tables of an imagined experiment: what the figures are drawn from."""

from itertools import permutations
from pathlib import Path
from random import Random

import pytest

from rlphf.evaluate.schemas import CAPTIONS, USER_TABLES
from rlphf.evaluate.table_files import write_table
from rlphf.preferences import PREFERENCES, combinations

METHODS = ("vb", "pp", "psoups", "psoups_unprompted")
SERVING = ("sft", "dpo", "prm", "pdpo_individual", "pdpo_cluster", "psoups_declared")
# Users: {group: ids}; every other one is of a kind.
USERS = {"majority": (1, 2, 3), "minority": (4, 5), "unseen": (6, 7)}
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
    rows |= user_tables(rng)
    for name, found in rows.items():
        write_table(folder, name, found)
    return folder


def user_tables(rng: Random) -> dict[str, list[dict]]:
    """Rows of the tables about users that figures read."""
    rows: dict[str, list[dict]] = {name: [] for name in USER_TABLES}
    answering = [m for m in SERVING if m != "prm"]
    everyone = [{"user": u, "group": group, "kind": f"kind {u % 2}"} for group, ids in USERS.items() for u in ids]
    populations = ("seen", *USERS)
    ceilings = dict(zip(populations, (0.8, 0.81, 0.78, 0.79), strict=True))
    rows["users_accuracy"] = [
        {"method": m, "population": p, "n_pairs": 60, "ceiling": ceilings[p], "seed": 1} | around(rng, "accuracy", 0.6)
        for m in SERVING
        for p in populations
    ]
    rows["users_scores"] = [
        {"method": m, "population": p, "criterion": c, "n": 24} | around(rng, "mean", 0.5)
        for m in answering
        for p in populations
        for c in ("score", "helpfulness")
    ]
    rows["users_win_rates"] = [
        {"method_a": a, "method_b": b, "population": p, "wins": 5, "losses": 3, "ties": 0, "rate": 0.6}
        | around(rng, "rate_half_ties", 0.5)
        for a, b in permutations(answering, 2)
        for p in populations
    ]
    rows["users_length"] = [
        {"method": m, **about, "n": 24, "tokens": 40 + rng.random(), "ci_low": 38.0, "ci_high": 43.0}
        for m in answering
        for about in everyone
    ]
    rows["users_map"] = [
        {"method": m, **about, "x": rng.gauss(0, 1), "y": rng.gauss(0, 1), "explained": 0.83}
        for m in ("pdpo_individual", "pdpo_cluster")
        for about in everyone
        if about["group"] != "unseen"
    ]
    rows["cold_start"] = [
        {"method": m, "pairs": count, "criterion": c, "n": 24} | around(rng, "mean", 0.5)
        for m, counts in {"pdpo_individual": (0, 5, 100), "psoups_declared": (0,), "psoups_inferred": (0, 5, 100)}.items()
        for count in counts
        for c in ("score", "helpfulness")
    ]
    varied = {
        "dpo.alpha": ("0.0", "0.5", "1.0"),
        "users.init": ("vocabulary", "uniform"),
        "population.train_pairs": ("10", "30", "120"),
    }
    rows["user_ablations"] = [
        {"setting": s, "value": v, "method": m, "population": p, "against": against, "n_pairs": 60} | around(rng, "effect", 0.6)
        for s, values in varied.items()
        for v in values
        for m, against in (("pdpo_individual", ""), ("dpo", ""), ("pdpo_individual", "dpo"))
        for p in populations
    ]
    return rows


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tables(tmp_path_factory.mktemp("tables"))
