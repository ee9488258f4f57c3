"""What the explorer shows, gathered from a run's responses, scores, recipes and tables as one JSON-able mapping.

Texts are kept once and named by number, and a cell holds the answers of one method to one combination or user as flat lists,
prompt by prompt and sample by sample.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from rlphf.config import Experiment
from rlphf.data.people import PEOPLE
from rlphf.data.records import PROMPTS, RESPONSES, check_prompts, check_responses
from rlphf.derived import SOUPS, methods_of, users_judged
from rlphf.errors import InputError
from rlphf.evaluate.labels import PREFERENCE_LABELS, method_label
from rlphf.evaluate.scores import FRONT, HELPFULNESS, Row, Scores
from rlphf.evaluate.tables import first_scores
from rlphf.evaluate.user_tables import FOLDER, source
from rlphf.evaluate.users import SCORE
from rlphf.files import read_parquet
from rlphf.preferences import AXES, PREFERENCES, axis_of, known
from rlphf.soup.recipe import RECIPE, read_recipe
from rlphf.soup.wanted import front_weights, soup_weights
from rlphf.users.records import ANSWERS, USER_SCORES

# Scores are shown with two decimals; one more keeps sums right.
DECIMALS = 3
INFERRED = "psoups_inferred"
# {criterion: scores by (prompt, sample)}.
Judged = Mapping[str, Mapping[tuple[str, int], float]]


class Texts:
    """Numbers for texts and prompts, each of which is kept once."""

    def __init__(self, asked: Iterable[Row]):
        """Take rows of PROMPTS, whose order is that of the page."""
        self.rows: dict[str, Row] = {row["id"]: row for row in asked}
        self.place = {name: number for number, name in enumerate(self.rows)}
        self.prompts: dict[str, int] = {}
        self.texts: dict[str, int] = {}

    def text(self, text: str) -> int:
        """Return the number of a text."""
        return self.texts.setdefault(text, len(self.texts))

    def ordered(self, names: Iterable[str], where: str) -> list[str]:
        """Return ids of prompts in the page's order; raise InputError, beginning with `where`, for one that is not known."""
        found = set(names)
        if strange := sorted(found - self.place.keys()):
            raise InputError(f"{where}: prompt_id {strange[0]!r} is not among the prompts; generate the responses again")
        return sorted(found, key=self.place.__getitem__)

    def prompt(self, name: str) -> int:
        """Return the number of the prompt with id `name`."""
        return self.prompts.setdefault(name, len(self.prompts))

    def asked(self) -> list[Row]:
        """Return the prompts that were answered, by number."""
        return [{"id": name, "prompt": self.rows[name]["prompt"], "topic": self.rows[name]["topic"]} for name in self.prompts]


def responses_of(experiment: Experiment, seed_folder: Path) -> dict[str, Path]:
    """Return the files of responses that are shown, by method; "front" is one where there is a front."""
    names = [*methods_of(experiment), *([FRONT] if experiment.evaluation.front else [])]
    return {name: seed_folder / "responses" / name / "responses.parquet" for name in names}


def answers_of(experiment: Experiment, seed_folder: Path) -> dict[str, Path]:
    """Return the files of answers to users, by method."""
    folder = seed_folder / FOLDER / "answers"
    return {name: folder / name / "answers.parquet" for name in experiment.user_evaluation.methods}


def prompts_of(experiment: Experiment, seed_folder: Path, users_alone: bool = False) -> dict[str, Path]:
    """Return the files of the prompts that were answered: the experiment's, and those of raw users, where it has such."""
    raw = experiment.user_data.source != "testbed"
    found = {} if users_alone and raw else {"prompts": seed_folder / "prompts" / "prompts.parquet"}
    if raw and experiment.user_evaluation.methods:
        found["user_prompts"] = source(experiment, seed_folder / FOLDER) / "prompts.parquet"
    return found


