"""Claims about what the profile for SLURM asks for each step, from dry runs, which need no cluster."""

import re

import pytest
import yaml
from tests.workflow.conftest import ROOT

pytestmark = pytest.mark.workflow

PROFILE = ROOT / "workflow" / "profiles" / "slurm"
# What needs no model, or adapters alone.
ON_CPUS = {"data", "prompts", "soups", "oracle", "text_rules", "user_pairs", "user_scores", "tables", "claims", "figures"}
ON_CPUS |= {"explorer", "user_tables", "user_figures", "summary"}
# What trains, samples or scores, and the labels of what was sampled, which are made in the same job.
ON_GPUS = {"backbone", "rollouts", "annotate", "reward", "ppo", "ppo_P1A_P3A", "mt", "generate", "gold", "cold_start"}
ON_GPUS |= {"user_model", "user_soups", "user_answers"}


@pytest.fixture
def asked(clean, snakemake, tmp_path):
    """Return {rule: its resources} of a dry run of `ci`, for a site that differs from the template in some words."""

    def ask(**words: str) -> dict[str, dict[str, str]]:
        site = (PROFILE / "site.yaml").read_text()
        for old, new in words.items():
            assert re.search(rf"- {old}=", site)
            site = re.sub(rf"(# )?- {old}=.*", f"- {old}={new}", site)
        (tmp_path / "site.yaml").write_text(site)
        profiles = ("--profile", str(tmp_path / "site.yaml"), "--workflow-profile", "workflow/profiles/slurm")
        done = snakemake(clean, "--dry-run", *profiles, "--configfile", "config/experiments/ci.yaml")
        text = done.stdout + done.stderr
        assert done.returncode == 0, text
        found, rule = {}, ""
        for line in map(str.strip, text.splitlines()):
            if named := re.fullmatch(r"rule (\w+):", line):
                rule = named[1]
            elif line.startswith("resources: "):
                found[rule] = dict(pair.split("=") for pair in line.removeprefix("resources: ").split(", "))
        found.pop("all")
        return found

    return ask


def test_what_trains_or_samples_asks_for_a_gpu_and_the_rest_for_none(asked):
    found = asked()
    assert {name for name, resources in found.items() if resources["gpu"] == "0"} == ON_CPUS
    assert {name for name, resources in found.items() if resources["gpu"] == "1"} == ON_GPUS
    assert found["ppo"] == found["ppo_P1A_P3A"]


def test_a_site_without_gpus_asks_for_none_anywhere(asked):
    assert {resources["gpu"] for resources in asked(gpu="0").values()} == {"0"}


def test_the_type_of_gpu_is_asked_for_where_there_is_one(asked):
    found = asked(gpu_model="a100", slurm_account="mine")
    assert {name for name, resources in found.items() if resources.get("gpu_model") == "a100"} == ON_GPUS
    assert {resources["slurm_account"] for resources in found.values()} == {"mine"}


def test_the_profile_names_rules_that_are_there(asked):
    profile = yaml.safe_load((PROFILE / "config.yaml").read_text())
    rules = {
        name for path in (ROOT / "workflow/rules").glob("*.smk") for name in re.findall(r"^rule (\w+):", path.read_text(), re.M)
    }
    for key in ("groups", "set-resources", "set-threads"):
        assert set(profile[key]) <= rules
    # Only what a site has to fill in is in its own file, as the one would hide the other's.
    site = yaml.safe_load((PROFILE / "site.yaml").read_text())
    assert not set(site) & set(profile)
    assert site["slurm-partition-config"] == "site.yaml" and "slurm-array-jobs" not in profile


def test_threads_are_those_of_one_machine_on_which_results_depend():
    default = yaml.safe_load((PROFILE.parent / "default" / "config.yaml").read_text())
    assert yaml.safe_load((PROFILE / "config.yaml").read_text())["set-threads"] == default["set-threads"]
