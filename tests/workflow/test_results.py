"""Claims about what a finished run leaves behind, made on one real run of the smallest experiment."""

import csv
import json
import re
import sqlite3
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from tests.workflow.made import outputs

from rlphf.files import sha256

pytestmark = pytest.mark.workflow

COLUMNS = {
    "data": "source preference read kept train validation test dropped reason",
    "reward_models": "preference split n accuracy ceiling ci_low ci_high",
    "adapters": "preference seed before after delta ci_low ci_high kl length_before length_after",
    "methods": "method combination criterion mean ci_low ci_high n",
    "win_rates": "method_a method_b combination criterion wins losses ties rate rate_half_ties ci_low ci_high",
    "claims": "claim statement table effect ci_low ci_high direction threshold verdict seeds",
    "matrix": "judge method_a method_b criterion wins losses ties rate rate_half_ties ci_low ci_high paper_gpt4",
    "averages": "judge method criterion opponents rate rate_half_ties ci_low ci_high paper_gpt4 paper_humans",
    "agreement": "judge_a judge_b criterion n agreement decided agreement_decided ci_low ci_high",
    "swaps": "judge criterion n consistent ci_low ci_high prefers_first malformed",
    "front": "first second weight criterion mean ci_low ci_high n",
    "budgets": "method trainings pairs updates samples seconds answer_ms",
    "merges": "combination rule relative_error score",
    "timings": "step seconds peak_mb",
    "differences": "method_a method_b combination criterion difference ci_low ci_high n",
    "adapter_effects": "preference criterion before after delta ci_low ci_high",
    "curves": "preference kind step metric value",
}
METHODS = ["vb", "rlhf", "pp", "mt", "pmorl", "psoups", "psoups_ties", "mod"]
SEED = Path("results/ci/seed-1103")
SOUP = SEED / "soups" / "P1A-P2A"


def records(folder: Path) -> dict[str, dict]:
    """Return {path: record} of every step."""
    found = sorted(folder.glob("results/ci/**/record.json"))
    return {path.relative_to(folder).as_posix(): json.loads(path.read_text()) for path in found if ".earlier" not in path.parts}


@pytest.mark.parametrize("name", COLUMNS)
def test_table_is_there_three_times_with_its_columns_and_rows(finished, name):
    folder, columns = finished / "results" / "ci" / "tables", COLUMNS[name].split()
    table = pq.read_table(folder / f"{name}.parquet")
    rows = list(csv.reader((folder / f"{name}.csv").open(newline="")))
    text = [line.split("|") for line in (folder / f"{name}.md").read_text().splitlines() if line.startswith("|")]
    assert table.column_names == rows[0] == [cell.strip() for cell in text[0][1:-1]] == columns
    assert len(table) == len(rows) - 1 == len(text) - 2 > 0


def test_tables_speak_for_every_preference_method_and_combination(finished):
    tables = {name: pq.read_table(finished / "results" / "ci" / "tables" / f"{name}.parquet").to_pylist() for name in COLUMNS}
    assert {row["preference"] for row in tables["adapters"]} == {"P1A", "P2A"}
    assert {row["seed"] for row in tables["adapters"]} == {1103}
    assert {row["preference"] for row in tables["reward_models"]} == {"P1A", "P2A", "general", "pmorl", "gold"}
    assert {row["split"] for row in tables["reward_models"]} == {"train", "validation", "test"}
    assert {row["method"] for row in tables["methods"]} == set(METHODS)
    assert {row["combination"] for row in tables["methods"]} == {"P1A-P2A", "all"}
    assert len({(row["method_a"], row["method_b"]) for row in tables["win_rates"]}) == len(METHODS) * (len(METHODS) - 1)
    scores = {row["rule"]: row["score"] for row in tables["merges"] if row["combination"] == "P1A-P2A"}
    assert scores.keys() >= {"delta", "factor", "ties"} and scores["factor"] is None
    assert scores["delta"] is not None and scores["ties"] is not None
    assert {row["judge"] for row in tables["matrix"]} == {"oracle", "gold", "rules"}
    assert {(row["judge_a"], row["judge_b"]) for row in tables["agreement"]} >= {("oracle", "gold"), ("oracle", "rules")}
    assert {"backbone", "ppo/P1A+P2A", "ppo/general", "reward/P2A", "soups"} <= {row["step"] for row in tables["timings"]}
    assert {row["kind"] for row in tables["curves"]} == {"reward", "ppo", "sft"}


