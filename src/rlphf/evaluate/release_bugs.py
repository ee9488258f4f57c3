"""What each mistake of Personalized Soups' release costs: the rows of table `release_bugs`, arm by arm (`mistakes.py`)."""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path

import numpy as np

from rlphf.config import Experiment
from rlphf.data.records import PAIR_SCORES, PAIRS, correctness
from rlphf.derived import combinations_of
from rlphf.evaluate.bootstrap import Bootstrap, by_group, mean
from rlphf.evaluate.runs import pairs_file
from rlphf.evaluate.scores import HELPFULNESS, MEAN, Floats, Row, Scores, check_paired, read_scores
from rlphf.files import read_parquet
from rlphf.layout import reward_scores
from rlphf.mistakes import ARMS, FOLDER

ITSELF, BASELINE, UNSEEN = "without it", "pp", "unseen pairs"
REWARD_MODELS = "reward models"


def release_bugs(experiment: Experiment, seed_folder: Path, judged: Path, bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `release_bugs`: for each priced mistake, what it changes on held-out prompts.

    `judged` is the judge's file in a run's folder. Rows compare a method with itself without the mistake, by the mean score
    and by helpfulness over all combinations; soups, also with PP as it is. Where a mistake touches PP and soups, `psoups - pp`
    is the comparison of both. For pairs that are repeated before the split, `reward models` are compared with those without
    it on test pairs, and with themselves: their accuracy on held-out rows against that on test pairs. Intervals are over prompts.
    """
    rows: list[Row] = []
    if not experiment.priced:
        return rows
    clean = read_scores(seed_folder / judged)
    for mistake in experiment.priced:
        folder = seed_folder / FOLDER / mistake
        made = read_scores(folder / judged)
        touched = ARMS[mistake].methods
        found = []
        for method, criterion in product(touched, (MEAN, HELPFULNESS)):
            before, after = (values(scores, method, criterion, experiment) for scores in (clean, made))
            found.append(_difference(method, criterion, ITSELF, before, after, bootstrap))
        if "psoups" in touched and BASELINE in touched:
            gap, made_gap = (values(s, "psoups", MEAN, experiment) - values(s, BASELINE, MEAN, experiment) for s in (clean, made))
            found.append(_difference("psoups - pp", MEAN, ITSELF, gap, made_gap, bootstrap))
        elif "psoups" in touched and BASELINE in experiment.evaluation.methods:
            asked, soups = values(clean, BASELINE, MEAN, experiment), values(made, "psoups", MEAN, experiment)
            found.append(_difference("psoups", MEAN, BASELINE, asked, soups, bootstrap))
        if "reward" in ARMS[mistake].steps:
            found += _accuracies(experiment.combination_preferences, seed_folder, folder, bootstrap)
        rows += [{"mistake": mistake} | row for row in found]
    return rows


def values(scores: Scores, method: str, criterion: str, experiment: Experiment) -> Floats:
    """Return a method's score (prompts,) by a criterion, over samples and all combinations."""
    cells = [(scores.cell(method, combination), combination) for combination in combinations_of(experiment)]
    for cell, _ in cells[1:]:
        check_paired(cells[0][0], cell)
    return np.concatenate([cell.score(criterion, c) for cell, c in cells], axis=1).mean(axis=1)


def _difference(method: str, criterion: str, against: str, before: Floats, after: Floats, bootstrap: Bootstrap) -> Row:
    low, high = bootstrap.interval(after - before)
    row = {"method": method, "criterion": criterion, "against": against, "before": mean(before), "after": mean(after)}
    return row | {"effect": mean(after - before), "ci_low": low, "ci_high": high, "n": len(before)}


def _accuracies(preferences: Sequence[str], clean: Path, arm: Path, bootstrap: Bootstrap) -> Iterator[Row]:
    prompts: dict[str, str] = {}
    for preference in preferences:
        pairs = read_parquet(pairs_file(clean, preference), PAIRS)
        prompts |= dict(zip(pairs["id"].to_pylist(), pairs["prompt"].to_pylist(), strict=True))
    correct = {folder: _right(preferences, folder) for folder in (clean, arm)}

    def grouped(right: dict[str, float]) -> tuple[Floats, Floats]:
        return by_group(np.array(list(right.values())), [prompts[name] for name in right])

    before, after = correct[clean]["test"], correct[arm]["test"]
    change = {name: after[name] - before[name] for name in before}
    yield _accuracy(ITSELF, before, after, bootstrap.interval(*grouped(change)))
    leaked = correct[arm]["leaked"]
    # No prompt is in both sets, so they are drawn apart, also where they are equally many.
    gap = bootstrap.draws(*grouped(leaked), "leaked") - bootstrap.draws(*grouped(after))
    yield _accuracy(UNSEEN, after, leaked, bootstrap.quantiles(gap))


def _right(preferences: Sequence[str], folder: Path) -> dict[str, dict[str, float]]:
    """Return {split: {pair: 1 where the reward model orders it as the annotator did, 1/2 for a tie}} over `preferences`."""
    right: dict[str, dict[str, float]] = {}
    for preference in preferences:
        for row in read_parquet(reward_scores(folder, preference), PAIR_SCORES).to_pylist():
            right.setdefault(row["split"], {})[row["id"]] = correctness(row["chosen"] - row["rejected"])
    return right


def _accuracy(against: str, before: dict[str, float], after: dict[str, float], interval: tuple[float, float]) -> Row:
    means = [mean(np.array(list(right.values()))) for right in (before, after)]
    row = {"method": REWARD_MODELS, "criterion": "accuracy", "against": against, "before": means[0], "after": means[1]}
    return row | {"effect": means[1] - means[0], "ci_low": interval[0], "ci_high": interval[1], "n": len(after)}