def users_of(experiment: Experiment, seed_folder: Path) -> Path:
    """Return the file that says who the users are."""
    return source(experiment, seed_folder / FOLDER) / "users.parquet"


def user_scores_of(experiment: Experiment, seed_folder: Path) -> Path | None:
    """Return the file of the oracle's scores of answers to users; None where there is none, or it does not know the users."""
    path = seed_folder / FOLDER / "judge" / "oracle" / "scores.parquet"
    return path if users_judged(experiment) and path.exists() else None


def content(experiment: Experiment, seed_folder: Path, users_alone: bool = False) -> Row:
    """Return all that the page shows of the run in `seed_folder`, its curves aside; with `users_alone` no combination's answers.

    Raises InputError for a file that is missing or none of ours, and unless every cell answers its prompts equally often.
    """
    folder = seed_folder / FOLDER
    texts = Texts(row for path in prompts_of(experiment, seed_folder, users_alone).values() for row in _prompts(path))
    methods = [] if users_alone else methods_of(experiment)
    cells = [] if users_alone else _cells(experiment, seed_folder, texts)
    user_rows, user_cells = _users(experiment, seed_folder, texts) if experiment.user_evaluation.methods else ([], [])
    if users_alone and not user_cells:
        raise InputError(f"{folder}: no user was answered; set user_evaluation.methods and user_evaluation.prompts")
    serving = list(dict.fromkeys(cell["method"] for cell in user_cells))
    names = [*methods, *serving]
    return {
        "experiment": experiment.experiment,
        "seed": experiment.seed,
        "split": experiment.evaluation.split,
        # Answers to users are judged by the oracle alone, which knows their tastes.
        "judge": experiment.evaluation.judges[0] if cells else None,
        "user_judge": "oracle" if any(cell["scores"] for cell in user_cells) else None,
        "preferences": {
            name: {"axis": found.axis, "label": PREFERENCE_LABELS.get(name, found.name), "prompt": found.prompt}
            for name, found in known().items()
        },
        "axes": axes(experiment.combination_preferences),
        "methods": methods,
        "user_methods": serving,
        "labels": {name: label for name in names if (label := method_label(name)) != name},
        "cells": cells,
        "users": user_rows,
        "user_cells": user_cells,
        "recipes": _recipes(experiment, folder, cells, user_cells),
        "prompts": texts.asked(),
        "texts": list(texts.texts),
    }


def axes(ids: Sequence[str]) -> list[Row]:
    """Return the axes of the preferences `ids` in order, each with its preferences: a switch has one of each."""
    found = [{"axis": axis, "preferences": [p for p in ids if axis_of(p) == axis]} for axis in AXES]
    return [row for row in found if row["preferences"]]


def cell(rows: Sequence[Row], texts: Texts, judged: Judged, where: str) -> Row:
    """Return one method's answers as flat lists over prompts and samples: numbers of texts, tokens, whether cut off, scores.

    `rows` are of RESPONSES or ANSWERS. Raises InputError unless each prompt has every sample once, and every answer a score by
    each criterion of `judged`.
    """
    found = {(row["prompt_id"], row["sample"]): row for row in rows}
    names = texts.ordered((row["prompt_id"] for row in rows), where)
    samples = sorted({row["sample"] for row in rows})
    keys = list(product(names, samples))
    for prompt, sample in keys:
        if (prompt, sample) not in found:
            raise InputError(f"{where}: prompt {prompt} has no sample {sample}; generate the responses again")
        for criterion, scores in judged.items():
            if (prompt, sample) not in scores:
                raise InputError(f"{where}: prompt {prompt}, sample {sample} has no score by {criterion}; judge it again")
    return {
        "samples": len(samples),
        "prompts": [texts.prompt(name) for name in names],
        "texts": [texts.text(found[key]["response"]) for key in keys],
        "tokens": [found[key]["tokens"] for key in keys],
        "cut": [number for number, key in enumerate(keys) if not found[key]["finished"]],
        "scores": {name: [round(scores[key], DECIMALS) for key in keys] for name, scores in judged.items()},
    }


