"""The tables about users, from a run's folder as its steps leave it."""

import csv
import shutil
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest
import torch
import yaml
from tests.train.choosing import row
from tests.users.serving import person

from rlphf.config import load
from rlphf.data.people import MAJORITY, MINORITY, PEOPLE, UNSEEN
from rlphf.data.records import PAIRS
from rlphf.errors import InputError
from rlphf.evaluate.claims import Claim, evaluate
from rlphf.evaluate.schemas import SCHEMAS, USER_TABLES
from rlphf.evaluate.table_files import formatted, read_table
from rlphf.evaluate.user_tables import user_tables, user_tables_step
from rlphf.files import read_json, sha256, write_json, write_parquet, write_text
from rlphf.settings_users import Users
from rlphf.testbed.users import USERS
from rlphf.users.model import new_user_model, save_user_model
from rlphf.users.records import ANSWERS, COLD_SCORES, SCORED, USER_SCORES

METHODS = ["sft", "dpo", "pdpo_individual", "psoups_inferred"]
# How often a method orders a pair correctly, and how well it answers.
SKILL = {"sft": 0.0, "dpo": 0.6, "pdpo_individual": 0.9, "pdpo_cluster": 0.8, "psoups_inferred": 0.75}
POPULATION = [
    *(person(i, MAJORITY, P1A=0.6, P3A=0.4) for i in (1, 2, 3)),
    *(person(i, MINORITY, P1B=1.0) for i in (4, 5)),
    person(6, UNSEEN, P1B=1.0),
]


def write_users(folder: Path, rng: Random, methods: list[str], schema: pa.Schema, answers: bool, first: int = 0) -> None:
    """Write who the users are, what they chose, and what methods make of it, in `folder`, which is a run's folder `users`.

    Ids of pairs begin at `first`.
    """
    write_parquet(folder / "pairs" / "users.parquet", pa.Table.from_pylist(POPULATION, schema))
    pairs = [
        row(first + 10 * u["id"] + k, f"Question {k}?", "Yes.", "No.", u["id"], "test") | {"probability": 0.4 + 0.1 * (k % 5)}
        for u in POPULATION
        for k in range(8)
    ]
    write_parquet(folder / "pairs" / "pairs.parquet", pa.Table.from_pylist(pairs, PAIRS))
    for method in methods:
        scored = [
            {key: pair[key] for key in ("id", "split", "user", "probability")}
            | {"own": (1.0 if rng.random() < SKILL[method] else -1.0) if SKILL[method] else 0.0, "generic": 0.0}
            for pair in pairs
        ]
        write_parquet(folder / "answers" / method / "scores.parquet", pa.Table.from_pylist(scored, SCORED))
        keys = [
            {"prompt_id": f"q{q}", "method": method, "user": u["id"], "sample": 0} for u in POPULATION for q in range(4 * answers)
        ]
        found = [key | {"response": "Yes.", "tokens": rng.randint(3, 9), "finished": True} for key in keys]
        write_parquet(folder / "answers" / method / "answers.parquet", pa.Table.from_pylist(found, ANSWERS))


def judged(methods: list[str], rng: Random) -> list[dict]:
    return [
        {"prompt_id": f"q{q}", "method": method, "user": u["id"], "sample": 0}
        | {"score": (SKILL[method] + rng.random()) / 2, "helpfulness": rng.random()}
        for method in methods
        for u in POPULATION
        for q in range(4)
    ]


