# The experiment's configuration, its folders, and the record of this start. A bad configuration ends here, before the DAG.
import logging
import os
import subprocess
import sys
from pathlib import Path

from snakemake.logging import DefaultFormatter, logger
from snakemake_interface_logger_plugins.common import LogEvent

from rlphf.ablations import runs as variations
from rlphf.config import parse as parse_experiment
from rlphf.config import save as save_experiment
from rlphf.data.learned import reward_names
from rlphf.derived import combinations_of, methods_of, shared_preferences, trained_together, users_alone, users_cold_started
from rlphf.derived import users_judged
from rlphf.errors import InputError
from rlphf.given import check_files, files_of
from rlphf.limits import hand_on_grant
from rlphf.mistakes import arm_runs
from rlphf.preferences import GENERAL, GOLD, MT, PMORL, SELECTOR
from rlphf.soup.wanted import wanted
from rlphf.sources import source_digest
from rlphf.tracking.steps import end_workflow, start_step


class FailedJobs(logging.StreamHandler):
    """Says which job failed, with the end of its log, also where the workflow is quiet about its rules."""

    def __init__(self):
        super().__init__()
        self.setFormatter(DefaultFormatter(show_failed_logs=True))

    def filter(self, record):
        return getattr(record, "event", None) in (LogEvent.JOB_ERROR, LogEvent.GROUP_ERROR)


if "rules" in map(str, workflow.output_settings.quiet or ()):
    logger.addHandler(FailedJobs())
hand_on_grant()
try:
    EXPERIMENT = parse_experiment(config, "configuration")
    check_files(EXPERIMENT)
except InputError as error:
    print(f"rlphf: error: {error}", file=sys.stderr)
    sys.exit(2)

RESULTS = f"results/{EXPERIMENT.experiment}"
# Every step of a seed has the wildcard; tables and figures speak for the experiment's own seed, claims for all. A seed's arm
# that makes a mistake of the release goes by "1103/mistakes/<name>" (`mistakes.py`).
SEED = f"{RESULTS}/seed-{{seed}}"
CONFIG = f"{SEED}/config.yaml"
OWN = f"{RESULTS}/seed-{EXPERIMENT.seed}"
SEEDS = EXPERIMENT.seeds or [EXPERIMENT.seed]
TABLES = f"{RESULTS}/tables"
FIGURES = f"{RESULTS}/figures"


RAW = [file for source in EXPERIMENT.data.sources if source.kind != "hub" for file in files_of(source.path)]
# The backbone that lies here already, where it is none of the index or a hub.
GIVEN_BACKBONE = (
    files_of(EXPERIMENT.backbone.name) if EXPERIMENT.backbone.source in ("path", "package") and EXPERIMENT.backbone.name else []
)
ANNOTATOR = files_of(EXPERIMENT.annotator.model) if EXPERIMENT.annotator.kind == "reward_model" else []
PROMPT_FILES = [path for path in (EXPERIMENT.prompts.path, EXPERIMENT.prompts.test_path) if path]
PREFERENCES = EXPERIMENT.preferences
# Those that the testbed's users know: the paper's.
SHARED = shared_preferences(EXPERIMENT)
COMBINED = EXPERIMENT.combination_preferences
METHODS = methods_of(EXPERIMENT)
# Responses that are no method's: of single policies, and of interpolated ones.
OTHERS = ["adapters", *(["front"] if EXPERIMENT.evaluation.front else [])]
JUDGES = EXPERIMENT.evaluation.judges
REWARDS = reward_names(EXPERIMENT)
SELECTORS = [name for name in REWARDS if name == SELECTOR]
FIGURE_NAMES = "curves adapters methods criteria win_rates judges adapter_effects tradeoff release_bugs front costs".split()

# Steps that several processes can share name their GPUs in the command, so they have to declare them: those that the profile
# gives to all steps.
DEFAULTS = workflow.resource_settings.default_resources or {}
GPU = DEFAULTS["gpu"].value if "gpu" in DEFAULTS else 0

USER_METHODS = EXPERIMENT.user_evaluation.methods
RAW_USERS = EXPERIMENT.user_data.source != "testbed"
USERS_ALONE = users_alone(EXPERIMENT)


wildcard_constraints:
    seed="[0-9]+(/mistakes/[a-z_]+|/ablations/[a-z_]+[.][a-z_]+-[a-z0-9.-]+)?",
    preference="P[0-9A-Z]+|general|pmorl|gold|selector|raw-[A-Za-z0-9_-]+",
    method="[a-z_]+",
    compared="|".join(EXPERIMENT.soup.compared) or "none",
    model="[a-z_]+",
    user_method="[a-z_]+",


onstart:
    # First of all: jobs of a workflow that is at work here read the configurations that would be written.
    try:
        start_step(EXPERIMENT, Path(RESULTS), sorted(workflow.dag_settings.targets) or ["all"], os.getpid())
    except InputError as error:
        print(f"rlphf: error: {error}", file=sys.stderr)
        sys.exit(2)
    for seed in SEEDS:
        own = EXPERIMENT.model_copy(update={"seed": seed})
        save_experiment(own, f"{RESULTS}/seed-{seed}/config.yaml")
        for run, mistake in zip(arm_runs(seed, EXPERIMENT.priced), EXPERIMENT.priced):
            save_experiment(own.making(mistake), f"{RESULTS}/seed-{run}/config.yaml")
        for run, (setting, value) in variations(seed, EXPERIMENT.ablations).items():
            save_experiment(own.varied(setting, value), f"{RESULTS}/seed-{run}/config.yaml")
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
    end_workflow(Path(RESULTS), "finished")


onerror:
    end_workflow(Path(RESULTS), "failed")
