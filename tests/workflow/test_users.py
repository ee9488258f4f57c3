"""Claims about the part that is about users: which jobs it consists of, and what a change repeats."""

from pathlib import Path

import pytest
import yaml
from tests.evaluate.test_user_tables import write_run
from tests.workflow.conftest import copy_to

from rlphf.config import load
from rlphf.evaluate.table_files import read_table
from rlphf.evaluate.user_tables import user_tables, users_measured

pytestmark = pytest.mark.workflow

CI = ("--configfile", "config/experiments/ci.yaml")
METHODS = ["sft", "in_context", "pooled", "dpo", "dpo_prompted", "prm", "pdpo_individual", "psoups_declared", "psoups_inferred"]
# P-RM is a reward model.
ANSWERING = sorted({*METHODS} - {"prm"})
TABLES = {"user_tables": [""], "user_figures": [""]}
READ = {"user_explorer": [""]}
JUDGED = {"user_scores": [""], **TABLES, **READ}


def users(folder: Path, plan, *arguments: str, methods=METHODS, more: str = "") -> dict[str, list[str]]:
    """The jobs of target `users` for methods and further settings; a configuration is written to `folder`.users.yaml."""
    path = write(folder, methods, more)
    jobs = plan(folder, "users", *CI, path, *arguments)
    jobs.pop("users", None)
    return jobs


def write(folder: Path, methods: list[str], more: str = "") -> str:
    path = folder.with_suffix(".users.yaml")
    path.write_text(f"user_evaluation: {{methods: [{', '.join(methods)}]}}\ntracking: {{enabled: false}}\n{more}")
    return str(path)


def test_users_are_served_by_models_of_their_pairs_and_by_soups_of_the_preferences_policies(clean, plan):
    jobs = users(clean, plan)
    # One model serves all the methods that answer with it.
    assert jobs.pop("user_model") == ["dpo", "individual", "pooled", "prm"] and jobs.pop("user_answers") == sorted(METHODS)
    assert jobs.pop("ppo") == jobs.pop("reward") == jobs.pop("annotate") == jobs.pop("rollouts") == ["P1A", "P3A", "P3B"]
    once = ("backbone", "prompts", "user_pairs", "user_soups", "cold_start", *JUDGED)
    assert jobs == {name: [""] for name in once}


def test_without_new_users_there_is_no_cold_start(clean, plan):
    assert "cold_start" not in users(clean, plan, more="population: {unseen: 0}\n")


LEFT_OVER = {
    "population: {unseen: 0}": {"cold_start"},
    "user_evaluation: {methods: [sft, dpo, pdpo_individual]}": {"cold_start"},
    "user_data: {source: prism, path: raw}\nuser_evaluation: {methods: [sft]}\nablations: {}": {"cold_start", "judge/oracle"},
}


@pytest.mark.parametrize("change", LEFT_OVER)
def test_scores_that_an_earlier_configuration_left_are_in_no_table(clean, plan, tmp_path, change):
    config, seed_folder = write_run(tmp_path)
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | yaml.safe_load(change)))
    if "prism" in change:
        (seed_folder / "users" / "pairs").rename(seed_folder / "users" / "raw")
    experiment, left = load(config), LEFT_OVER[change]
    found = user_tables(experiment, seed_folder)
    assert not found["cold_start"] and not any(row["new_user_seconds"] for row in found["users_cost"])
    assert bool(found["users_scores"]) == bool(found["users_win_rates"]) == ("judge/oracle" not in left)
    read = users_measured(experiment, seed_folder)
    assert not {f"users/{name}/scores.parquet" for name in left} & set(read)
    # The workflow makes just those that are read.
    (tmp_path / "raw").mkdir()
    change = change.replace("path: raw", f"path: {tmp_path / 'raw'}").replace("ablations: {}", "")
    (tmp_path / "change.yaml").write_text(change)
    jobs = plan(clean, "users", *CI, str(tmp_path / "change.yaml"))
    assert "cold_start" not in jobs and ("user_scores" in jobs) == ("judge/oracle" not in left)


def test_a_variation_of_training_is_one_more_model_and_one_of_the_population_three_and_their_pairs(clean, plan):
    plain = users(clean, plan, methods=["sft"])
    # Without soups no policy is trained.
    assert plain.keys() == {"backbone", "prompts", "rollouts", "user_pairs", "user_answers", *JUDGED}
    alpha = users(clean, plan, methods=["sft"], more="ablations: {dpo.alpha: [0.1]}\n")
    assert alpha == {**plain, "user_model": ["individual"], "user_answers": ["pdpo_individual", "sft"]}
    pairs = users(clean, plan, methods=["sft"], more="ablations: {population.train_pairs: [5]}\n")
    assert pairs == {
        **plain,
        "user_pairs": ["", ""],
        "user_model": ["cluster", "dpo", "individual"],
        "user_answers": ["dpo", "pdpo_cluster", "pdpo_individual", "sft"],
    }


def test_a_variation_works_in_a_folder_of_its_own_whatever_its_value_looks_like(clean, snakemake):
    path = write(clean, ["sft"], "ablations: {dpo.alpha: [0.00001], users.init: [uniform]}\n")
    done = snakemake(clean, "--dry-run", "users", *CI, path)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    for name in ("dpo.alpha-1e-05", "users.init-uniform"):
        assert f"results/ci/seed-1103/ablations/{name}/users/models/individual/scores.parquet" in said


