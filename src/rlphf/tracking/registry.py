"""Adapters in MLflow's model registry: a model per preference, reward model and soup, with a version for each run that made it.

Only a seed's own models are there: not those of arms and variations, of single users, or between two policies (`soups/front`).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlphf.errors import InputError
from rlphf.files import CARD, read_text, sha256
from rlphf.tracking.entries import Entry, within
from rlphf.tracking.lineage import read_made

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Rewards and scores of two experiments, or seeds, are on scales of their own, so `best` cannot be by a measure: it is the newest.
BEST, MADE = "best", "made"
# {where an adapter lies among the results: the name of its model}.
NAMES = {
    r"seed-\d+/(?:ppo|sft)/([^/]+)/adapter": "{}",
    r"seed-\d+/reward/([^/]+)/adapter": "reward-{}",
    r"seed-\d+/soups/([^/]+)": "soup-{}",
}
# What a model's description says of its versions.
VERSIONS = (
    "A version per run that made it. Alias `best` is the newest of all experiments, by no measure; `<experiment>-<seed>` is the"
    " newest of that experiment and seed."
)
WEIGHTS, SENT = "adapter_model.safetensors", (".json", ".md", ".safetensors", ".yaml")
# Bytes of weights that a store is given, and characters of a description that MLflow's databases hold.
LARGEST_WEIGHTS, DESCRIPTION = 64 * 2**20, 5000


@dataclass(frozen=True)
class Model:
    """An adapter to be registered: its model's name, its files, where they lie among the run's artifacts, its version's tags."""

    name: str
    files: list[Path]
    place: str
    tags: dict[str, str]
    aliases: tuple[str, str]
    card: str


def models(entry: Entry, record: Mapping[str, Any], experiment: str, problems: list[str]) -> list[Model]:
    """Return the adapters that a finished step made, as they are to be registered, by name.

    An adapter that has changed since its step wrote it is left out, with a line in `problems`. Left out silently: adapters that
    are gone, adapters of superseded records (what lies there now may be another step's), and steps that finished after `record`
    was read (the next pass takes these).
    """
    made = read_made(entry)
    if made is None or entry.earlier or made.id != record["id"] or record["outputs"].keys() != made.record["outputs"].keys():
        return []
    found = []
    for written, output in zip(record["outputs"], made.outputs, strict=True):
        name = _name(output.path, entry.results)
        if name is None or not (output.path / WEIGHTS).is_file() or not within(output.path, entry.results):
            continue
        if sha256(output.path) != output.sha256:
            problems.append(f"{output.path}: has changed since its step wrote it, and is not registered; run the step again")
            continue
        place = written if not Path(written).is_absolute() else output.path.relative_to(entry.results.absolute()).as_posix()
        found.append(_model(name, output.path, place, entry, record, experiment))
    return sorted(found, key=lambda model: model.name)


def sent_files(found: list[Model]) -> Iterator[tuple[Path, str]]:
    """Yield (file, folder among the run's artifacts) of what versions hold."""
    return ((path, model.place) for model in found for path in model.files)


def register(client: "MlflowClient", run: str, found: list[Model]) -> int:
    """Give each model a version of the run `run`, if it has none yet, and its aliases where no newer run has them.

    Returns the number of versions made. A version is made with its tags and its card at once and known by its run, so whatever
    stopped an earlier call, this one does the rest.
    """
    made = 0
    versions = {version.name: version for version in client.search_model_versions(f"run_id = '{run}'")}
    # With an address "runs:/...", which MLflow takes as well, its own pages find no files.
    root = client.get_run(run).info.artifact_uri
    for model in found:
        registered = next(iter(client.search_registered_models(f"name = '{model.name}'")), None)
        if registered is None:
            about = f"{_first_paragraph(model.card)}\n\n{VERSIONS}".strip()
            registered = client.create_registered_model(model.name, description=about)
        version = versions.get(model.name)
        if version is None:
            version = client.create_model_version(
                model.name, f"{root}/{model.place}", run, model.tags, description=model.card or None, await_creation_for=0
            )
            made += 1
        for alias in model.aliases:
            holder = registered.aliases.get(alias)
            if holder is None or client.get_model_version(model.name, holder).tags.get(MADE, "") < model.tags[MADE]:
                client.set_registered_model_alias(model.name, alias, version.version)
    return made


def _name(folder: Path, results: Path) -> str | None:
    """Return the name of the model that a folder of the results is registered as; None for one that is not."""
    results = results.absolute()
    if not folder.is_relative_to(results):
        return None
    place = folder.relative_to(results).as_posix()
    return next((name.format(match[1]) for pattern, name in NAMES.items() if (match := re.fullmatch(pattern, place))), None)


def _model(name: str, folder: Path, place: str, entry: Entry, record: Mapping[str, Any], experiment: str) -> Model:
    weights = folder / WEIGHTS
    small = weights.stat().st_size <= LARGEST_WEIGHTS
    seed = folder.relative_to(entry.results.absolute()).parts[0].removeprefix("seed-")
    tags = {
        MADE: record["end"],
        "experiment": experiment,
        "seed": seed,
        "git_commit": record.get("git_commit"),
        "git_dirty": record.get("git_dirty"),
        "config_hash": record.get("config_hash"),
        "sha256": sha256(weights),
        "path": place,
        "weights": "among the artifacts" if small else "too large to be sent; they lie in path",
    }
    kept = [path for path in sorted(folder.iterdir()) if path.suffix in SENT and within(path, entry.results)]
    return Model(
        name,
        [path for path in kept if path != weights or small],
        folder.relative_to(entry.home.absolute()).as_posix(),
        {key: str(value) for key, value in tags.items() if value is not None},
        (BEST, re.sub(r"[^\w-]", "_", f"{experiment}-{seed}")),
        card_text(folder),
    )


def card_text(folder: Path) -> str:
    """Return what a person reads of a model card, without its YAML and cut to what MLflow holds; "" where there is none."""
    # What cards need takes a second to import, and the follower has to see the workflow before that.
    from rlphf.cards import split_card

    try:
        body = split_card(read_text(folder / CARD, "a model card", 2**20))[1].strip()
    except InputError:
        return ""
    if len(body) <= DESCRIPTION:
        return body
    rest = f"\n\nThe rest is in {CARD} among the run's artifacts."
    return body[: DESCRIPTION - len(rest)] + rest


def _first_paragraph(card: str) -> str:
    """Return the sentence below a card's title."""
    return next((part for part in card.split("\n\n") if part and not part.startswith("#")), "")
