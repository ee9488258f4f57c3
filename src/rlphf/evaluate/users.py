"""Methods that serve users, compared: how many held-out pairs they order correctly, how their answers score, and who wins.

Intervals are over users of the population and prompts: both are drawn (`Bootstrap.crossed`). Only those of lengths, which are
reported user by user, are over prompts alone.
"""

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np

from rlphf.data.people import MAJORITY, MINORITY, UNSEEN
from rlphf.data.records import correctness
from rlphf.errors import InputError
from rlphf.evaluate.bootstrap import Bootstrap, mean
from rlphf.evaluate.scores import HELPFULNESS, Floats, Row
from rlphf.evaluate.winrate import verdicts, win_rate

SEEN = "seen"
SCORE, ACCURACY = "score", "accuracy"
# {population: groups of its users}: all users that were trained on, the majority and the minority among them, and the unseen.
POPULATIONS: dict[str, tuple[str, ...]] = {
    SEEN: (MAJORITY, MINORITY),
    MAJORITY: (MAJORITY,),
    MINORITY: (MINORITY,),
    UNSEEN: (UNSEEN,),
}


class OrderedPair(NamedTuple):
    """How a method orders a held-out pair: `right` is 1 for correctly, 0 for not, 0.5 for a tie; and the pair's user."""

    right: float
    prompt: str
    user: int
    group: str


# {method: {pair id: how the method orders it}}
Ordered = Mapping[str, Mapping[str, OrderedPair]]


def ordered_correctly(scores: Sequence[Row], prompt_of: Mapping[str, str], group_of: Mapping[int, str]) -> dict[str, OrderedPair]:
    """Return {pair id: how a method orders it} of its scored pairs.

    A pair of no known user is left out. Raises InputError for a pair that is not among the users' pairs.
    """
    found: dict[str, OrderedPair] = {}
    for row in scores:
        user = row["user"]
        if user not in group_of:
            continue
        if row["id"] not in prompt_of:
            raise InputError(f"scores: pair {row['id']} is not among the users' pairs; train and answer again")
        found[row["id"]] = OrderedPair(correctness(row["own"]), prompt_of[row["id"]], user, group_of[user])
    return found