def _prompts(path: Path) -> list[Row]:
    table = read_parquet(path, PROMPTS)
    check_prompts(table, str(path))
    return table.to_pylist()


def _grouped(rows: Iterable[Row], name: str) -> dict[tuple[str, Any], list[Row]]:
    found: dict[tuple[str, Any], list[Row]] = {}
    for row in rows:
        found.setdefault((row["method"], row[name]), []).append(row)
    return found


def _cells(experiment: Experiment, seed_folder: Path, texts: Texts) -> list[Row]:
    scores = first_scores(experiment, seed_folder)
    cells = []
    for path in responses_of(experiment, seed_folder).values():
        table = read_parquet(path, RESPONSES)
        check_responses(table, str(path))
        for (name, combination), rows in _grouped(table.to_pylist(), "combination").items():
            made = cell(rows, texts, judged(scores, name, combination), f"{path}: {name} {combination}".rstrip())
            cells.append({"method": name, "combination": combination, **made})
    return cells


def judged(scores: Scores, method: str, combination: str) -> Judged:
    """Return a cell's scores by criterion, prompt and sample; none where the judge did not see it."""
    found = scores.cells.get((method, combination))
    if found is None:
        return {}
    keys = list(product(found.prompts, range(found.samples)))
    order = [name for name in (*known(), HELPFULNESS) if name in found.values]
    return {name: dict(zip(keys, found.values[name].ravel().tolist(), strict=True)) for name in order}


def _users(experiment: Experiment, seed_folder: Path, texts: Texts) -> tuple[list[Row], list[Row]]:
    """Return the users, with their weights where the testbed drew them, and the cells of their answers."""
    people = users_of(experiment, seed_folder)
    user_rows = read_parquet(people, PEOPLE).to_pylist()
    for row, drawn in zip(user_rows, read_parquet(people).to_pylist(), strict=True):
        row["weights"] = {name: round(drawn[name], DECIMALS) for name in PREFERENCES if drawn.get(name)}
    ids = {row["id"] for row in user_rows}
    path = user_scores_of(experiment, seed_folder)
    scored = _grouped(read_parquet(path, USER_SCORES).to_pylist(), "user") if path else {}
    cells = []
    for where in answers_of(experiment, seed_folder).values():
        for (name, user), rows in _grouped(read_parquet(where, ANSWERS).to_pylist(), "user").items():
            if user not in ids:
                raise InputError(f"{where}: user {user} is not among the users; answer again")
            own = scored.get((name, user), [])
            by = {c: {(row["prompt_id"], row["sample"]): row[c] for row in own} for c in (SCORE, HELPFULNESS)} if own else {}
            cells.append({"method": name, "user": user, **cell(rows, texts, by, f"{where}: user {user}")})
    return user_rows, cells


def _recipes(experiment: Experiment, folder: Path, cells: Sequence[Row], user_cells: Sequence[Row]) -> list[Row]:
    """Return the decoded soups: whose they are, their weights, and the number of their cell."""
    found: list[Row] = []
    for number, row in enumerate(cells):
        if row["method"] == SOUPS:
            weights = soup_weights(experiment, row["combination"])
            found.append({"kind": "combination", "name": row["combination"], "weights": weights, "cell": number})
        elif row["method"] == FRONT:
            weights = front_weights(experiment)[row["combination"]]
            found.append({"kind": "front", "name": row["combination"], "weights": weights, "cell": number})
    for number, row in enumerate(user_cells):
        if row["method"] == INFERRED:
            weights = read_recipe(folder / "soups" / "inferred" / str(row["user"]) / RECIPE).weights
            found.append({"kind": "user", "name": str(row["user"]), "weights": weights, "cell": number})
    return [{**row, "weights": {name: round(w, DECIMALS) for name, w in row["weights"].items()}} for row in found]