def write_run(folder: Path) -> tuple[Path, Path]:
    """Write a run of METHODS with a variation of alpha and one of the population; return its configuration and seed folder."""
    rng, seed_folder = Random(1), folder / "seed-7"
    raw = {"experiment": "t", "seed": 7, "evaluation": {"bootstrap": 100}, "user_evaluation": {"methods": METHODS}}
    raw |= {"ablations": {"dpo.alpha": [0.1], "population.train_pairs": [5]}, "users": {"tokens": 2}}
    (folder / "config.yaml").write_text(yaml.safe_dump(raw))
    users = seed_folder / "users"
    write_users(users, rng, METHODS, USERS, True)
    write_parquet(users / "judge" / "oracle" / "scores.parquet", pa.Table.from_pylist(judged(METHODS, rng), USER_SCORES))
    cold = [r | {"pairs": pairs} for pairs in (0, 5) for r in judged(["pdpo_individual"], rng) if r["user"] == 6]
    write_parquet(users / "cold_start" / "scores.parquet", pa.Table.from_pylist(cold, COLD_SCORES))
    write_json(users / "cold_start" / "record.json", {"tags": {"pdpo_individual_seconds": "2.5"}})
    model = new_user_model(Users(tokens=2), [1, 2, 3, 4, 5], torch.randn(30, 4, generator=torch.Generator().manual_seed(1)), 1)
    save_user_model(model, users / "models" / "individual", {"backbone_sha256": "x"})
    write_text(users / "soups" / "inferred" / "1" / "recipe.yaml", "rule: delta\n")
    write_text(seed_folder / "benchmarks" / "users" / "models" / "individual.tsv", "s\th:m:s\tmax_rss\n61.5\t0:01:01\t80.2\n")
    variations = {"dpo.alpha-0.1": ["pdpo_individual"], "population.train_pairs-5": ["dpo", "pdpo_individual", "pdpo_cluster"]}
    for name, methods in variations.items():
        own = seed_folder / "ablations" / name / "users"
        if name.startswith("population"):
            write_users(own, rng, methods, PEOPLE, False, first=500)
        else:
            write_users(own, rng, methods, PEOPLE, False)
            shutil.rmtree(own / "pairs")
    return folder / "config.yaml", seed_folder


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> tuple[Path, Path]:
    return write_run(tmp_path_factory.mktemp("users"))


