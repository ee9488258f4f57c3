"""Verdicts of any judge in one form: who is better, for every pair of methods, combination and criterion, prompt by prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations as pairs_of

import numpy as np
import pyarrow as pa

from rlphf.errors import InputError
from rlphf.evaluate.scores import HELPFULNESS, MEAN, Scores, check_paired
from rlphf.evaluate.winrate import MAJORITY, judged, majority
from rlphf.evaluate.winrate import Verdicts as Signs
from rlphf.preferences import members

# Judges whose criteria are measured in units of their own (school years, words, polarity): no mean over them says anything.
UNITS_DIFFER = ("rules",)


@dataclass(frozen=True)
class Verdicts:
    """What one judge says: `found` is {(method_a, method_b, combination, criterion): (prompts, samples)}.

    1 where method_a is better, -1 where method_b is, 0 for a tie. A pair of methods is there in one order.
    """

    judge: str
    prompts: tuple[str, ...]
    found: dict[tuple[str, str, str, str], Signs]

    def between(self, a: str, b: str, combination: str, criterion: str) -> Signs | None:
        """Return the verdicts of `a` against `b`; None where the judge gave none.

        "majority" aggregates those by the combination's preferences, if the judge has them all.
        """
        if criterion == MAJORITY:
            parts = [self.between(a, b, combination, name) for name in members(combination)]
            known = [part for part in parts if part is not None]
            return majority(known) if len(known) == len(parts) else None
        if (a, b, combination, criterion) in self.found:
            return self.found[a, b, combination, criterion]
        other = self.found.get((b, a, combination, criterion))
        return None if other is None else -other


def from_scores(judge: str, scores: Scores, methods: Sequence[str], combinations: Sequence[str]) -> Verdicts:
    """Return the verdicts of a judge that scores responses one by one: the higher score wins, equal scores tie.

    By the combination's preferences, helpfulness and "mean", as far as the judge scores them, all preferences in one unit.
    """
    found: dict[tuple[str, str, str, str], Signs] = {}
    prompts: tuple[str, ...] = ()
    for a, b in pairs_of(methods, 2):
        for combination in combinations:
            x, y = scores.cell(a, combination), scores.cell(b, combination)
            check_paired(x, y)
            prompts = x.prompts
            known = set(x.values) & set(y.values)
            named = [name for name in (*members(combination), HELPFULNESS) if name in known]
            averaged = known.issuperset(members(combination)) and judge not in UNITS_DIFFER
            for criterion in (*named, *([MEAN] if averaged else [])):
                found[a, b, combination, criterion] = judged(x, y, criterion, combination)
    return Verdicts(judge, prompts, found)


def from_comparisons(judge: str, table: pa.Table) -> Verdicts:
    """Return the verdicts of a judge that compares, from its COMPARISONS: where its two orders disagree, a tie.

    All methods are compared on the same prompts, with one response to each. Raises InputError naming the first comparison that is
    missing: it would count as a tie.
    """
    given: dict[tuple[str, str, str, str], dict[str, list[int]]] = {}
    for row in table.to_pylist():
        key = (row["method_a"], row["method_b"], row["combination"], row["criterion"])
        given.setdefault(key, {}).setdefault(row["prompt_id"], []).append(row["verdict"])
    prompts = tuple(sorted({prompt for answers in given.values() for prompt in answers}))
    for (a, b, combination, criterion), answers in given.items():
        if missing := [prompt for prompt in prompts if prompt not in answers]:
            raise InputError(
                f"judge {judge}: {a} and {b} were not compared on prompt {missing[0]} (combination {combination}, criterion"
                f" {criterion}), as others were; compare all on the same prompts"
            )
    found = {key: np.array([[_folded(answers[prompt])] for prompt in prompts], dtype=np.int64) for key, answers in given.items()}
    return Verdicts(judge, prompts, found)


def _folded(orders: Sequence[int]) -> int:
    return orders[0] if len(set(orders)) == 1 else 0
