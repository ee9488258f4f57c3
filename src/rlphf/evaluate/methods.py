"""What methods and adapters score on held-out prompts, one by one: means with intervals, and what an adapter changes."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from rlphf.evaluate.bootstrap import Bootstrap, mean
from rlphf.evaluate.scores import ADAPTER, ALL, BASE, FRONT, HELPFULNESS, MEAN, Row, Scores, asked_for, check_paired, pooled
from rlphf.preferences import known as known_preferences


def methods(scores: Scores, names: Sequence[str], combinations: Sequence[str], bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `methods`: the mean score of each method by combination and criterion.

    The preferences of the combination and "mean" over them come first, then, as far as the judge scores these, helpfulness and
    the preferences that were not asked for. In combination "all" a preference is averaged over the combinations
    that ask for it.
    """
    rows: list[Row] = []
    helped = [HELPFULNESS] if scores.knows(HELPFULNESS) else []
    for name in names:
        for combination in (*combinations, ALL):
            asked = asked_for(combination, combinations)
            known = {} if combination == ALL else scores.cell(name, combination).values
            others = [p for p in known_preferences() if p in known and p not in asked]
            for criterion in (*asked, MEAN, *helped, *others):
                cells = [scores.cell(name, c).score(criterion, c) for c in pooled(combination, criterion, combinations)]
                values = np.concatenate(cells, axis=1).mean(axis=1)
                low, high = bootstrap.interval(values)
                rows.append(
                    {"method": name, "combination": combination, "criterion": criterion}
                    | {"mean": mean(values), "ci_low": low, "ci_high": high, "n": len(values)}
                )
    return rows


def adapter_effects(scores: Scores, bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `adapter_effects`: each adapter against the backbone, both asked for the adapter's preference.

    One row per criterion, that is every preference and helpfulness, as far as the judge scores them; intervals are those of the
    paired difference.
    """
    rows: list[Row] = []
    for preference in scores.combinations(ADAPTER):
        before, after = scores.cell(BASE, preference), scores.cell(ADAPTER, preference)
        check_paired(before, after)
        for criterion in [name for name in (*known_preferences(), HELPFULNESS) if name in before.values]:
            old, new = (cell.score(criterion, preference).mean(axis=1) for cell in (before, after))
            low, high = bootstrap.interval(new - old)
            rows.append(
                {"preference": preference, "criterion": criterion, "before": mean(old), "after": mean(new)}
                | {"delta": mean(new - old), "ci_low": low, "ci_high": high}
            )
    return rows


def front(scores: Scores, preferences: Sequence[str], weights: Mapping[str, float], bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `front`: scores of the soups of two `preferences` along `weights`, {cell: the second's weight}."""
    rows: list[Row] = []
    for name, weight in weights.items():
        cell = scores.cell(FRONT, name)
        for criterion in (*preferences, HELPFULNESS):
            values = cell.score(criterion, name).mean(axis=1)
            low, high = bootstrap.interval(values)
            rows.append(
                {"first": preferences[0], "second": preferences[1], "weight": weight, "criterion": criterion}
                | {"mean": mean(values), "ci_low": low, "ci_high": high, "n": len(values)}
            )
    return rows


def lengths(responses: pa.Table) -> dict[tuple[str, str], float]:
    """Return {(method, combination): mean length in tokens} of a RESPONSES table."""
    grouped = responses.group_by(["method", "combination"]).aggregate([("tokens", "mean")])
    return {(row["method"], row["combination"]): row["tokens_mean"] for row in grouped.to_pylist()}


def adapters(effects: Sequence[Row], seed: int, tokens: Mapping[tuple[str, str], float], kl: Mapping[str, float]) -> list[Row]:
    """Return the rows of table `adapters`: the effect of each adapter on its own preference.

    `tokens` are the mean lengths by (method, preference), `kl` is the KL to the backbone, in nats per response (`runs.kept_kl`).
    """
    return [
        {key: row[key] for key in ("preference", "before", "after", "delta", "ci_low", "ci_high")}
        | {"seed": seed, "kl": kl.get(row["preference"])}
        | {"length_before": tokens.get((BASE, row["preference"])), "length_after": tokens.get((ADAPTER, row["preference"]))}
        for row in effects
        if row["criterion"] == row["preference"]
    ]