@pytest.fixture(scope="module")
def tables(run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("tables")
    user_tables_step(*run, out)
    return out


@pytest.mark.parametrize("name", USER_TABLES)
def test_every_table_has_rows_of_its_schema_written_three_times(tables: Path, name: str) -> None:
    rows = read_table(tables, name)
    assert rows and list(rows[0]) == SCHEMAS[name].names
    keys = [f.name for f in SCHEMAS[name] if pa.types.is_string(f.type) or f.name in ("user", "pairs")]
    assert len({tuple(row[key] for key in keys) for row in rows}) == len(rows)
    with (tables / f"{name}.csv").open(newline="") as stream:
        header, *lines = csv.reader(stream)
    assert header == SCHEMAS[name].names and lines == [[formatted(value) for value in row.values()] for row in rows]
    assert len((tables / f"{name}.md").read_text().splitlines()) == len(rows) + 4


def test_tables_have_the_same_bytes_when_made_again(run, tables: Path, tmp_path: Path) -> None:
    user_tables_step(*run, tmp_path)
    names = [f"{name}.{kind}" for name in USER_TABLES for kind in ("parquet", "csv", "md")]
    assert all(sha256(tmp_path / name) == sha256(tables / name) for name in names)
    record = read_json(tmp_path / "users" / "record.json")
    assert record["status"] == "finished" and len(record["outputs"]) == len(names) == 30
    read = {f"users/answers/{name}/{kind}.parquet" for name in METHODS for kind in ("answers", "scores")}
    read |= {f"users/{name}.parquet" for name in ("pairs/users", "pairs/pairs", "judge/oracle/scores", "cold_start/scores")}
    of_train_pairs = {f"pairs/{name}" for name in ("users", "pairs")}
    of_train_pairs |= {f"answers/{name}/scores" for name in ("dpo", "pdpo_individual", "pdpo_cluster")}
    read |= {f"ablations/population.train_pairs-5/users/{name}.parquet" for name in of_train_pairs}
    read |= {"ablations/dpo.alpha-0.1/users/answers/pdpo_individual/scores.parquet"}
    assert read <= set(record["inputs"])
    assert all("/models/" in name for name in set(record["inputs"]) - read)


def test_every_table_speaks_for_the_methods_and_populations_that_there_are(tables: Path) -> None:
    accuracy = {(row["method"], row["population"]): row for row in read_table(tables, "users_accuracy")}
    assert accuracy.keys() == {(m, p) for m in METHODS for p in ("seen", "majority", "minority", "unseen")}
    assert accuracy["sft", "seen"]["accuracy"] == 0.5 and accuracy["sft", "seen"]["n_pairs"] == 40
    assert accuracy["pdpo_individual", "seen"]["accuracy"] > accuracy["dpo", "seen"]["accuracy"]
    # Probabilities are 0.4, 0.5, ..., 0.8, and again 0.4, 0.5, 0.6.
    assert accuracy["dpo", "unseen"]["ceiling"] == pytest.approx((0.6 + 0.5 + 0.6 + 0.7 + 0.8 + 0.6 + 0.5 + 0.6) / 8)
    assert {row["method"] for row in read_table(tables, "users_scores")} == set(METHODS)
    assert {row["criterion"] for row in read_table(tables, "users_differences")} == {"accuracy", "score", "helpfulness"}
    assert len(read_table(tables, "users_length")) == len(METHODS) * len(POPULATION)
    costs = {row["method"]: row for row in read_table(tables, "users_cost")}
    assert costs["pdpo_individual"] == {"method": "pdpo_individual", "bytes_per_user": 40} | {
        "training_seconds": 61.5,
        "new_user_seconds": 2.5,
    }
    assert [row["user"] for row in read_table(tables, "users_map")] == [1, 2, 3, 4, 5]
    assert {(row["method"], row["pairs"]) for row in read_table(tables, "cold_start")} == {("pdpo_individual", n) for n in (0, 5)}


def test_a_variation_has_its_accuracy_and_what_it_differs_from_what_was_trained_alike(tables: Path) -> None:
    rows = read_table(tables, "user_ablations")
    found = {(row["setting"], row["value"], row["method"], row["against"]) for row in rows}
    three = ("dpo", "pdpo_individual", "pdpo_cluster")
    assert found == {("dpo.alpha", "0.1", "pdpo_individual", "")} | {
        ("population.train_pairs", "5", a, b) for a in three for b in ("", *three) if a != b
    }
    each = {(r["method"], r["against"]): r["effect"] for r in rows if r["setting"][0] == "p" and r["population"] == "seen"}
    gap = each["pdpo_individual", ""] - each["dpo", ""]
    assert each["pdpo_individual", "dpo"] == pytest.approx(gap) and gap > 0


def test_times_of_steps_about_users_are_theirs_alone(run, tables: Path) -> None:
    write_text(run[1] / "benchmarks" / "ppo" / "P1A.tsv", "s\th:m:s\tmax_rss\n1\t0:00:01\tNA\n")
    found = user_tables(load(run[0]), run[1])["users_timings"]
    assert found == read_table(tables, "users_timings") == [{"step": "users/models/individual", "seconds": 61.5, "peak_mb": 80.2}]


def test_a_claim_may_be_about_a_row_of_these_tables(run) -> None:
    config, seed_folder = run
    where = {"method_a": "pdpo_individual", "method_b": "sft", "population": "seen", "criterion": "accuracy"}
    claim = Claim(claim="users", statement="P-DPO knows its users.", table="users_differences", where=where, effect="difference")
    number = {"setting": "dpo.alpha", "value": "0.1", "against": "", "population": "unseen"}
    other = claim.model_copy(update={"claim": "alpha", "table": "user_ablations", "where": number, "effect": "effect"})
    rows = evaluate([claim, other], [user_tables(load(config), seed_folder)])
    assert [(row["verdict"], row["seeds"]) for row in rows] == [("supported", 1)] * 2


def test_an_experiment_without_methods_of_users_has_empty_tables(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("{experiment: t, ablations: {dpo.alpha: [0.1]}}")
    user_tables_step(tmp_path / "config.yaml", tmp_path / "seed-1103", tmp_path / "tables")
    assert all(read_table(tmp_path / "tables", name) == [] for name in USER_TABLES)


def test_users_of_raw_data_are_neither_judged_nor_new(run, tmp_path: Path) -> None:
    config, seed_folder = run
    shutil.copytree(seed_folder, tmp_path / "seed-7")
    users = tmp_path / "seed-7" / "users"
    (users / "pairs").rename(users / "raw")
    for name in ("judge", "cold_start"):
        shutil.rmtree(users / name)
    raw = yaml.safe_load(config.read_text()) | {"user_data": {"source": "prism", "path": "raw/prism"}}
    raw |= {"user_evaluation": {"methods": METHODS[:3]}, "ablations": {"dpo.alpha": [0.1]}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(raw))
    found = user_tables(load(tmp_path / "config.yaml"), tmp_path / "seed-7")
    empty = {name for name, rows in found.items() if not rows}
    assert empty == {"users_scores", "users_win_rates", "cold_start"}
    assert {row["criterion"] for row in found["users_differences"]} == {"accuracy"}


def test_a_run_that_has_not_answered_is_refused_and_no_table_written(run, tmp_path: Path) -> None:
    config, seed_folder = run
    shutil.copytree(seed_folder, tmp_path / "seed-7")
    (tmp_path / "seed-7" / "users" / "answers" / "dpo" / "scores.parquet").unlink()
    with pytest.raises(InputError, match="answers/dpo/scores.parquet does not exist; run the step"):
        user_tables_step(config, tmp_path / "seed-7", tmp_path / "tables")
    assert not list((tmp_path / "tables").glob("*.parquet"))
