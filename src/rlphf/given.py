"""Files and folders of a user's own that the settings of an experiment name, and whether a workflow can read them."""

from pathlib import Path

from rlphf.config import Experiment
from rlphf.errors import InputError
from rlphf.files import visible

# Keys of named models; all others are data.
MODELS = {"backbone.name", "annotator.model"}


def files_of(path: str) -> list[str]:
    """Return the files of raw data, hidden ones and hidden folders left out; `path` itself for a file.

    A workflow reads these and not the folder: a folder's time does not tell that a file in it has changed.
    """
    return [str(file) for file in visible(path)] or [path]


def check_files(experiment: Experiment) -> None:
    """Raise InputError for files and folders that settings name and a workflow cannot read, before it starts without them."""
    named = named_files(experiment)
    missing = {key: path for key, path in named.items() if not Path(path).exists()}
    if missing:
        what = ", ".join(f"{key}: {path}" for key, path in missing.items())
        data = missing.keys() - MODELS
        advice = "see docs/real-text.md for where data come from, or name another" if data else "name where the model lies"
        raise InputError(f"configuration: {what} {'is' if len(missing) == 1 else 'are'} not there; {advice}")
    for key, path in named.items():
        for file in files_of(path):
            if "{" in file or "}" in file:
                raise InputError(f"configuration: {key}: {file}: Snakemake takes braces in a name for its own; rename it")


def named_files(experiment: Experiment) -> dict[str, str]:
    """Return {key: path} of the files and folders of a user's own that the settings name and a workflow reads."""
    backbone, raw_users = experiment.backbone, experiment.user_data.source != "testbed" and experiment.user_evaluation.methods
    named = {f"data.sources.{i}.path": source.path for i, source in enumerate(experiment.data.sources) if source.kind != "hub"}
    more = {
        "prompts.path": experiment.prompts.path,
        "prompts.test_path": experiment.prompts.test_path,
        "user_data.path": experiment.user_data.path if raw_users else None,
        "backbone.name": backbone.name if backbone.source in ("path", "package") else None,
        "annotator.model": experiment.annotator.model if experiment.annotator.kind == "reward_model" else None,
        "evaluation.ratings": experiment.evaluation.ratings if "people" in experiment.evaluation.judges else None,
    }
    return named | {key: path for key, path in more.items() if path}
