"""The paper's comparison of its six methods, by every judge: each against each, and averages over opponents."""

from collections.abc import Sequence
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from rlphf.derived import PAPER_METHODS
from rlphf.evaluate.bootstrap import Bootstrap, mean
from rlphf.evaluate.scores import HELPFULNESS, MEAN, Row
from rlphf.evaluate.verdicts import Verdicts
from rlphf.evaluate.winrate import MAJORITY, win_rate

CRITERIA = (MAJORITY, MEAN, HELPFULNESS)
# The averages of Personalized Soups' Table 3 (GPT-4) and Table 4 (people) that are known, and the share in which GPT-4 prefers
# P-SOUPS to P-MORL over 16 combinations. How the paper aggregates three criteria and treats ties is not known, so they
# stand beside our majority without being the same quantity.
PAPER_AVERAGED = 8
PAPER_AVERAGES = {"paper_gpt4": {"psoups": 0.5523}, "paper_humans": {"pmorl": 0.5870}}
PAPER_HEAD_TO_HEAD = {("psoups", "pmorl"): 0.5906}
PAPER_COMBINATIONS = 16


def matrix(verdicts: Verdicts, methods: Sequence[str], combinations: Sequence[str], bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `matrix` for one judge: every ordered pair of `methods`, over all combinations.

    `rate` is wins / (wins + losses), `rate_half_ties` (wins + ties / 2) / all, with its interval over prompts. The paper's
    share is known for 16 combinations, and given only with as many.
    """
    rows: list[Row] = []
    for a, b in permutations(methods, 2):
        for criterion in CRITERIA:
            found = over_all(verdicts, a, b, criterion, combinations)
            if found is None:
                continue
            counts = _counts(found)
            half = (found.mean(axis=1) + 1) / 2
            low, high = bootstrap.interval(half)
            known = criterion == MAJORITY and len(combinations) == PAPER_COMBINATIONS
            rows.append(
                {"judge": verdicts.judge, "method_a": a, "method_b": b, "criterion": criterion}
                | counts
                | {"rate": win_rate(counts["wins"], counts["losses"]), "rate_half_ties": mean(half)}
                | {"ci_low": low, "ci_high": high, "paper_gpt4": PAPER_HEAD_TO_HEAD.get((a, b)) if known else None}
            )
    return rows


def averages(verdicts: Verdicts, methods: Sequence[str], combinations: Sequence[str], bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `averages` for one judge: each of `methods` against all others, over all combinations.

    Every opponent counts alike, as in the last column of Personalized Soups' Tables 3 and 4, whose known cells stand beside
    as shares. `rate` is the mean of the opponents' rates without ties, None if one has nothing but ties; the interval over
    prompts is that of `rate_half_ties`.
    """
    rows: list[Row] = []
    # The paper's are over its six methods and eight combinations.
    alike = set(methods) == set(PAPER_METHODS) and len(combinations) == PAPER_AVERAGED
    for a in methods if len(methods) > 1 else []:
        for criterion in CRITERIA:
            against = [over_all(verdicts, a, b, criterion, combinations) for b in methods if b != a]
            found = [one for one in against if one is not None]
            if len(found) < len(against):
                continue
            counts = [_counts(one) for one in found]
            rates = [win_rate(one["wins"], one["losses"]) for one in counts]
            half = (np.mean([one.mean(axis=1) for one in found], axis=0) + 1) / 2
            low, high = bootstrap.interval(half)
            rows.append(
                {"judge": verdicts.judge, "method": a, "criterion": criterion, "opponents": len(found)}
                | {"rate": None if None in rates else mean(np.array(rates, dtype=np.float64))}
                | {"rate_half_ties": mean(half), "ci_low": low, "ci_high": high}
                | {name: known.get(a) if criterion == MAJORITY and alike else None for name, known in PAPER_AVERAGES.items()}
            )
    return rows


def over_all(verdicts: Verdicts, a: str, b: str, criterion: str, combinations: Sequence[str]) -> NDArray[np.int64] | None:
    """Return a judge's verdicts of `a` against `b` over all combinations, (prompts, combinations x samples), or None."""
    parts = [verdicts.between(a, b, combination, criterion) for combination in combinations]
    known = [part for part in parts if part is not None]
    return np.concatenate(known, axis=1) if known and len(known) == len(parts) else None


def _counts(found: NDArray[np.int64]) -> dict[str, int]:
    return {name: int((found == verdict).sum()) for name, verdict in (("wins", 1), ("losses", -1), ("ties", 0))}
