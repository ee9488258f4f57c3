"""The description of a run in MLflow, in Markdown: what its step does, where its outputs lie, and the card of an adapter."""

from collections.abc import Mapping
from typing import Any

from rlphf.errors import InputError
from rlphf.files import read_text
from rlphf.tracking.entries import Entry
from rlphf.tracking.registry import Model

NOTE = "mlflow.note.content"
# What MLflow's databases hold of a tag.
LONGEST = 8000
SHORT = 12
SUMMARY = "summary.txt"
# {step, or its first word: what it does}.
ABOUT = {
    "data": "Reads and splits the experiment's own pairs.",
    "prompts": "Makes the prompts of training, validation and test.",
    "backbone": "Makes the frozen language model that every adapter sits on.",
    "rollouts": "Samples two answers of the backbone to each prompt.",
    "annotate": "Chooses between two answers: the pairs that a reward model learns from.",
    "reward": "Trains a reward model: a LoRA with a scalar head.",
    "ppo": "Trains a policy, a LoRA, on a reward model or a text rule.",
    "mt": "Trains a policy that imitates the chosen answers of all preferences.",
    "soups": "Merges policies into one adapter per combination of preferences, without training.",
    "generate": "Samples a method's answers to the held-out prompts.",
    "judge": "Judges the answers of all methods.",
    "users": "Makes the users and what they chose.",
    "dpo": "Trains a model of users on their pairs with P-DPO, or without users with DPO.",
    "prm": "Trains a reward model of users on their pairs.",
    "pooled": "Trains a policy that imitates what all users chose.",
    "user soups": "Merges a soup per user.",
    "answers": "Samples a method's answers to every user.",
    "cold start": "Serves new users after a few of their pairs.",
    "tables": "Makes the tables from scores and records.",
    "user tables": "Makes the tables about users.",
    "figures": "Draws the figures from the tables.",
    "claims": "Decides what the experiment claims, with intervals.",
    "explorer": "Makes the page to read all answers in.",
    "summary": "Writes the main results as text.",
}


def note(entry: Entry, record: Mapping[str, Any], status: str, made: list[Model]) -> str:
    """Return the description of a record's run; `made` are the adapters that it registers."""
    text = _workflow(entry, record, status) if "experiment" in record else _step(record, made)
    return text if len(text) <= LONGEST else text[: LONGEST - 4] + " ..."


def _workflow(entry: Entry, record: Mapping[str, Any], status: str) -> str:
    targets = " ".join(record.get("targets") or []) or "all"
    lines = [
        f"A start of the experiment `{record['experiment']}` for `{targets}`. Each step is a run below this one.",
        "",
        "- Policies, reward models and soups are in the model registry, by preference and combination.",
        f"- Outputs lie in `results/{entry.results.absolute().name}/`, each with its `record.json`.",
    ]
    try:
        # What lies there after another start is no longer this one's.
        summary = read_text(entry.results / SUMMARY, "a summary") if status == "finished" and not entry.earlier else ""
    except InputError:
        summary = ""
    return "\n".join(lines) + (_quoted(summary, LONGEST - sum(map(len, lines)) - 100) if summary else "")


def _quoted(text: str, most: int) -> str:
    """Return the first lines of a text as a block of code, of at most about `most` characters."""
    kept = text.rstrip() if len(text) <= most else text[:most].rpartition("\n")[0] + "\n..."
    return f"\n\n```\n{kept}\n```"


def _step(record: Mapping[str, Any], made: list[Model]) -> str:
    name, outputs = record["step"], record.get("outputs") or {}
    parts = [ABOUT.get(name) or ABOUT.get(name.split()[0]) or f"The step `{name}`."]
    if outputs:
        rows = [f"| `{path}` | {described['bytes']:,} | `{described['sha256'][:SHORT]}` |" for path, described in outputs.items()]
        parts.append("\n".join(["| output | bytes | SHA-256 |", "| --- | ---: | --- |", *rows]))
    if len(made) == 1:
        parts += [f"Registered as `{made[0].name}`.", made[0].card]
    elif made:
        rows = [f"| `{model.name}` | `{model.place}` |" for model in made]
        parts.append("\n".join(["| registered model | among the artifacts |", "| --- | --- |", *rows]))
    return "\n\n".join(part.strip() for part in parts)
