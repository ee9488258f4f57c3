"""Claims about which jobs an experiment consists of, from dry runs on a clean copy."""

import re

import pytest

from rlphf.users.methods import METHODS as SERVING
from rlphf.users.methods import MODELS

pytestmark = pytest.mark.workflow

PREFERENCES = ["P1A", "P1B", "P2A", "P2B", "P3A", "P3B", "P3C", "P3D"]
METHODS = ["vb", "rlhf", "pp", "mt", "pmorl", "psoups", "psoups_unprompted", "mod"]
# Of the part about users, once per seed and once per experiment.
USERS, USER_RESULTS = ["cold_start", "user_pairs", "user_scores", "user_soups"], ["user_figures", "user_tables"]
# Every step finds its software in the one environment that environment.yml and requirements.lock describe: the package
# itself is part of it, which an environment of a single rule could not install.
ACCEPTED = {"Specify a conda environment or container for each rule."}


def test_demo_is_one_backbone_and_a_reward_model_and_a_policy_per_preference(clean, plan):
    jobs = plan(clean)
    assert jobs.pop("ppo") == [*PREFERENCES, "general", "pmorl"]
    assert jobs.pop("reward") == [*PREFERENCES, "general", "gold", "pmorl"]
    assert jobs.pop("rollouts") == jobs.pop("annotate") == [*PREFERENCES, "general"]
    assert jobs.pop("generate") == sorted(["adapters", "front", *METHODS])
    assert jobs.pop("user_answers") == sorted(SERVING)
    assert jobs.pop("user_model") == sorted({method.model for method in SERVING.values()} & set(MODELS))
    once = ("data", "prompts", "backbone", "mt", "soups", "oracle", "gold", "tables", "claims", "figures", "explorer", "summary")
    once += (*USERS, *USER_RESULTS)
    assert jobs == {name: [""] for name in once}


def test_every_combination_gets_a_soup(clean, snakemake):
    done = snakemake(clean, "--dry-run")
    planned = set(re.findall(r"results/demo/seed-1103/soups/(P1[AB]-P2[AB]-P3[AB])\b", done.stdout + done.stderr))
    assert len(planned) == 8


def test_two_hundred_users_of_sixteen_combinations_are_no_more_jobs(clean, plan, tmp_path):
    counts = {}
    for users in (4, 200):
        names = "[P1A, P1B, P2A, P2B, P3A, P3B, P3C, P3D]"
        (tmp_path / "many.yaml").write_text(f"population: {{users: {users}}}\ncombination_preferences: {names}")
        counts[users] = plan(clean, "--configfile", str(tmp_path / "many.yaml"))
    assert counts[4] == counts[200] and sum(map(len, counts[200].values())) < 100


def test_responses_without_an_adapter_wait_for_no_training_but_the_backbones(clean, plan):
    for method in ("vb", "pp"):
        jobs = plan(clean, f"results/demo/seed-1103/responses/{method}/responses.parquet")
        assert jobs == {"backbone": [""], "prompts": [""], "generate": [method]}


def test_prompted_and_unprompted_soups_are_the_same_adapters(clean, plan):
    jobs = plan(clean, "results/demo/seed-1103/responses/psoups_unprompted/responses.parquet")
    assert jobs["soups"] == [""] and jobs["ppo"] == PREFERENCES[:6]


@pytest.mark.parametrize("size", [1, 3])
def test_policies_train_in_as_many_processes_as_asked(clean, snakemake, tmp_path, size):
    (tmp_path / "together.yaml").write_text(f"ppo: {{together: {size}}}")
    said = snakemake(clean, "--dry-run", "--configfile", str(tmp_path / "together.yaml"))
    found = re.findall(r"^rule (ppo\w*):", said.stdout + said.stderr, re.MULTILINE)
    shared = ["ppo_P1A_P1B_P2A", "ppo_P2B_P3A_P3B", "ppo_P3C_P3D"] if size == 3 else []
    assert sorted(found) == ["ppo"] * (2 if shared else 10) + shared


def test_another_seed_works_in_a_folder_of_its_own(clean, snakemake):
    done = snakemake(clean, "--dry-run", "--config", "seed=7")
    said = done.stdout + done.stderr
    assert done.returncode == 0
    assert "results/demo/seed-7/backbone/model" in said and "seed-1103" not in said


def test_claims_wait_for_every_seed_and_tables_and_figures_for_one(clean, plan, tmp_path):
    (tmp_path / "seeds.yaml").write_text("seeds: [1103, 7]")
    one, two = plan(clean), plan(clean, "--configfile", str(tmp_path / "seeds.yaml"))
    once = {"claims", "tables", "figures", "explorer", "summary", *USER_RESULTS}
    assert {name: len(jobs) for name, jobs in two.items()} == {
        name: len(jobs) * (1 if name in once else 2) for name, jobs in one.items()
    }


