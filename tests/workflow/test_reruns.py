"""Claims about what is done again after a change, and what is not: dry runs on a finished run of the smallest experiment."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.workflow.conftest import CI

pytestmark = pytest.mark.workflow

# What hangs on new soups, and on new policies.
AFTER_SCORES = {"tables": [""], "claims": [""], "figures": [""], "explorer": [""], "summary": [""]}
JUDGED = {"oracle": [""], "text_rules": [""], "gold": [""]}
AFTER_SOUPS = {"generate": ["front", "psoups"], **JUDGED, **AFTER_SCORES}
EVALUATED = ["adapters", "front", "mod", "pmorl", "psoups", "psoups_ties", "rlhf"]
ALL_SOUPS = {"soups": [""], "compared_soups": ["ties"]}
AFTER_PPO = {**AFTER_SOUPS, **ALL_SOUPS, "generate": EVALUATED}
TRAINED = ["P1A", "P2A", "general", "pmorl"]


@contextmanager
def edited(path: Path) -> Iterator[None]:
    """Add a line to a file for a while; times of files decide on reruns, so they are put back as well."""
    text, times = path.read_text(), path.stat()
    try:
        path.write_text(f"{text}\n# edited\n")
        yield
    finally:
        path.write_text(text)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_second_start_has_nothing_to_do(finished, snakemake, ci):
    before = (finished / "results" / "ci" / ".workflow.json").read_text()
    done = snakemake(finished, *ci)
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr
    assert (finished / "results" / "ci" / ".workflow.json").read_text() == before


def test_a_setting_of_ppo_repeats_policies_and_what_follows(finished, plan, ci, tmp_path):
    (tmp_path / "changed.yaml").write_text("ppo: {learning_rate: 0.0042}")
    assert plan(finished, *ci, str(tmp_path / "changed.yaml")) == {"ppo": TRAINED, **AFTER_PPO}


def test_a_setting_of_soups_repeats_soups_and_what_follows(finished, plan, ci, tmp_path):
    (tmp_path / "changed.yaml").write_text("soup: {rule: factor}")
    assert plan(finished, *ci, str(tmp_path / "changed.yaml")) == {"soups": [""], **AFTER_SOUPS}


def test_a_setting_of_reward_models_repeats_no_rollouts(finished, plan, ci, tmp_path):
    (tmp_path / "changed.yaml").write_text("reward: {learning_rate: 0.0042}")
    jobs = plan(finished, *ci, str(tmp_path / "changed.yaml"))
    assert jobs == {"reward": sorted([*TRAINED, "gold"]), "ppo": TRAINED, **AFTER_PPO}


def test_a_mistake_repeats_what_makes_it_alone(finished, plan, ci, tmp_path):
    (tmp_path / "changed.yaml").write_text("mistakes: {low_precision_baselines: true}")
    jobs = plan(finished, *ci, str(tmp_path / "changed.yaml"))
    assert "vb" in jobs["generate"] and not {"reward", "ppo", "mt", "soups", "user_soups"} & set(jobs)
    (tmp_path / "changed.yaml").write_text("mistakes: {factor_merge: true}")
    assert plan(finished, *ci, str(tmp_path / "changed.yaml")) == {"soups": [""], **AFTER_SOUPS}


def test_where_runs_are_tracked_repeats_nothing(finished, plan, ci, tmp_path):
    (tmp_path / "changed.yaml").write_text("tracking: {enabled: false}")
    assert plan(finished, *ci, str(tmp_path / "changed.yaml")) == {}


def test_another_method_is_generated_and_judged_beside_the_others(finished, plan, ci, tmp_path):
    (tmp_path / "changed.yaml").write_text("evaluation: {methods: [vb, rlhf, pp, mt, pmorl, psoups, psoups_unprompted, mod]}")
    assert plan(finished, *ci, str(tmp_path / "changed.yaml")) == {
        "generate": ["psoups_unprompted"],
        "oracle": [""],
        "text_rules": [""],
        **AFTER_SCORES,
    }


def test_another_way_to_merge_is_merged_generated_and_judged_beside_the_others(finished, plan, ci, tmp_path):
    (tmp_path / "changed.yaml").write_text("soup: {compared: {large: {scale: 1.5}}}")
    assert plan(finished, *ci, str(tmp_path / "changed.yaml")) == {
        "compared_soups": ["large"],
        "generate": ["psoups_large"],
        "oracle": [""],
        "text_rules": [""],
        **AFTER_SCORES,
    }


def test_more_resamples_repeat_the_tables(finished, plan, ci, tmp_path):
    (tmp_path / "changed.yaml").write_text("evaluation: {bootstrap: 51}")
    assert plan(finished, *ci, str(tmp_path / "changed.yaml")) == {**AFTER_SCORES, "user_tables": [""]}


LLM = {
    # How it is reached, and what that may cost.
    "evaluation: {llm: {parallel: 2, timeout: 9.0, price_in: 1.0, max_cost: 5.0}}": {},
    "evaluation: {llm: {attempts: 2}}": {"llm": [""], **AFTER_SCORES},
    # No table waits for a judge that is none of the experiment's.
    "evaluation: {gold_epochs: 2}": {},
}


def test_settings_of_a_judge_repeat_what_its_verdicts_depend_on(pretended, plan, tmp_path):
    (tmp_path / "llm.yaml").write_text("evaluation: {judges: [oracle, llm]}")
    arguments = (*CI, str(tmp_path / "llm.yaml"))
    folder = pretended(*arguments)
    for change, jobs in LLM.items():
        (tmp_path / "changed.yaml").write_text(change)
        assert plan(folder, *arguments, str(tmp_path / "changed.yaml")) == jobs


def test_an_edit_of_merging_repeats_soups_and_what_follows(finished, plan, ci):
    with edited(finished / "src" / "rlphf" / "soup" / "merge.py"):
        assert plan(finished, *ci) == {**ALL_SOUPS, **AFTER_SOUPS, "generate": ["front", "psoups", "psoups_ties"]}


def test_an_edit_of_tracking_repeats_nothing(finished, plan, ci):
    with edited(finished / "src/rlphf/tracking/record.py"), edited(finished / "src/rlphf/tracking/sync.py"):
        assert plan(finished, *ci) == {}


def test_an_edit_of_plots_repeats_the_figures(finished, plan, ci):
    with edited(finished / "src" / "rlphf" / "figures" / "plots.py"):
        assert plan(finished, *ci) == {"figures": [""], "summary": [""]}


def test_an_edit_of_the_explorer_s_page_repeats_the_explorer(finished, plan, ci):
    with edited(finished / "src" / "rlphf" / "explorer" / "page_1_state.js"):
        assert plan(finished, *ci) == {"explorer": [""]}


LOST = {
    "tables/methods.csv": {"tables": [""], "figures": [""], "explorer": [""], "summary": [""]},
    "figures/methods.pdf": {"figures": [""], "summary": [""]},
    "seed-1103/soups/P1A-P2A": {"soups": [""], **AFTER_SOUPS},
}


@pytest.mark.parametrize("name", LOST)
def test_a_lost_result_is_made_again_with_what_follows(finished, plan, ci, tmp_path, name):
    lost = finished / "results" / "ci" / name
    lost.rename(tmp_path / "lost")
    try:
        assert plan(finished, *ci) == LOST[name]
    finally:
        (tmp_path / "lost").rename(lost)


def test_another_preference_trains_its_own_models_and_what_serves_all_at_once(finished, plan, ci, tmp_path):
    names = "[P1A, P2A, P3C]"
    (tmp_path / "changed.yaml").write_text(f"preferences: {names}\ncombination_preferences: {names}")
    jobs = plan(finished, *ci, str(tmp_path / "changed.yaml"))
    assert jobs.pop("rollouts") == jobs.pop("annotate") == ["P3C"]
    # Nothing of P1A and P2A is trained again; P-MORL and MT, whose one policy serves all, are.
    assert jobs.pop("ppo") == ["P3C", "pmorl"] and jobs.pop("mt") == jobs.pop("soups") == [""]
    # The judge that is a reward model learns the new preference, too.
    assert jobs.pop("reward") == ["P3C", "gold", "pmorl"]
    assert jobs.pop("generate") == ["adapters", "front", "mod", "mt", "pmorl", "pp", "psoups", "psoups_ties"]
    assert jobs.pop("compared_soups") == ["ties"]
    assert set(jobs) == {*JUDGED, *AFTER_SCORES}


OWN = """\
own_preferences: {P3E: {axis: style, name: poetic, prompt: Answer as a poet would., rule: {words: [lovely]}}}
preferences: [P1A, P3A, P3B, P3E]
"""


def test_a_preference_of_ones_own_trains_its_own_models_and_nothing_else(pretended, plan, tmp_path):
    (tmp_path / "base.yaml").write_text("evaluation: {front: []}\n")
    before = (*CI[:2], str(tmp_path / "base.yaml"))
    folder = pretended(*before)
    (tmp_path / "own.yaml").write_text(OWN)
    jobs = plan(folder, *before, str(tmp_path / "own.yaml"))
    assert jobs.pop("rollouts") == jobs.pop("annotate") == jobs.pop("reward") == jobs.pop("ppo") == ["P3E"]
    # Its answers stand beside the other single policies', and are judged; users of the testbed do not know it.
    assert jobs.pop("generate") == ["adapters"]
    assert jobs == {"oracle": [""], "text_rules": [""], **AFTER_SCORES}
    (tmp_path / "own.yaml").write_text(OWN + "combination_preferences: [P1A, P3A, P3E]\n")
    jobs = plan(folder, *before, str(tmp_path / "own.yaml"))
    assert jobs.pop("ppo") == ["P3E", "pmorl"] and jobs.pop("reward") == ["P3E", "gold", "pmorl"]
    assert jobs["mt"] == jobs["soups"] == [""] and not {"backbone", "prompts", "user_pairs", "user_model"} & set(jobs)


def test_models_and_pages_that_know_a_preference_by_its_words_are_made_again_for_others(pretended, plan, tmp_path):
    (tmp_path / "raw").mkdir()
    # No combination has it, so the judge, and a model of raw pairs, know it by these alone.
    sources = f"data: {{sources: [{{kind: hh_rlhf, path: {tmp_path / 'raw'}}}], reward_models: [P3E]}}\n"
    base = OWN + sources + "evaluation: {front: [], gold_raw: [P3E]}\n"
    (tmp_path / "own.yaml").write_text(base)
    command = (*CI[:2], str(tmp_path / "own.yaml"))
    folder = pretended(*command)
    assert plan(folder, *command) == {}
    (tmp_path / "own.yaml").write_text(base.replace("name: poetic", "name: lyrical"))
    assert plan(folder, *command) == {"explorer": [""]}
    assert plan(folder, "results/ci/users.html", *command)["user_explorer"] == [""]
    (tmp_path / "own.yaml").write_text(base.replace("as a poet would", "in verse"))
    assert plan(folder, *command)["reward"] == ["P3E", "gold", "raw-P3E"]
    jobs = plan(folder, *command, "--rerun-triggers", "params")
    assert jobs["reward"] == ["P3E", "gold", "raw-P3E"] and jobs["rollouts"] == ["P3E"] and jobs["explorer"] == [""]


def test_a_policy_that_a_rule_rewards_is_trained_again_for_other_words_that_ask_for_its_preference(pretended, plan, tmp_path):
    base = OWN + "ppo: {reward: rule}\nevaluation: {methods: [vb, psoups], judges: [oracle], front: []}\n"
    base += "user_evaluation: {methods: []}\n"
    (tmp_path / "own.yaml").write_text(base)
    command = ("results/ci/seed-1103/ppo/P3E/adapter", *CI[:2], str(tmp_path / "own.yaml"))
    folder = pretended(*command)
    assert plan(folder, *command) == {}
    (tmp_path / "own.yaml").write_text(base.replace("as a poet would", "in verse"))
    assert plan(folder, *command) == {"ppo": ["P3E"]}


def test_one_more_reward_model_of_raw_pairs_is_trained_alone(pretended, plan, tmp_path):
    (tmp_path / "raw").mkdir()
    base = f"data: {{sources: [{{kind: hh_rlhf, path: {tmp_path / 'raw'}}}], reward_models: [helpful]}}\n"
    (tmp_path / "raw.yaml").write_text(base)
    command = (*CI, str(tmp_path / "raw.yaml"))
    folder = pretended(*command)
    (tmp_path / "raw.yaml").write_text(base.replace("[helpful]", "[helpful, harmless]"))
    assert plan(folder, *command) == {"reward": ["raw-harmless"], **AFTER_SCORES}


@pytest.mark.slow
def test_a_preference_of_ones_own_joins_a_finished_demo(pretended, plan, tmp_path):
    folder = pretended()
    assert plan(folder) == {}
    tone = "{axis: style, name: warm, prompt: Answer with warmth., rule: {measure: polarity}}"
    names = "P1A, P1B, P2A, P2B, P3A, P3B, P3C, P3D, P3E"
    (tmp_path / "own.yaml").write_text(f"own_preferences: {{P3E: {tone}}}\npreferences: [{names}]\n")
    jobs = plan(folder, "--configfile", str(tmp_path / "own.yaml"))
    assert jobs.pop("rollouts") == jobs.pop("annotate") == jobs.pop("reward") == jobs.pop("ppo") == ["P3E"]
    assert jobs.pop("generate") == ["adapters"] and jobs == {"oracle": [""], **AFTER_SCORES}


def test_another_seed_begins_at_the_beginning(finished, plan, ci):
    jobs = plan(finished, *ci, "--config", "seed=7")
    assert jobs["backbone"] == jobs["prompts"] == [""] and jobs["ppo"] == TRAINED
