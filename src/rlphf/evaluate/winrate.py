"""Head to head: which of two methods a criterion prefers, prompt by prompt, and the paired differences of their scores."""

from collections.abc import Iterator, Sequence
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from rlphf.evaluate.bootstrap import Bootstrap, mean
from rlphf.evaluate.scores import ALL, HELPFULNESS, MEAN, Cell, Floats, Row, Scores, asked_for, check_paired, pooled
from rlphf.preferences import members

MAJORITY = "majority"
# Scores closer than this are a tie: means of the same scores may differ in their last bits.
TOLERANCE = 1e-9

Verdicts = NDArray[np.int64]


def verdicts(a: Floats, b: Floats) -> Verdicts:
    """Return 1 where `a` scores higher, -1 where `b` does, and 0 for a tie; all of one shape."""
    return np.where(np.abs(a - b) <= TOLERANCE, 0, np.sign(a - b)).astype(np.int64)


def majority(by_criterion: Sequence[Verdicts]) -> Verdicts:
    """Return the aggregated verdicts: the method that wins more criteria than it loses, else a tie (rule: ours)."""
    return np.sign(np.sum(by_criterion, axis=0)).astype(np.int64)


def judged(a: Cell, b: Cell, criterion: str, combination: str) -> Verdicts:
    """Return the verdicts (prompts, samples) between two methods' responses for one combination.

    "mean" compares the mean scores over the combination's preferences, "majority" aggregates their three verdicts.
    """
    if criterion == MAJORITY:
        return majority([judged(a, b, member, combination) for member in members(combination)])
    return verdicts(a.score(criterion, combination), b.score(criterion, combination))


def win_rate(wins: int, losses: int) -> float | None:
    """Return wins / (wins + losses), which does not consider ties; None when there is nothing but ties."""
    return wins / (wins + losses) if wins + losses else None


def win_rates(scores: Scores, methods: Sequence[str], combinations: Sequence[str], bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `win_rates`: every ordered pair of methods by combination and criterion.

    `rate` leaves ties out, `rate_half_ties` is (wins + ties / 2) / all; the interval over prompts belongs to the latter.
    """
    rows: list[Row] = []
    for a, b, combination, criterion in _questions(scores, methods, combinations, (MEAN, MAJORITY)):
        found = np.concatenate(
            [judged(x, y, criterion, c) for c, x, y in _cells(scores, a, b, pooled(combination, criterion, combinations))], axis=1
        )
        wins, losses, ties = (int((found == verdict).sum()) for verdict in (1, -1, 0))
        half = (found.mean(axis=1) + 1) / 2
        low, high = bootstrap.interval(half)
        rows.append(
            {"method_a": a, "method_b": b, "combination": combination, "criterion": criterion}
            | {"wins": wins, "losses": losses, "ties": ties}
            | {"rate": win_rate(wins, losses), "rate_half_ties": mean(half), "ci_low": low, "ci_high": high}
        )
    return rows


def differences(scores: Scores, methods: Sequence[str], combinations: Sequence[str], bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `differences`: mean over prompts of method_a's score minus method_b's on the same prompt."""
    rows: list[Row] = []
    for a, b, combination, criterion in _questions(scores, methods, combinations, (MEAN,)):
        pairs = _cells(scores, a, b, pooled(combination, criterion, combinations))
        gaps = np.concatenate([x.score(criterion, c) - y.score(criterion, c) for c, x, y in pairs], axis=1).mean(axis=1)
        low, high = bootstrap.interval(gaps)
        rows.append(
            {"method_a": a, "method_b": b, "combination": combination, "criterion": criterion}
            | {"difference": mean(gaps), "ci_low": low, "ci_high": high, "n": len(gaps)}
        )
    return rows


def _questions(
    scores: Scores, methods: Sequence[str], combinations: Sequence[str], aggregated: Sequence[str]
) -> Iterator[tuple[str, str, str, str]]:
    helped = [HELPFULNESS] if scores.knows(HELPFULNESS) else []
    for a, b in permutations(methods, 2):
        for combination in (*combinations, ALL):
            for criterion in (*asked_for(combination, combinations), *aggregated, *helped):
                yield a, b, combination, criterion


def _cells(scores: Scores, a: str, b: str, combinations: Sequence[str]) -> Iterator[tuple[str, Cell, Cell]]:
    for combination in combinations:
        x, y = scores.cell(a, combination), scores.cell(b, combination)
        check_paired(x, y)
        yield combination, x, y
