# The experiment's configuration, its folders, and the record of this start. A bad configuration ends here, before the DAG.
import os
import subprocess
import sys
from pathlib import Path

from rlphf.config import parse as parse_experiment
from rlphf.config import save as save_experiment
from rlphf.errors import InputError
from rlphf.preferences import GENERAL, PMORL
from rlphf.sources import source_digest
from rlphf.tracking.steps import end_step, start_step

try:
    EXPERIMENT = parse_experiment(config, "configuration")
except InputError as error:
    print(f"rlphf: error: {error}", file=sys.stderr)
    sys.exit(2)

RESULTS = f"results/{EXPERIMENT.experiment}"
# Every step of a seed has the wildcard; tables and figures speak for the experiment's own seed, claims for all.
SEED = f"{RESULTS}/seed-{{seed}}"
CONFIG = f"{SEED}/config.yaml"
OWN = f"{RESULTS}/seed-{EXPERIMENT.seed}"
SEEDS = EXPERIMENT.seeds or [EXPERIMENT.seed]
TABLES = f"{RESULTS}/tables"
FIGURES = f"{RESULTS}/figures"
RAW = [source.path for source in EXPERIMENT.data.sources if source.kind != "hub"]
PREFERENCES = EXPERIMENT.preferences
COMBINED = EXPERIMENT.combination_preferences
METHODS = EXPERIMENT.evaluation.methods
# Responses that are no method's: of single policies, and of interpolated ones.
OTHERS = ["adapters", *(["front"] if EXPERIMENT.evaluation.front else [])]
REWARDS = [*PREFERENCES, *(name for name, method in ((GENERAL, "rlhf"), (PMORL, "pmorl")) if method in METHODS)]
TABLE_NAMES = "data reward_models adapters adapter_effects methods differences win_rates averages front".split()
TABLE_NAMES += "merges budgets timings curves".split()
FIGURE_NAMES = "curves adapters methods criteria win_rates adapter_effects tradeoff front costs".split()


def settings(*names):
    """Return what a job reads of the configuration ("ppo", "evaluation.split"), besides the seed: a change repeats the job."""
    values = {}
    for name in names:
        value = EXPERIMENT.model_dump(mode="json")
        for key in name.split("."):
            value = value[key]
        values[name] = value
    return values


def answer_settings(method):
    """Return what responses of a method depend on, besides its models."""
    special = {
        "vb": [],
        "rlhf": [],
        "adapters": ["preferences"],
        "front": ["evaluation.front", "evaluation.front_points"],
        "mod": ["combination_preferences", "soup.weights"],
    }
    own = special.get(method, ["combination_preferences"])
    return settings("evaluation.split", "evaluation.samples", "evaluation.decoding", *own)


def needed_models(wildcards):
    """Return what the responses of a method are made with, besides the backbone."""
    policies = {"adapters": PREFERENCES, "mod": COMBINED, "rlhf": [GENERAL], "pmorl": [PMORL]}
    method = wildcards.method
    if method in policies:
        return expand(rules.ppo.output, preference=policies[method], allow_missing=True)
    if method == "mt":
        return rules.mt.output
    return [] if method in ("vb", "pp") else rules.soups.output.soups


# What tables and claims read of the configuration.
MEASURED = ("evaluation", "preferences", "combination_preferences", "ppo.batch_size")


def measured(wildcards=None, seed=EXPERIMENT.seed):
    """Return what the tables of a seed are made from."""
    return {
        "counts": expand(rules.data.output.counts, seed=seed),
        "judged": expand(rules.judge.output, seed=seed),
        "merges": expand(rules.soups.output.merges, seed=seed),
        "scores": expand(rules.reward.output.scores, preference=REWARDS, seed=seed),
        "general": expand(rules.annotate.output, preference=GENERAL, seed=seed),
        "adapters": expand(rules.ppo.output, preference=PREFERENCES, seed=seed),
    }


def labelled(wildcards):
    """Return the pairs that a reward model learns from: a preference's own, or those of all combined ones."""
    names = COMBINED if wildcards.preference == PMORL else [wildcards.preference]
    return expand(rules.annotate.output, preference=names, allow_missing=True)


wildcard_constraints:
    seed="[0-9]+",
    preference="P[0-9A-Z]+|general|pmorl",
    method="[a-z_]+",


onstart:
    for seed in SEEDS:
        save_experiment(EXPERIMENT.model_copy(update={"seed": seed}), f"{RESULTS}/seed-{seed}/config.yaml")
    start_step(Path(OWN) / "config.yaml", Path(RESULTS), ["all"], os.getpid())
    if EXPERIMENT.tracking.enabled:
        # One follower sends the records of all steps, so steps neither wait for the tracking server nor race for its store.
        with open(f"{RESULTS}/.tracking.log", "w") as log_file:
            subprocess.Popen(
                [
                    *("rlphf", "track", "sync", "--follow", "--config", f"{OWN}/config.yaml"),
                    *("--results", RESULTS, "--parent-pid", str(os.getpid())),
                ],
                stdout=log_file,
                stderr=log_file,
                start_new_session=True,
            )


onsuccess:
    end_step(Path(RESULTS), "finished")


onerror:
    end_step(Path(RESULTS), "failed")
