"""A judge's scores: the table that judges write, and its cells as arrays over prompts for the tables that compare."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rlphf.errors import InputError
from rlphf.files import read_parquet
from rlphf.preferences import members

SCORES = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("method", pa.string(), nullable=False),
        pa.field("combination", pa.string(), nullable=False),  # As in the responses: "" where none was asked for.
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("criterion", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
    ]
)
# What names a response, and the order of a table's rows.
KEY = ("prompt_id", "method", "combination", "sample")
ORDER = ("method", "combination", "prompt_id", "sample", "criterion")
MEAN = "mean"
HELPFULNESS = "helpfulness"
ALL = "all"
# Responses that are no method's: of the backbone and of single policies, both asked for one preference, and of interpolated ones.
BASE, ADAPTER, FRONT = "base", "adapter", "front"

Row = dict[str, Any]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """The scores of one method's responses for one combination: an array (prompts, samples) per criterion."""

    name: str
    prompts: tuple[str, ...]
    samples: int
    values: dict[str, Floats]

    def score(self, criterion: str, combination: str) -> Floats:
        """Return the scores (prompts, samples) by a criterion; "mean" is the mean over the combination's preferences."""
        wanted = members(combination) if criterion == MEAN else [criterion]
        for name in wanted:
            if name not in self.values:
                raise InputError(f"{self.name}: no scores by criterion {name}; judge the responses again")
        return np.mean([self.values[name] for name in wanted], axis=0)


class Scores:
    """All cells of a scores table; `where` names its file in errors."""

    def __init__(self, table: pa.Table, where: str = "scores"):
        """Take a SCORES table; raise InputError unless every cell scores each prompt and sample once by each criterion."""
        self.where = where
        self.cells: dict[tuple[str, str], Cell] = {}
        names = ("method", "combination", "criterion", "prompt_id", "sample", "score")
        table = table.sort_by([(name, "ascending") for name in names])
        rows = zip(*(table[name].to_pylist() for name in names), strict=True)
        for (method, combination), found in groupby(rows, key=lambda row: row[:2]):
            self.cells[method, combination] = _cell(self._name(method, combination), list(found))

    def cell(self, method: str, combination: str) -> Cell:
        """Return a method's cell for a combination; the cell of "" where the method has no other."""
        key = (method, "" if self.combinations(method) == [""] else combination)
        if key in self.cells:
            return self.cells[key]
        raise InputError(f"{self._name(method, combination)}: no scores; generate and judge its responses first")

    def knows(self, criterion: str) -> bool:
        """Return whether the judge scores by a criterion."""
        return any(criterion in cell.values for cell in self.cells.values())

    def responses(self, method: str) -> int:
        """Return how many responses of a method were scored."""
        return sum(len(cell.prompts) * cell.samples for (name, _), cell in self.cells.items() if name == method)

    def combinations(self, method: str) -> list[str]:
        """Return the combinations that a method has cells for, sorted."""
        return sorted(combination for name, combination in self.cells if name == method)

    def _name(self, method: str, combination: str) -> str:
        return f"{self.where}: method {method}" + (f", combination {combination}" if combination else "")


def score_table(scored: Iterable[tuple[Row, str, float]]) -> pa.Table:
    """Return a sorted SCORES table of what was `scored`: (row of RESPONSES, criterion, score)."""
    columns: dict[str, list] = {name: [] for name in SCORES.names}
    for row, criterion, score in scored:
        for name, value in (*((name, row[name]) for name in KEY), ("criterion", criterion), ("score", score)):
            columns[name].append(value)
    return in_order(pa.table(columns, SCORES))


def in_order(table: pa.Table) -> pa.Table:
    """Return a SCORES table with its rows in ORDER."""
    return table.sort_by([(name, "ascending") for name in ORDER])


def read_scores(path: Path | str) -> Scores:
    """Read a judge's scores; raise InputError when the file is no such table or has holes."""
    return Scores(read_parquet(path, SCORES), str(path))


