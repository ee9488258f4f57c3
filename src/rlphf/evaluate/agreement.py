"""How far judges agree with each other, and each with itself when the two responses change places."""

from collections.abc import Sequence
from itertools import combinations as pairs_of

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rlphf.evaluate.bootstrap import Bootstrap, by_group, mean
from rlphf.evaluate.scores import ALL, HELPFULNESS, Floats, Row, asked_for, pooled
from rlphf.evaluate.verdicts import Verdicts
from rlphf.evaluate.winrate import MAJORITY


def agreement(judges: Sequence[Verdicts], methods: Sequence[str], combinations: Sequence[str], bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `agreement`: every pair of judges, by criterion, over pairs of methods and combinations.

    Compared are the verdicts on the first response to each prompt that both judges saw. `agreement` is the share of equal
    verdicts, ties among them; `agreement_decided` that among the verdicts where neither judge sees a tie, with the interval
    over prompts; `decided` is how many these are.
    """
    rows: list[Row] = []
    for one, other in pairs_of(judges, 2):
        for criterion in (*asked_for(ALL, combinations), HELPFULNESS, MAJORITY):
            found = _both(one, other, criterion, methods, pooled(ALL, criterion, combinations))
            if found is None:
                continue
            first, second = found
            same, decided = (first == second), (first != 0) & (second != 0)
            right, among = (same & decided).sum(axis=1), decided.sum(axis=1)
            row = {"judge_a": one.judge, "judge_b": other.judge, "criterion": criterion, "n": first.size}
            row |= {"agreement": mean(same), "decided": int(decided.sum())}
            rate, low, high = _rate(right.astype(np.float64), among.astype(np.float64), bootstrap)
            rows.append(row | {"agreement_decided": rate, "ci_low": low, "ci_high": high})
    return rows


def swaps_of_scores(verdicts: Verdicts) -> Row:
    """Return the row of table `swaps` of a judge that scores one response at a time, so that no order matters."""
    n = sum(found.size for key, found in verdicts.found.items() if key[3] != "mean")
    row = {"judge": verdicts.judge, "criterion": ALL, "n": n, "consistent": 1.0, "ci_low": 1.0, "ci_high": 1.0}
    return row | {"prefers_first": None, "malformed": 0}


def swaps(judge: str, comparisons: pa.Table, bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `swaps` of a judge that compares, from its COMPARISONS, by criterion and over all.

    `consistent` is the share of the comparisons judged in both orders, `n`, whose verdict stays, with its interval over prompts;
    `prefers_first` the share of all decided verdicts for what was shown first; `malformed` counts replies without a verdict.
    """
    rows: list[Row] = []
    table = comparisons.to_pylist()
    for criterion in (*dict.fromkeys(row["criterion"] for row in table), ALL):
        selected = [row for row in table if criterion in (ALL, row["criterion"])]
        orders: dict[tuple, list[int]] = {}
        for row in selected:
            key = (row["prompt_id"], *(row[name] for name in ("combination", "sample", "method_a", "method_b", "criterion")))
            orders.setdefault(key, []).append(row["verdict"])
        both = {key: found for key, found in orders.items() if len(found) == 2}
        first = [row["verdict"] == (1 if row["first"] == "a" else -1) for row in selected if row["verdict"]]
        row = {"judge": judge, "criterion": criterion, "n": len(both), "consistent": None, "ci_low": None, "ci_high": None}
        if both:
            stays = np.array([float(found[0] == found[1]) for found in both.values()])
            low, high = bootstrap.interval(*by_group(stays, [key[0] for key in both]))
            row |= {"consistent": mean(stays), "ci_low": low, "ci_high": high}
        share = mean(np.array(first, dtype=np.float64)) if first else None
        rows.append(row | {"prefers_first": share, "malformed": sum(row["malformed"] for row in selected)})
    return rows


def _both(
    one: Verdicts, other: Verdicts, criterion: str, methods: Sequence[str], combinations: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return both judges' verdicts on the prompts they share, (prompts, comparisons) each; None where one gave none."""
    shared = sorted(set(one.prompts) & set(other.prompts))
    columns: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    places = [[judge.prompts.index(prompt) for prompt in shared] for judge in (one, other)]
    for a, b in pairs_of(methods, 2):
        for combination in combinations:
            found = [judge.between(a, b, combination, criterion) for judge in (one, other)]
            if found[0] is not None and found[1] is not None:
                columns.append((found[0][places[0], 0], found[1][places[1], 0]))
    if not columns or not shared:
        return None
    first, second = (np.stack([pair[i] for pair in columns], axis=1) for i in (0, 1))
    return first, second


def _rate(right: Floats, among: Floats, bootstrap: Bootstrap) -> tuple[float | None, float | None, float | None]:
    if not among.sum():
        return None, None, None
    low, high = bootstrap.interval(right, among)
    return mean(right.sum() / among.sum()), low, high
