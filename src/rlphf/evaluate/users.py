"""Methods that serve users, compared: how many held-out pairs they tell rightly, how their answers score, and who wins."""

from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np

from rlphf.data.people import MAJORITY, MINORITY, UNSEEN
from rlphf.errors import InputError
from rlphf.evaluate.bootstrap import Bootstrap, by_group, mean
from rlphf.evaluate.scores import HELPFULNESS, Floats, Row
from rlphf.evaluate.winrate import verdicts, win_rate

SEEN = "seen"
SCORE, ACCURACY = "score", "accuracy"
# Whose users a row speaks for: those who were trained on, of these the majority and the minority, and those who were not.
POPULATIONS: dict[str, tuple[str, ...]] = {
    SEEN: (MAJORITY, MINORITY),
    MAJORITY: (MAJORITY,),
    MINORITY: (MINORITY,),
    UNSEEN: (UNSEEN,),
}
# {method: {pair: (whether it is told rightly, a tie counting half; prompt; group)}}.
Told = Mapping[str, Mapping[str, tuple[float, str, str]]]


def told_rightly(scores: Sequence[Row], prompt_of: Mapping[str, str], group_of: Mapping[int, str]) -> dict:
    """Return {pair: (1, 0 or 0.5 for a tie; prompt; group of its user)} of a method's scored pairs.

    A pair of no known user is left out. Raises InputError for a pair that is not among the users' pairs.
    """
    found = {}
    for row in scores:
        if row["user"] not in group_of:
            continue
        if row["id"] not in prompt_of:
            raise InputError(f"scores: pair {row['id']} is not among the users' pairs; train and answer again")
        found[row["id"]] = ((np.sign(row["own"]) + 1) / 2, prompt_of[row["id"]], group_of[row["user"]])
    return found


def accuracies(told: Told, ceilings: Mapping[str, float | None], seed: int, bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `users_accuracy`; intervals are over prompts. `ceilings` are by pair, None where not known."""
    rows: list[Row] = []
    for method, pairs in told.items():
        for population, groups in POPULATIONS.items():
            chosen = {name: pair for name, pair in pairs.items() if pair[2] in groups}
            if not chosen:
                continue
            right = np.array([pair[0] for pair in chosen.values()], dtype=np.float64)
            low, high = bootstrap.interval(*by_group(right, [pair[1] for pair in chosen.values()]))
            known = [value for name in chosen if (value := ceilings.get(name)) is not None]
            rows.append(
                {"method": method, "population": population, "n_pairs": len(chosen), "accuracy": mean(right)}
                | {"ceiling": mean(np.array(known)) if len(known) == len(chosen) else None}
                | {"ci_low": low, "ci_high": high, "seed": seed}
            )
    return rows


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
        """Return the scores (prompts, users of the population x samples) of a method."""
        chosen = [i for i, group in enumerate(self.groups) if group in POPULATIONS[population]]
        return self.values[method, criterion][:, chosen].reshape(len(self.prompts), -1)

    def populations(self) -> list[str]:
        """Return the populations that have a user."""
        return [name for name, groups in POPULATIONS.items() if set(groups) & set(self.groups)]


def scores(answers: Answers, bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `users_scores`: mean score and helpfulness of each method by population."""
    rows: list[Row] = []
    for method in answers.methods:
        for population in answers.populations():
            for criterion in (SCORE, HELPFULNESS):
                values = answers.of(method, criterion, population).mean(axis=1)
                low, high = bootstrap.interval(values)
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
            half = (found.mean(axis=1) + 1) / 2
            low, high = bootstrap.interval(half)
            rows.append(
                {"method_a": a, "method_b": b, "population": population, "wins": wins, "losses": losses, "ties": ties}
                | {"rate": win_rate(wins, losses), "rate_half_ties": mean(half), "ci_low": low, "ci_high": high}
            )
    return rows


def differences(told: Told, answers: Answers | None, bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `users_differences`: method_a less method_b, on the same pairs and in the same answers."""
    rows: list[Row] = []
    for a, b in permutations(told, 2):
        for population, groups in POPULATIONS.items():
            shared = [name for name, pair in told[a].items() if name in told[b] and pair[2] in groups]
            if shared:
                gaps = np.array([told[a][name][0] - told[b][name][0] for name in shared], dtype=np.float64)
                interval = bootstrap.interval(*by_group(gaps, [told[a][name][1] for name in shared]))
                rows.append(_difference(a, b, population, ACCURACY, gaps, interval))
    if answers is None:
        return rows
    for a, b in permutations(answers.methods, 2):
        for population in answers.populations():
            for criterion in (SCORE, HELPFULNESS):
                gaps = (answers.of(a, criterion, population) - answers.of(b, criterion, population)).mean(axis=1)
                rows.append(_difference(a, b, population, criterion, gaps, bootstrap.interval(gaps)))
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


def lengths(answers: Sequence[Row], people: Sequence[Row], bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `users_length`: tokens of each method's answers to each user, with intervals over prompts."""
    found: dict[tuple[str, int], dict[str, list[int]]] = {}
    for row in answers:
        found.setdefault((row["method"], row["user"]), {}).setdefault(row["prompt_id"], []).append(row["tokens"])
    about = {row["id"]: row for row in people}
    rows: list[Row] = []
    for (method, user), by_prompt in found.items():
        values = np.array([np.mean(by_prompt[prompt]) for prompt in sorted(by_prompt)])
        low, high = bootstrap.interval(values)
        rows.append(
            {"method": method, "user": user, "group": about[user]["group"], "kind": about[user]["kind"]}
            | {"tokens": mean(values), "ci_low": low, "ci_high": high, "n": len(values)}
        )
    return rows


def cold_start(rows: Sequence[Row], bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `cold_start`, of COLD_SCORES: means over new users by method and number of pairs."""
    found: dict[tuple[str, int], dict[str, list[Row]]] = {}
    for row in rows:
        found.setdefault((row["method"], row["pairs"]), {}).setdefault(row["prompt_id"], []).append(row)
    table: list[Row] = []
    for (method, pairs), by_prompt in found.items():
        for criterion in (SCORE, HELPFULNESS):
            values = np.array([np.mean([row[criterion] for row in by_prompt[prompt]]) for prompt in sorted(by_prompt)])
            low, high = bootstrap.interval(values)
            table.append(
                {"method": method, "pairs": pairs, "criterion": criterion, "mean": mean(values)}
                | {"ci_low": low, "ci_high": high, "n": len(values)}
            )
    return table