def test_figures_of_users_are_drawn_where_methods_serve_users(clean, plan, tmp_path):
    (tmp_path / "users.yaml").write_text("user_evaluation: {methods: [sft, dpo]}")
    (tmp_path / "none.yaml").write_text("user_evaluation: {methods: []}")
    for target in ("all", "users"):
        jobs = plan(clean, target, "--configfile", str(tmp_path / "users.yaml"))
        assert jobs["user_answers"] == ["dpo", "sft"] and jobs["user_tables"] == jobs["user_figures"] == [""]
    assert not {"tables", "figures", "summary"} & set(jobs)
    jobs = plan(clean, "--configfile", str(tmp_path / "none.yaml"))
    assert {name for name in jobs if name.startswith("user")} == {"user_tables"}


def test_an_experiment_is_laid_over_the_config_file(clean, plan):
    jobs = plan(
        clean,
        "--configfile",
        "config/experiments/ci.yaml",
        "--config",
        "preferences=[P1A,P2B]",
        "combination_preferences=[P1A]",
        "evaluation={front: []}",
    )
    assert jobs["ppo"] == ["P1A", "P2B", "general", "pmorl"] and jobs["rollouts"] == ["P1A", "P2B", "general"]


def test_real_text_has_a_selector_a_judge_and_models_of_raw_pairs_and_no_oracle(clean, plan, snakemake):
    command = ("--configfile", "config/experiments/smollm2-cpu.yaml")
    missing = snakemake(clean, "--dry-run", *command)
    assert missing.returncode == 2
    said = [line for line in missing.stderr.splitlines() if line.startswith("rlphf: error")]
    assert said == [
        "rlphf: error: configuration: data.sources.0.path: raw/alpaca_eval, data.sources.1.path: raw/hh_rlhf are not there;"
        " see docs/real-text.md for where data come from, or name another"
    ]
    for name in ("alpaca_eval", "hh_rlhf"):
        (clean / "raw" / name).mkdir(parents=True)
    jobs, six = plan(clean, *command), PREFERENCES[:6]
    raw = [f"raw-{name}" for name in ("P2A", "general", "helpful")]
    assert jobs["reward"] == sorted([*six, "gold", "selector", *raw])
    assert jobs["ppo"] == jobs["rollouts"] == jobs["annotate"] == six
    assert jobs["generate"] == sorted(["adapters", "vb", "pp", "psoups", "mod"])
    assert jobs["gold"] == jobs["text_rules"] == jobs["data"] == jobs["prompts"] == [""] and "oracle" not in jobs
    # The policies wait for the selector and not for the judge; the models of raw pairs reward nobody.
    needed = plan(clean, "results/smollm2-cpu/seed-1103/ppo/P2A/adapter", *command)
    assert needed["reward"] == ["P2A", "selector"] and needed["rollouts"] == ["P1A", "P1B", "P2A", "P3A", "P3B"]


def test_preferences_whose_pairs_are_raw_need_no_rollouts(clean, plan, tmp_path):
    write_raw(clean / "raw" / "pairs.jsonl", "")
    (tmp_path / "raw.yaml").write_text(
        "data: {sources: [{kind: table, path: raw/pairs.jsonl}]}\n"
        "reward: {raw: [P1A, P2A, general]}\n"
        "user_evaluation: {methods: []}\n"
    )
    jobs = plan(clean, "--configfile", str(tmp_path / "raw.yaml"))
    # The judge gold still learns from rollouts of what it scores.
    assert jobs["data"] == [""] and jobs["rollouts"] == jobs["annotate"] == [*PREFERENCES, "general"]
    (tmp_path / "oracle.yaml").write_text("evaluation: {judges: [oracle]}")
    jobs = plan(clean, "--configfile", str(tmp_path / "raw.yaml"), str(tmp_path / "oracle.yaml"))
    assert jobs["rollouts"] == jobs["annotate"] == ["P1B", "P2B", "P3A", "P3B", "P3C", "P3D"]
    assert jobs["reward"] == [*PREFERENCES, "general", "pmorl"] and jobs["mt"] == [""]


def test_policies_that_rules_reward_wait_for_no_pairs_and_no_reward_models(clean, plan):
    jobs = plan(clean, "--configfile", "config/experiments/smollm2-rules.yaml")
    assert jobs["ppo"] == PREFERENCES[:6] and jobs["text_rules"] == [""]
    assert not {"rollouts", "annotate", "reward", "gold", "oracle"} & jobs.keys()