def test_summary_names_every_method_and_every_folder(finished):
    text = (finished / "results" / "ci" / "summary.txt").read_text()
    assert re.search(r"^combination +VB +RLHF +PP +MT$", text, re.MULTILINE)
    assert re.search(r"^P1A P2A( +\d\.\d\d \[\d\.\d\d, \d\.\d\d\]){4}$", text, re.MULTILINE)
    assert "make ui" in text
    for folder in re.findall(r"results/\S+", text):
        assert (finished / folder).is_dir()
    assert len(re.findall(r"results/\S+", text)) == 3


def test_every_figure_is_there_as_picture_and_as_print(finished):
    figures = finished / "results" / "ci" / "figures"
    for name in ("curves", "adapters", "methods", "win_rates", "judges", "adapter_effects", "criteria", "tradeoff", "costs"):
        assert (figures / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (figures / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert not [c for c in json.loads((figures / "results.ipynb").read_text())["cells"] if c.get("execution_count") == 0]


def test_recipe_names_rule_weights_and_paths_that_are_there(finished):
    recipe = yaml.safe_load((finished / SOUP / "recipe.yaml").read_text())
    assert recipe["rule"] == "delta"
    assert recipe["weights"] == {"P1A": 0.5, "P2A": 0.5}
    assert recipe["paths"] == {name: f"{SEED}/ppo/{name}/adapter" for name in ("P1A", "P2A")}
    assert all((finished / path / "adapter_model.safetensors").is_file() for path in recipe["paths"].values())


def python_of_the_readme(clone: Path) -> list[str]:
    found = re.findall(r"```python\n(.*?)```", (clone / "README.md").read_text(), re.DOTALL)
    assert len(found) == 2
    return found


def test_python_of_the_readme_loads_a_registered_policy(finished, run_in):
    code = python_of_the_readme(finished)[1].replace("results/demo", "results/ci").replace("@demo-", "@ci-")
    done = run_in(
        finished, sys.executable, "-c", code + "\nassert any('lora_A' in name for name, _ in model.named_parameters())\n"
    )
    assert done.returncode == 0, done.stderr


def test_python_of_the_readme_loads_a_soup_and_answers(finished, run_in):
    code = python_of_the_readme(finished)[0]
    assert "rlphf" not in code.replace("results/", "") and "results/demo/seed-1103/soups/" in code
    here = re.sub(r"soups/[-\w]+", "soups/P1A-P2A", code).replace("results/demo", "results/ci")
    done = run_in(
        finished, sys.executable, "-c", here + "\nassert any('lora_A' in name for name, _ in model.named_parameters())\n"
    )
    assert done.returncode == 0, done.stderr


def test_every_step_left_a_finished_record_with_what_it_was_made_from(finished):
    found = records(finished)
    steps = Counter(record["step"].split()[0] for record in found.values())
    once = dict.fromkeys(("data", "prompts", "backbone", "tables", "claims", "figures", "explorer", "user", "summary"), 1)
    assert steps == {**once, "mt": 1, "rollouts": 3, "annotate": 3, "reward": 5, "ppo": 4, "soups": 2, "generate": 10, "judge": 3}
    workflow = json.loads((finished / "results" / "ci" / ".workflow.json").read_text())
    assert workflow["status"] == "finished" and workflow["targets"] == ["all"]
    for name, record in found.items():
        assert record["status"] == "finished" and record["parent"] == workflow["id"], name
        assert record["outputs"], name
        for described in record["inputs"].values():
            assert described["sha256"] == sha256(finished / described["path"]), (name, described["path"])
        for path, described in record["outputs"].items():
            assert described["sha256"] == sha256(finished / path), (name, path)


def test_every_record_but_those_of_first_steps_names_inputs(finished):
    without = {record["step"] for record in records(finished).values() if not record["inputs"]}
    # Tables about users are empty here.
    assert without == {"data", "prompts", "backbone", "user tables"}


def test_every_output_is_traced_to_what_no_step_made(finished, run_in, tmp_path):
    made = [path for name, record in records(finished).items() for path in record["outputs"]]
    assert len(made) > 100
    for path in ("results/ci/figures/methods.png", "results/ci/tables/claims.md", SOUP, "results/ci/summary.txt"):
        done = run_in(finished, "rlphf", "track", "lineage", path, "--json", tmp_path / "lineage.json")
        assert done.returncode == 0, done.stderr
        found = json.loads((tmp_path / "lineage.json").read_text())
        assert " 0 changed, 0 missing" in done.stdout.splitlines()[-1]
        steps = {step["step"] for step in found["steps"].values()}
        assert {"prompts", "backbone", "rollouts", "annotate", "reward", "ppo"} <= steps
        kinds = {name: other["kind"] for name, other in found["others"].items()}
        raw, unknown = ({name for name in kinds if kinds[name] == kind} for kind in ("raw", "no record"))
        assert raw <= {"config/claims.yaml", "notebooks/results.ipynb"} and unknown <= {f"{SEED}/config.yaml"}
    # All at once: whatever a step has made is in the lineage of the experiment's folder.
    done = run_in(finished, "rlphf", "track", "lineage", "results/ci", "--json", tmp_path / "lineage.json")
    found = json.loads((tmp_path / "lineage.json").read_text())
    assert {output["path"] for step in found["steps"].values() for output in step["outputs"]} == set(made)


def test_a_crate_of_the_run_names_every_step_and_holds_every_table_and_figure(finished, run_in, tmp_path):
    done = run_in(finished, "rlphf", "track", "crate", "--results", "results/ci", "--out", tmp_path / "crate")
    assert done.returncode == 0, done.stderr
    things = {thing["@id"]: thing for thing in json.loads((tmp_path / "crate" / "ro-crate-metadata.json").read_text())["@graph"]}
    actions = [thing for thing in things.values() if thing["@type"] == "CreateAction"]
    assert len(actions) == len(records(finished)) + 1
    for action in actions:
        assert all(used["@id"] in things for used in (*action["object"], *action["result"], action["instrument"]))
    for folder in ("tables", "figures"):
        for path in (finished / "results" / "ci" / folder).iterdir():
            if path.is_file() and not path.name.startswith("."):
                assert (
                    sha256(tmp_path / "crate" / folder / path.name) == sha256(path) == things[f"{folder}/{path.name}"]["sha256"]
                )


def test_outputs_name_no_place_on_this_machine(finished):
    named = []
    for path in (finished / "results").rglob("*"):
        if path.is_file() and path.suffix != ".log" and str(finished).encode() in path.read_bytes():
            named.append(path.relative_to(finished).as_posix())
    assert named == []


def test_nothing_half_made_is_left(finished):
    kept = {".sync.json", ".sync.lock", ".tracking.log", ".workflow.json", ".snakemake_timestamp"}
    assert {path.name for path in (finished / "results").rglob(".*")} <= kept
    assert not list((finished / "results").rglob("checkpoint*"))


def test_mlflow_has_a_run_per_step_below_one_for_the_start(finished):
    database = sqlite3.connect(f"file:{finished / 'mlflow.db'}?mode=ro", uri=True)
    status = dict(database.execute("select run_uuid, status from runs"))
    parents = dict(database.execute("select run_uuid, value from tags where key = 'mlflow.parentRunId'"))
    assert len(status) == len(records(finished)) + 1
    assert set(status.values()) == {"FINISHED"}
    (top,) = set(status) - set(parents)
    assert set(parents.values()) == {top}
    assert database.execute("select count(*) from metrics where key = 'kl'").fetchone()[0] == 8


def test_tables_made_again_are_the_same_bytes(finished, run_in, tmp_path):
    command = ["rlphf", "tables", "--config", SEED / "config.yaml", "--seed-folder", SEED, "--out", tmp_path / "tables"]
    done = run_in(finished, *command)
    assert done.returncode == 0, done.stderr
    again = {path.name: sha256(path) for path in (tmp_path / "tables").glob("*.*") if path.suffix in (".parquet", ".csv", ".md")}
    assert again == {name: sha256(finished / "results" / "ci" / "tables" / name) for name in again}
    # The step makes all but the claims; `release_bugs`, where nothing is priced, is empty.
    assert len(again) == 3 * len(COLUMNS)


@pytest.mark.slow
def test_another_run_gives_the_same_bytes(finished, another_run):
    first, second = outputs(finished), outputs(another_run())
    assert len(first) > 60
    assert {name for name in first if first[name] != second.get(name)} == set()
