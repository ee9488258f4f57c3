"""Scores and comparisons made by hand, for the tests of what is made of a judge's verdicts."""

import numpy as np
import pyarrow as pa

from rlphf.evaluate.judges.comparisons import COMPARISONS
from rlphf.evaluate.scores import SCORES, Scores

COMBINATION, OTHER = "P1A-P2A-P3A", "P1A-P2B-P3A"
CRITERIA = ("P1A", "P2A", "P2B", "P3A", "helpfulness")


def cell(**scores):
    """All criteria, 0 for those not given."""
    nothing = np.zeros_like(next(iter(scores.values())))
    return {criterion: scores.get(criterion, nothing) for criterion in CRITERIA}


def scored(cells) -> Scores:
    """Scores from {(method, combination): {criterion: scores by prompt, or by prompt and sample}}."""
    rows = [
        {"prompt_id": f"q{i}", "method": m, "combination": c, "sample": s, "criterion": criterion, "score": float(score)}
        for (m, c), by_criterion in cells.items()
        for criterion, values in by_criterion.items()
        for i, samples in enumerate(values)
        for s, score in enumerate(np.atleast_1d(samples))
    ]
    return Scores(pa.Table.from_pylist(rows, SCORES))


def compared(verdicts, a="pp", b="psoups", combination=COMBINATION, criterion="P1A") -> list[dict]:
    """COMPARISONS rows from the verdicts by prompt: a pair is (shown a first, shown b first), a single one in order a alone."""
    rows = []
    for i, given in enumerate(verdicts):
        for first, verdict in zip("ab", np.atleast_1d(given).tolist(), strict=False):
            row = {"prompt_id": f"q{i}", "combination": combination, "sample": 0, "method_a": a, "method_b": b}
            rows.append(row | {"criterion": criterion, "first": first, "verdict": verdict, "malformed": False})
    return rows


def comparisons(*parts) -> pa.Table:
    """A COMPARISONS table of such rows."""
    return pa.Table.from_pylist([row for part in parts for row in part], COMPARISONS)
