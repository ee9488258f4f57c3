"""A small run as its steps leave it on disk: testbed responses that obey preferences more or less often."""

import json
from collections.abc import Callable
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest
import yaml

from rlphf.config import Experiment, load
from rlphf.data.records import PAIRS, PROMPTS, RESPONSES
from rlphf.derived import combinations_of
from rlphf.evaluate.judges.oracle import oracle_step
from rlphf.evaluate.judges.rules import rules_step
from rlphf.evaluate.table_files import write_table
from rlphf.evaluate.tables import verdicts_of
from rlphf.figures import contests, plots
from rlphf.files import write_parquet
from rlphf.preferences import members
from rlphf.soup.wanted import front_weights
from rlphf.testbed.language import draw_plan, realise
from rlphf.testbed.prompts import prompts

METHODS = ["vb", "rlhf", "pp", "pmorl", "psoups", "psoups_unprompted"]
OBEDIENCE = {
    "vb": 0.0,
    "pp": 0.4,
    "psoups": 0.9,
    "psoups_unprompted": 0.7,
    "rlhf": 0.2,
    "pmorl": 0.6,
    "base": 0.4,
    "adapter": 0.95,
}


def answers(rng: Random, asked: list[dict], method: str, combination: str) -> list[dict]:
    """Return RESPONSES rows: one answer to each prompt, obeying each preference as often as the method does."""
    rows = []
    for prompt in asked:
        wanted = members(combination) if combination else []
        text = realise(draw_plan(rng, prompt["topic"], [p for p in wanted if rng.random() < OBEDIENCE[method]]))
        row = {"prompt_id": prompt["id"], "method": method, "combination": combination, "sample": 0, "response": text}
        rows.append(row | {"tokens": len(text.split()), "finished": True})
    return rows