def accuracies(ordered: Ordered, ceilings: Mapping[str, float | None], seed: int, bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `users_accuracy`. `ceilings` are by pair, None where not known."""
    rows: list[Row] = []
    for method, pairs in ordered.items():
        for population, groups in POPULATIONS.items():
            selected = {name: pair for name, pair in pairs.items() if pair.group in groups}
            if not selected:
                continue
            right = np.array([pair.right for pair in selected.values()], dtype=np.float64)
            low, high = _over_pairs(right, list(selected.values()), bootstrap)
            known = [value for name in selected if (value := ceilings.get(name)) is not None]
            rows.append(
                {"method": method, "population": population, "n_pairs": len(selected), "accuracy": mean(right)}
                | {"ceiling": mean(np.array(known)) if len(known) == len(selected) else None}
                | {"ci_low": low, "ci_high": high, "seed": seed}
            )
    return rows


def _over_pairs(values: Floats, pairs: Sequence[OrderedPair], bootstrap: Bootstrap) -> tuple[float, float]:
    return bootstrap.crossed(values, [pair.user for pair in pairs], [pair.prompt for pair in pairs])


class Answers:
    """The scores of all methods' answers to the same prompts for the same users: arrays (prompts, users, samples)."""

    def __init__(self, rows: Sequence[Row], group_of: Mapping[int, str], methods: Sequence[str]):
        """Take the rows of USER_SCORES that are of `methods`, in their order.

        Raises InputError for a user without a group, and unless every method answers every prompt for every user equally often.
        """
        rows = [row for row in rows if row["method"] in methods]
        self.users = sorted({row["user"] for row in rows})
        if strange := [user for user in self.users if user not in group_of]:
            raise InputError(f"answers: user {strange[0]} is not among the users; answer and judge again")
        self.groups = [group_of[user] for user in self.users]
        self.prompts = sorted({row["prompt_id"] for row in rows})
        samples = sorted({row["sample"] for row in rows})
        found = {row["method"] for row in rows}
        self.methods = [name for name in methods if name in found]
        shape = (len(self.prompts), len(self.users), len(samples))
        self.values = {(m, c): np.full(shape, np.nan) for m in self.methods for c in (SCORE, HELPFULNESS)}
        numbers = [dict(zip(values, range(len(values)), strict=True)) for values in (self.prompts, self.users, samples)]
        for row in rows:
            where = tuple(n[row[key]] for n, key in zip(numbers, ("prompt_id", "user", "sample"), strict=True))
            for criterion in (SCORE, HELPFULNESS):
                self.values[row["method"], criterion][where] = row[criterion]
        for (method, _), values in self.values.items():
            if np.isnan(values).any():
                raise InputError(f"answers of {method}: not every user is answered every prompt; answer again")

    def of(self, method: str, criterion: str, population: str) -> Floats:
        """Return the scores (prompts, users of the population, samples) of a method."""
        return self.values[method, criterion][:, self._index(population)]

    def interval(self, values: Floats, population: str, bootstrap: Bootstrap) -> tuple[float, float]:
        """Return the 95 % interval of the mean of `values` (prompts, users of the population, samples)."""
        users = [self.users[i] for i in self._index(population)]
        prompts = [prompt for prompt in self.prompts for _ in users]
        return bootstrap.crossed(values.mean(axis=2).ravel(), users * len(self.prompts), prompts)

    def _index(self, population: str) -> list[int]:
        return [i for i, group in enumerate(self.groups) if group in POPULATIONS[population]]

    def populations(self) -> list[str]:
        """Return the populations that have a user."""
        return [name for name, groups in POPULATIONS.items() if set(groups) & set(self.groups)]


def scores(answers: Answers, bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `users_scores`: mean score and helpfulness of each method by population."""
    rows: list[Row] = []
    for method in answers.methods:
        for population in answers.populations():
            for criterion in (SCORE, HELPFULNESS):
                values = answers.of(method, criterion, population)
                low, high = answers.interval(values, population, bootstrap)
                rows.append(
                    {"method": method, "population": population, "criterion": criterion}
                    | {"mean": mean(values), "ci_low": low, "ci_high": high, "n": len(values)}
                )
    return rows


def win_rates(answers: Answers, bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `users_win_rates`: every ordered pair of methods, answer by answer to the same user."""
    rows: list[Row] = []
    for a, b in permutations(answers.methods, 2):
        for population in answers.populations():
            found = verdicts(answers.of(a, SCORE, population), answers.of(b, SCORE, population))
            wins, losses, ties = (int((found == verdict).sum()) for verdict in (1, -1, 0))
            half = (found + 1) / 2
            low, high = answers.interval(half, population, bootstrap)
            rows.append(
                {"method_a": a, "method_b": b, "population": population, "wins": wins, "losses": losses, "ties": ties}
                | {"rate": win_rate(wins, losses), "rate_half_ties": mean(half), "ci_low": low, "ci_high": high}
            )
    return rows


def differences(ordered: Ordered, answers: Answers | None, bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `users_differences`: method_a less method_b, on the same pairs and in the same answers."""
    rows: list[Row] = []
    for a, b in permutations(ordered, 2):
        for population, groups in POPULATIONS.items():
            shared = [name for name, pair in ordered[a].items() if name in ordered[b] and pair.group in groups]
            if shared:
                gaps = np.array([ordered[a][name].right - ordered[b][name].right for name in shared], dtype=np.float64)
                interval = _over_pairs(gaps, [ordered[a][name] for name in shared], bootstrap)
                rows.append(_difference(a, b, population, ACCURACY, gaps, interval))
    if answers is None:
        return rows
    for a, b in permutations(answers.methods, 2):
        for population in answers.populations():
            for criterion in (SCORE, HELPFULNESS):
                gaps = answers.of(a, criterion, population) - answers.of(b, criterion, population)
                interval = answers.interval(gaps, population, bootstrap)
                rows.append(_difference(a, b, population, criterion, gaps, interval))
    return rows


def _difference(a: str, b: str, population: str, criterion: str, gaps: Floats, interval: tuple[float, float]) -> Row:
    return {
        "method_a": a,
        "method_b": b,
        "population": population,
        "criterion": criterion,
        "difference": mean(gaps),
        "ci_low": interval[0],
        "ci_high": interval[1],
        "n": len(gaps),
    }


def lengths(answers: Sequence[Row], user_rows: Sequence[Row], bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `users_length`: tokens of each method's answers to each user, with intervals over prompts.

    Raises InputError for an answer to nobody of `user_rows`.
    """
    found: dict[tuple[str, int], dict[str, list[int]]] = {}
    for row in answers:
        found.setdefault((row["method"], row["user"]), {}).setdefault(row["prompt_id"], []).append(row["tokens"])
    about = {row["id"]: row for row in user_rows}
    rows: list[Row] = []
    for (method, user), by_prompt in found.items():
        if user not in about:
            raise InputError(f"answers of {method}: user {user} is not among the users; answer again")
        values = np.array([np.mean(by_prompt[prompt]) for prompt in sorted(by_prompt)])
        low, high = bootstrap.interval(values)
        rows.append(
            {"method": method, "user": user, "group": about[user]["group"], "kind": about[user]["kind"]}
            | {"tokens": mean(values), "ci_low": low, "ci_high": high, "n": len(values)}
        )
    return rows


def cold_start(rows: Sequence[Row], bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `cold_start`, of COLD_SCORES: means over new users by method and number of pairs."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        found.setdefault((row["method"], row["pairs"]), []).append(row)
    table: list[Row] = []
    for (method, pairs), answered in found.items():
        users, prompts = ([row[key] for row in answered] for key in ("user", "prompt_id"))
        for criterion in (SCORE, HELPFULNESS):
            values = np.array([row[criterion] for row in answered])
            low, high = bootstrap.crossed(values, users, prompts)
            table.append(
                {"method": method, "pairs": pairs, "criterion": criterion, "mean": mean(values)}
                | {"ci_low": low, "ci_high": high, "n": len(set(prompts))}
            )
    return table