def test_a_selector_learns_every_preference_whose_policy_it_chooses_also_one_that_no_combination_has(clean, plan, tmp_path):
    names = "preferences: [P1A, P2A, P3C]\ncombination_preferences: [P1A, P2A]\n"
    (tmp_path / "chosen.yaml").write_text(names + "ppo: {keep: best, keep_by: gold}\nevaluation: {front: []}\n")
    needed = plan(clean, "results/demo/seed-1103/ppo/P3C/adapter", "--configfile", str(tmp_path / "chosen.yaml"))
    assert needed["annotate"] == needed["rollouts"] == ["P1A", "P2A", "P3C", "general"]


def test_raw_users_that_are_not_there_are_named_before_the_workflow_starts(clean, snakemake):
    missing = snakemake(clean, "--dry-run", "--configfile", "config/experiments/personas.yaml", "--", "users")
    assert missing.returncode == 2
    assert "rlphf: error: configuration: user_data.path: raw/persona_evals is not there; see docs/real-text.md" in missing.stderr


def test_dry_runs_write_nothing(clean, plan):
    plan(clean)
    assert not (clean / "results").exists() and not (clean / "mlflow.db").exists()


def test_lint_remarks_on_nothing_but_the_shared_environment(clean, snakemake):
    done = snakemake(clean, "--lint")
    assert "Lints for rule ppo" in done.stderr + done.stdout
    assert set(re.findall(r"^    \* (.+):$", done.stderr + done.stdout, re.MULTILINE)) == ACCEPTED


def test_each_mistake_repeats_what_it_changes_and_nothing_else(clean, plan):
    jobs = plan(clean, "--configfile", "config/experiments/release-bugs.yaml")
    six, pmorl = PREFERENCES[:6], "pmorl"
    assert jobs["backbone"] == jobs["prompts"] == [""] and jobs["annotate"] == jobs["rollouts"] == six
    assert jobs["reward"] == sorted([*six, pmorl] + six)
    assert jobs["ppo"] == sorted([*six, pmorl] + 4 * six + [pmorl])
    assert len(jobs["soups"]) == 6 and len(jobs["oracle"]) == 8
    assert jobs["generate"] == sorted(
        ["adapters", "vb", "pp", "pmorl", "psoups"] + 5 * ["psoups"] + ["pmorl", "vb", "pp", "psoups"]
    )


def test_personalized_soups_at_the_papers_scale_is_the_same_dag(clean, plan):
    # The published layout: a file per preference.
    for name in PREFERENCES[:6]:
        write_raw(clean / "raw" / "rm_training" / f"{name}.json", "[]")
    write_raw(clean / "raw" / "prompts.jsonl", "")
    write_raw(clean / "raw" / "alpaca_eval" / "annotations.json", "[]")
    write_raw(clean / "raw" / "koala" / "koala_eval_50.json", "[]")
    jobs = plan(clean, "--configfile", "config/experiments/psoups-7b.yaml")
    assert jobs["data"] == jobs["backbone"] == jobs["soups"] == jobs["mt"] == [""]
    methods = [name for name in METHODS[:6] if name != "rlhf"]
    assert jobs["ppo"] == [*PREFERENCES[:6], "pmorl"] and jobs["generate"] == sorted(["adapters", *methods])
    assert jobs["reward"] == [*PREFERENCES[:6], "gold", "pmorl"]
    # All pairs are the release's, or AlpacaEval's.
    assert not {"rollouts", "annotate"} & jobs.keys()


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("tldr", ["raw/tldr/batch3.json"]),
        ("psoups", ["raw/rm_training/P1A.json"]),
        ("prism", ["raw/prism/survey.jsonl", "raw/prism/conversations.jsonl"]),
    ],
)
def test_a_task_of_p_rlhf_at_the_papers_scale_is_its_users_models_and_answers(clean, plan, name, files):
    for path in files:
        write_raw(clean / path, "[]")
    jobs = plan(clean, "users", "--configfile", f"config/experiments/prlhf-{name}.yaml")
    assert jobs["user_import"] == jobs["backbone"] == jobs["user_tables"] == [""]
    assert {"individual", "cluster", "dpo"} <= set(jobs["user_model"]) and "pdpo_individual" in jobs["user_answers"]
    assert not {"rollouts", "reward", "ppo"} & set(jobs)
    # A published model has nothing to say in the testbed's language, so there is no more to do.
    whole = plan(clean, "--configfile", f"config/experiments/prlhf-{name}.yaml")
    assert whole.pop("all", None) is None and {k: v for k, v in jobs.items() if k != "users"} == whole


def write_raw(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_gpus_of_the_profile_are_the_processes_of_a_trainers_steps(clean, snakemake):
    target = "results/demo/seed-1103/reward/P1A/adapter"
    done = snakemake(clean, "--dry-run", "--printshellcmds", "--set-resources", "reward:gpu=4", "--", target)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "rlphf --processes 4 reward train" in said
    done = snakemake(clean, "--dry-run", "--printshellcmds", "--", target)
    assert "rlphf --processes 0 reward train" in done.stdout + done.stderr