def write_lines(path: Path, lines: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def build_run(folder: Path) -> tuple[Path, Path, Experiment]:
    """Make a run in `folder`; return its configuration file, its seed folder and the experiment."""
    config, seed_folder = folder / "config.yaml", folder / "seed-7"
    settings = {
        "experiment": "synthetic",
        "seed": 7,
        "evaluation": {
            "bootstrap": 200,
            "methods": METHODS,
            "judges": ["oracle", "rules"],
            "front": ["P2A", "P2B"],
            "front_points": 3,
        },
    }
    config.write_text(yaml.safe_dump(settings))
    experiment = load(config)
    rng = Random(7)
    asked = prompts(experiment.testbed, experiment.seed)
    write_parquet(seed_folder / "prompts" / "prompts.parquet", asked)
    held_out = [row for row in asked.to_pylist() if row["split"] == "test"][::3]
    rows = {method: answers(rng, held_out, method, "") for method in ("vb", "rlhf")}
    for method in METHODS[2:]:
        rows[method] = [row for c in combinations_of(experiment) for row in answers(rng, held_out, method, c)]
    rows["adapters"] = answers(rng, held_out, "base", "")
    rows["adapters"] += [row for m in ("base", "adapter") for p in experiment.preferences for row in answers(rng, held_out, m, p)]
    rows["front"] = [
        row | {"method": "front", "combination": name}
        for name, weights in front_weights(experiment).items()
        for row in answers(rng, held_out, "adapter", max(weights, key=lambda p: weights[p]))
    ]
    for name, found in rows.items():
        write_parquet(seed_folder / "responses" / name / "responses.parquet", pa.Table.from_pylist(found, RESPONSES))
    for preference in experiment.preferences:
        _training(seed_folder, preference, rng)
    merges = [
        {"combination": c, "rule": rule, "relative_error": error}
        for c in combinations_of(experiment)
        for rule, error in (("delta", 0.0), ("factor", 0.1))
    ]
    write_parquet(seed_folder / "soups" / "merges.parquet", pa.Table.from_pylist(merges))
    benchmarks = {"prompts": "0.41\t0:00:00\tNA", "ppo/P1A": "61.5\t0:01:01\t812.25", "users/judge": "2\t0:00:02\t1"}
    for step, line in benchmarks.items():
        path = seed_folder / "benchmarks" / f"{step}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"s\th:m:s\tmax_rss\n{line}\n")
    responses = [seed_folder / "responses" / name / "responses.parquet" for name in rows]
    for judge, made in (("oracle", oracle_step), ("rules", rules_step)):
        made(config, seed_folder / "prompts" / "prompts.parquet", responses, verdicts_of(judge, experiment, seed_folder))
    return config, seed_folder, experiment


def _training(seed_folder: Path, preference: str, rng: Random) -> None:
    pairs, scored = [], []
    for number in range(40):
        about = {"id": f"{preference}-{number}", "split": ("train", "test")[number % 2], "probability": rng.uniform(0.5, 1)}
        pair = {"prompt": f"question {number // 4}", "chosen": "a", "rejected": "b", "preference": preference}
        pairs.append(about | pair | {"user": None, "source": "testbed"})
        scored.append(about | {"chosen": rng.gauss(1, 1), "rejected": rng.gauss(0, 1)})
    write_parquet(seed_folder / "pairs" / preference / "pairs.parquet", pa.Table.from_pylist(pairs, PAIRS))
    write_parquet(seed_folder / "reward" / preference / "scores.parquet", pa.Table.from_pylist(scored))
    write_lines(
        seed_folder / "ppo" / preference / "metrics.jsonl",
        [
            {
                "step": step,
                "time": 0,
                "metrics": {"score": step / 9 + rng.random(), "kl": step / 2, "length": 40 + rng.randint(0, 9)},
            }
            for step in range(10)
        ],
    )
    write_lines(seed_folder / "reward" / preference / "metrics.jsonl", [{"step": 5, "time": 0, "metrics": {"loss": 0.6}}])


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Experiment]:
    """Configuration file, seed folder and experiment of a run that has been judged."""
    return build_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def real_run(tmp_path: Path) -> Callable[[dict, dict], tuple[Path, Path, list[Path]]]:
    """Make a run on real text, of VB, PP and P-SOUPS, with further settings and further ones of `evaluation`.

    It returns the configuration file, the seed folder and the files of the responses, which no judge has scored yet.
    """

    def make(settings: dict, evaluation: dict) -> tuple[Path, Path, list[Path]]:
        config, folder = tmp_path / "config.yaml", tmp_path / "seed-1103"
        own: dict = {"experiment": "real", "prompts": {"source": "questions"}, "annotator": {"kind": "rule"}}
        own |= {name: ["P1A", "P3A", "P3B"] for name in ("preferences", "combination_preferences")}
        own["evaluation"] = {"methods": ["vb", "pp", "psoups"], "samples": 2, "bootstrap": 20} | evaluation
        config.write_text(yaml.safe_dump(own | {"user_evaluation": {"methods": []}} | settings))
        asked = [{"id": f"q{i}", "prompt": f"Why {i}?", "topic": None, "source": "questions", "split": "test"} for i in range(3)]
        write_parquet(folder / "prompts" / "prompts.parquet", pa.Table.from_pylist(asked, PROMPTS))
        combined = combinations_of(load(config))
        cells = {"vb": [("vb", "")]} | {name: [(name, c) for c in combined] for name in ("pp", "psoups")}
        cells["adapters"] = [(name, p) for name in ("base", "adapter") for p in own["preferences"]]
        for name, found in cells.items():
            rows = [
                {"prompt_id": f"q{i}", "method": method, "combination": c, "sample": k, "response": f"{method} {c} {k}."}
                | {"tokens": 4, "finished": True}
                for method, c in found
                for i in range(3)
                for k in range(2)
            ]
            write_parquet(folder / "responses" / name / "responses.parquet", pa.Table.from_pylist(rows, RESPONSES))
        merges = [{"combination": c, "rule": "delta", "relative_error": 0.0} for c in combined]
        write_parquet(folder / "soups" / "merges.parquet", pa.Table.from_pylist(merges))
        return config, folder, [folder / "responses" / name / "responses.parquet" for name in cells]

    return make


@pytest.fixture
def drawn(tmp_path: Path) -> Callable[[dict[str, list[dict]]], None]:
    """Draw every figure about preferences of tables {name: rows}."""

    def draw(tables: dict[str, list[dict]]) -> None:
        for name, rows in tables.items():
            write_table(tmp_path / "tables", name, rows)
        for figure in (plots.curves, plots.adapters, plots.methods, plots.criteria, plots.tradeoff, plots.front, plots.costs):
            figure(tmp_path / "tables").canvas.draw()
        for figure in (plots.adapter_effects, contests.win_rates, contests.judges, contests.release_bugs):
            figure(tmp_path / "tables").canvas.draw()

    return draw
