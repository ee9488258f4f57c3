# The experiment's configuration, its folders, and the record of this start. A bad configuration ends here, before the DAG.
import os
import subprocess
import sys
from pathlib import Path

from rlphf.config import parse as parse_experiment
from rlphf.config import save as save_experiment
from rlphf.errors import InputError
from rlphf.sources import source_digest
from rlphf.tracking.steps import end_step, start_step

try:
    EXPERIMENT = parse_experiment(config, "configuration")
except InputError as error:
    print(f"rlphf: error: {error}", file=sys.stderr)
    sys.exit(2)

RESULTS = f"results/{EXPERIMENT.experiment}"
SEED = f"{RESULTS}/seed-{EXPERIMENT.seed}"
CONFIG = f"{SEED}/config.yaml"
TABLES = f"{RESULTS}/tables"
FIGURES = f"{RESULTS}/figures"
RAW = [source.path for source in EXPERIMENT.data.sources if source.kind != "hub"]
PREFERENCES = EXPERIMENT.preferences
TABLE_NAMES = "data reward_models adapters adapter_effects methods differences win_rates merges timings curves".split()
FIGURE_NAMES = "curves adapters methods win_rates adapter_effects".split()
METHODS = EXPERIMENT.evaluation.methods


def settings(*names):
    """Return the seed and what else of the configuration a job reads ("ppo", "evaluation.split"): a change repeats the job."""
    values = {}
    for name in ("seed", *names):
        value = EXPERIMENT.model_dump(mode="json")
        for key in name.split("."):
            value = value[key]
        values[name] = value
    return values


def needed_models(wildcards):
    """Return what the responses of a method are made with, besides the backbone."""
    if wildcards.method == "adapters":
        return expand(rules.ppo.output, preference=PREFERENCES)
    return rules.soups.output.soups if wildcards.method.startswith("psoups") else []


wildcard_constraints:
    preference="P[0-9A-Z]+|general",
    method="[a-z_]+",


onstart:
    save_experiment(EXPERIMENT, CONFIG)
    start_step(Path(CONFIG), Path(RESULTS), ["all"], os.getpid())
    if EXPERIMENT.tracking.enabled:
        # One follower sends the records of all steps, so steps neither wait for the tracking server nor race for its store.
        with open(f"{RESULTS}/.tracking.log", "w") as log_file:
            subprocess.Popen(
                [
                    *("rlphf", "track", "sync", "--follow", "--config", CONFIG),
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