def test_users_of_raw_data_need_nothing_of_the_testbed_but_a_backbone(clean, plan, tmp_path):
    (tmp_path / "personas").mkdir()
    raw = f"user_data: {{source: persona, path: {tmp_path / 'personas'}}}\nablations: {{dpo.alpha: [0.1]}}\n"
    jobs = users(clean, plan, methods=["sft", "pdpo_individual"], more=raw)
    assert jobs == {
        "user_import": [""],
        "backbone": [""],
        "user_model": ["individual", "individual"],
        "user_answers": ["pdpo_individual", "pdpo_individual", "sft"],
        **TABLES,
        **READ,
    }


@pytest.mark.parametrize("asked", ["{methods: [sft], prompts: 0}", "{methods: [prm]}"], ids=["no prompt", "P-RM alone"])
def test_where_users_are_given_no_answer_there_is_nothing_to_read(clean, plan, asked):
    path = clean.with_suffix(".silent.yaml")
    path.write_text(f"user_evaluation: {asked}\n")
    jobs = plan(clean, "users", *CI, str(path))
    assert "user_answers" in jobs and "user_explorer" not in jobs


def test_the_part_about_users_runs_down_to_its_tables_and_figures(tmp_path, snakemake):
    folder = copy_to(tmp_path / "rlphf")
    path = write(folder, ["sft_prompted", "dpo", "pdpo_individual"], "ablations: {dpo.alpha: [1.0]}\n")
    done = snakemake(folder, "users", *CI, path)
    logs = "\n".join(log.read_text() for log in sorted(folder.glob("results/ci/**/*.log")))
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{logs}"
    tables = folder / "results" / "ci" / "tables"
    told = {(row["method"], row["population"]) for row in read_table(tables, "users_accuracy")}
    assert told >= {(method, population) for method in ("dpo", "pdpo_individual") for population in ("seen", "unseen")}
    assert {row["method"] for row in read_table(tables, "users_scores")} == {"sft_prompted", "dpo", "pdpo_individual"}
    assert {row["value"] for row in read_table(tables, "user_ablations")} == {"1.0"}
    assert (folder / "results" / "ci" / "figures" / "users_accuracy.png").stat().st_size > 10_000
    assert "dpo" in (folder / "results" / "ci" / "users.html").read_text(encoding="utf-8")


# What is repeated.

VARIED = "ablations: {dpo.alpha: [0.1]}\n"


@pytest.fixture(scope="module")
def served(pretended, tmp_path_factory):
    """A copy in which users have been served by all METHODS, and by a variation."""
    path = write(tmp_path_factory.mktemp("served") / "x", METHODS, VARIED)
    return pretended("users", *CI, path)


CHANGES = {
    # Models that are trained by P-DPO's loss, the variation's among them; the pooled one, backbone and policies stay.
    "dpo: {beta: 0.4}": {
        "user_model": ["dpo", "individual", "individual"],
        "user_answers": ["dpo", "dpo_prompted", "pdpo_individual", "pdpo_individual"],
        "cold_start": [""],
        **JUDGED,
    },
    # Without soft tokens there is nothing of a user model to set.
    "users: {tokens: 3}": {
        "user_model": ["individual", "individual", "prm"],
        "user_answers": ["pdpo_individual", "pdpo_individual", "prm"],
        "cold_start": [""],
        **JUDGED,
    },
    # No model of these clusters users, and none but the backbone and DPO is told of them.
    "users: {clusters: 3, cluster_start: generic}": {},
    "users: {text_place: before}": {"user_answers": ["dpo_prompted", "in_context"], **JUDGED},
    # The variation answers no prompt, and P-RM none at all.
    "user_evaluation: {prompts: 3}": {"user_answers": ANSWERING, "cold_start": [""], **JUDGED},
    "evaluation: {decoding: {temperature: 0.5}}": {"user_answers": ANSWERING, "cold_start": [""], **JUDGED},
    # Pairs of a user are shown by the prompts of one method.
    "user_evaluation: {history: 3}": {"user_answers": ["in_context"], **JUDGED},
    # New users' pairs are all drawn already, so nobody is trained on others.
    "cold_start: {pairs: [0, 2, 4]}": {"cold_start": [""], **TABLES},
    "evaluation: {bootstrap: 51}": TABLES,
    "mt: {epochs: 3}": {"user_model": ["pooled"], "user_answers": ["pooled"], **JUDGED},
    # The page sets weights of the users' soups by the axes of the combined preferences; no model of users knows these.
    "combination_preferences: [P1A, P3A, P3B]": READ,
    "ablations: {dpo.alpha: [0.1, 0.2]}": {"user_model": ["individual"], "user_answers": ["pdpo_individual"], **TABLES},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_repeats_what_it_changes_and_what_follows(served, plan, tmp_path, change):
    (tmp_path / "change.yaml").write_text(change)
    assert users(served, plan, str(tmp_path / "change.yaml"), more=VARIED) == CHANGES[change]