def chances(scores: Scores, reference: str) -> Scores:
    """Return scores that are log-odds as chances, in [0, 1], to be chosen over the answers of method `reference` to the prompt.

    sigmoid(score - mean score of these answers): 1/2 is as good as they are. Source: the Bradley-Terry model, which reward models
    are trained by. Raises InputError where `reference` has no scores by a criterion.
    """
    return _against(scores, reference, lambda own, base: 1 / (1 + np.exp(base.mean(axis=1, keepdims=True) - own)))


def percentiles(scores: Scores, reference: str) -> Scores:
    """Return scores as normal percentiles, in [0, 1], among the answers of method `reference` to all prompts.

    Phi((score - mean) / deviation) with their mean and deviation by the criterion: 1/2 is as high as they are on average. Scores
    in units of their own, as rules' words and school years, become comparable, and their order stays. Raises InputError where
    `reference` has no scores by a criterion.
    """
    # Takes a while to import, and other judges' scores need none of it.
    from scipy.special import ndtr

    def measure(own: Floats, base: Floats) -> Floats:
        if base.min() == base.max():
            # They tell no more than whether a score is higher or lower; rounding of their mean must not.
            return (1 + np.sign(own - base.min())) / 2
        return ndtr((own - base.mean()) / base.std())

    return _against(scores, reference, measure)


def _against(scores: Scores, reference: str, measure: Callable[[Floats, Floats], Floats]) -> Scores:
    """Return `measure`(own, base) of the scores (prompts, samples) of each cell, and of `reference` in the same combination."""
    made = copy(scores)
    made.cells = {}
    for (method, combination), cell in scores.cells.items():
        base = scores.cell(reference, combination)
        check_paired(base, cell)
        values = {name: measure(own, base.score(name, combination)) for name, own in cell.values.items()}
        made.cells[method, combination] = replace(cell, values=values)
    return made


def pooled(combination: str, criterion: str, combinations: Sequence[str]) -> list[str]:
    """Return the combinations that a table's row speaks for: its own, or for "all" those in which the criterion counts.

    A preference counts in the combinations that ask for it, every other criterion in all of them.
    """
    if combination != ALL:
        return [combination]
    asking = [c for c in combinations if criterion in members(c)]
    return asking or list(combinations)


def asked_for(combination: str, combinations: Sequence[str]) -> list[str]:
    """Return the preferences of a combination, or for "all" those of any combination, in order."""
    return members(combination) if combination != ALL else sorted({p for c in combinations for p in members(c)})


def check_paired(a: Cell, b: Cell) -> None:
    """Raise InputError unless both cells answer the same prompts equally often."""
    odd = sorted(set(a.prompts) ^ set(b.prompts))
    if odd:
        raise InputError(f"{b.name}: its prompts are not those of {a.name} (first odd one: {odd[0]}); answer the same prompts")
    if a.samples != b.samples:
        raise InputError(f"{b.name}: {b.samples} responses per prompt and {a.samples} in {a.name}; sample equally many")


def _cell(name: str, rows: list[tuple]) -> Cell:
    prompts = tuple(sorted({row[3] for row in rows}))
    samples = sorted({row[4] for row in rows})
    expected = list(product(prompts, samples))
    values: dict[str, Floats] = {}
    for criterion, found in groupby(rows, key=lambda row: row[2]):
        scored = list(found)
        times = Counter((row[3], row[4]) for row in scored)
        for prompt, sample in expected:
            if times[prompt, sample] != 1:
                count = times[prompt, sample]
                raise InputError(f"{name}: prompt {prompt}, sample {sample} has {count} scores by {criterion}; expected one")
        values[criterion] = np.array([row[5] for row in scored], dtype=np.float64).reshape(len(prompts), len(samples))
    return Cell(name, prompts, len(samples), values)
