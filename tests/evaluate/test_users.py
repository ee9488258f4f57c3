"""Comparisons of methods that serve users, against plain loops over their rows."""

from itertools import permutations
from random import Random
from statistics import mean

import pytest

from rlphf.data.people import MAJORITY, MINORITY, UNSEEN
from rlphf.errors import InputError
from rlphf.evaluate.bootstrap import Bootstrap
from rlphf.evaluate.users import (
    POPULATIONS,
    Answers,
    accuracies,
    cold_start,
    differences,
    lengths,
    ordered_correctly,
    scores,
    win_rates,
)

BOOTSTRAP = Bootstrap(1, 200)
GROUPS = {1: MAJORITY, 2: MAJORITY, 3: MINORITY, 9: UNSEEN}
# Pairs of unequal number per prompt and user.
PAIRS = {"p1": ("q1", 1), "p2": ("q1", 1), "p3": ("q1", 2), "p4": ("q2", 3), "p5": ("q2", 9), "p6": ("q3", 2)}
PROMPT_OF = {name: prompt for name, (prompt, _) in PAIRS.items()}
MARGINS = {"dpo": [0.5, -0.1, 0.0, -2.0, 1.0, 3.0], "pdpo": [0.2, 0.3, -1.0, 4.0, 0.0, 3.0], "sft": [0.0] * 6}


def scored(method: str, names=tuple(PAIRS)) -> list[dict]:
    return [
        {"id": name, "user": PAIRS[name][1], "own": own, "generic": -own}
        for name, own in zip(PAIRS, MARGINS[method], strict=True)
        if name in names
    ]


def right(margin: float) -> float:
    return 0.5 if margin == 0 else float(margin > 0)


def told(*methods: str) -> dict:
    return {method: ordered_correctly(scored(method), PROMPT_OF, GROUPS) for method in methods}


def pick(rows: list[dict], **where) -> dict:
    (found,) = (row for row in rows if all(row[key] == value for key, value in where.items()))
    return found


# Pairs that are told.


def test_a_tie_counts_half_and_pairs_of_nobody_are_left_out() -> None:
    rows = [*scored("dpo"), {"id": "x", "user": 0, "own": 1.0, "generic": 1.0}]
    found = ordered_correctly(rows, PROMPT_OF, GROUPS)
    assert found == {
        name: (right(own), prompt, user, GROUPS[user])
        for (name, (prompt, user)), own in zip(PAIRS.items(), MARGINS["dpo"], strict=True)
    }
    assert found["p3"].right == 0.5
    with pytest.raises(InputError, match="pair p7 is not among the users' pairs; train and answer again"):
        ordered_correctly([{"id": "p7", "user": 1, "own": 1.0}], PROMPT_OF, GROUPS)


def test_accuracies_are_shares_of_each_populations_pairs() -> None:
    ceilings = {name: 0.6 + 0.05 * i for i, name in enumerate(PAIRS)}
    rows = accuracies(told("dpo", "sft"), {**ceilings, "p4": None}, 7, BOOTSTRAP)
    assert len(rows) == 8
    for method in ("dpo", "sft"):
        for population, groups in POPULATIONS.items():
            row = pick(rows, method=method, population=population)
            index = [i for i, (_, user) in enumerate(PAIRS.values()) if GROUPS[user] in groups]
            assert row["n_pairs"] == len(index) and row["seed"] == 7
            assert row["accuracy"] == pytest.approx(mean(right(MARGINS[method][i]) for i in index))
            assert row["ci_low"] <= row["accuracy"] <= row["ci_high"]
    assert pick(rows, method="dpo", population="majority")["ceiling"] == pytest.approx((0.6 + 0.65 + 0.7 + 0.85) / 4)
    # Where the noise of one pair is not known, nothing is said.
    assert (
        pick(rows, method="dpo", population="minority")["ceiling"]
        is pick(rows, method="dpo", population="seen")["ceiling"]
        is None
    )
    assert {row["accuracy"] for row in rows if row["method"] == "sft"} == {0.5}


def test_a_population_without_pairs_has_no_row() -> None:
    few = {"dpo": ordered_correctly(scored("dpo", ("p1", "p6")), PROMPT_OF, GROUPS)}
    assert [row["population"] for row in accuracies(few, {}, 7, BOOTSTRAP)] == ["seen", "majority"]
    assert accuracies({"dpo": {}}, {}, 7, BOOTSTRAP) == [] == differences({"dpo": {}, "sft": {}}, None, BOOTSTRAP)


def test_intervals_draw_the_pairs_of_one_prompt_together() -> None:
    # Of two prompts one is ordered wholly correctly and one wholly wrongly, however many pairs they have.
    rows = [{"id": f"{q}{i}", "user": 1, "own": 1.0 if q == "a" else -1.0} for q in "ab" for i in range(50)]
    found = ordered_correctly(rows, {row["id"]: row["id"][0] for row in rows}, GROUPS)
    row = pick(accuracies({"dpo": found}, {}, 7, BOOTSTRAP), population="seen")
    assert (row["accuracy"], row["ci_low"], row["ci_high"]) == (0.5, 0.0, 1.0)
    ties = {name: pair._replace(right=0.5) for name, pair in found.items()}
    row = pick(differences({"dpo": found, "sft": ties}, None, BOOTSTRAP), method_a="dpo", population="seen")
    assert (row["difference"], row["ci_low"], row["ci_high"]) == (0.0, -0.5, 0.5)


def test_intervals_of_pairs_and_of_answers_draw_the_users_too() -> None:
    # One user is served wholly, one not at all, by every prompt alike: prompts alone would leave no doubt.
    pairs = [{"id": f"{u}{i}", "user": u, "own": 1.0 if u == 1 else -1.0} for u in (1, 2) for i in range(20)]
    found = ordered_correctly(pairs, {row["id"]: row["id"][1:] for row in pairs}, GROUPS)
    keys = [{"user": u, "prompt_id": f"q{i}", "sample": 0} for u in (1, 2) for i in range(20)]
    judgements = [
        {**key, "method": method, "score": float(key["user"] == 1) if method == "dpo" else 0.5, "helpfulness": 0.5}
        for method in ("dpo", "sft")
        for key in keys
    ]
    answers = Answers(judgements, GROUPS, ["dpo", "sft"])
    ties = {name: pair._replace(right=0.5) for name, pair in found.items()}
    gaps = differences({"dpo": found, "sft": ties}, answers, BOOTSTRAP)
    cold = cold_start([row | {"pairs": 5} for row in judgements], BOOTSTRAP)
    wide = [
        pick(accuracies({"dpo": found}, {}, 7, BOOTSTRAP), population="seen"),
        pick(scores(answers, BOOTSTRAP), method="dpo", population="seen", criterion="score"),
        pick(win_rates(answers, BOOTSTRAP), method_a="dpo", population="seen"),
        pick(cold, method="dpo", criterion="score"),
    ]
    assert [(row["ci_low"], row["ci_high"]) for row in wide] == [(0, 1)] * 4
    for criterion in ("accuracy", "score"):
        row = pick(gaps, method_a="dpo", population="seen", criterion=criterion)
        assert (row["difference"], row["ci_low"], row["ci_high"]) == (0, -0.5, 0.5)


def test_differences_of_accuracy_are_taken_on_the_pairs_that_both_have_told() -> None:
    both = told("dpo", "pdpo") | {"sft": ordered_correctly(scored("sft", ("p1", "p3", "p4")), PROMPT_OF, GROUPS)}
    rows = differences(both, None, BOOTSTRAP)
    for a, b in permutations(both, 2):
        for population, groups in POPULATIONS.items():
            shared = [name for name in PAIRS if name in both[a] and name in both[b] and GROUPS[PAIRS[name][1]] in groups]
            found = [row for row in rows if (row["method_a"], row["method_b"], row["population"]) == (a, b, population)]
            assert len(found) == (1 if shared else 0)
            for row in found:
                gaps = [both[a][name][0] - both[b][name][0] for name in shared]
                assert row["difference"] == pytest.approx(mean(gaps)) and row["n"] == len(gaps)
                assert row["criterion"] == "accuracy" and row["ci_low"] <= row["difference"] <= row["ci_high"]
    assert not [row for row in rows if "sft" in (row["method_a"], row["method_b"]) and row["population"] == "unseen"]


# Answers.


def judged(*methods: str, users=tuple(GROUPS)) -> list[dict]:
    """Scores of two answers of every method to three prompts for each user, in any order; few values, so that some tie."""
    rng = Random(3)
    keys = [(m, u, q, s) for m in methods for u in users for q in ("q1", "q2", "q3") for s in (0, 1)]
    rows = [
        {"method": m, "user": u, "prompt_id": q, "sample": s, "score": rng.choice([0.0, 0.5, 1.0]), "helpfulness": rng.random()}
        for m, u, q, s in keys
    ]
    return rng.sample(rows, len(rows))


def test_scores_and_differences_are_means_over_a_populations_answers() -> None:
    rows = judged("dpo", "pdpo")
    answers = Answers(rows, GROUPS, ["pdpo", "dpo"])
    table, gaps = scores(answers, BOOTSTRAP), differences({}, answers, BOOTSTRAP)
    assert answers.methods == ["pdpo", "dpo"] and len(table) == 2 * 4 * 2 == len(gaps)
    for population, groups in POPULATIONS.items():
        for criterion in ("score", "helpfulness"):
            means = {}
            for method in ("dpo", "pdpo"):
                own = [r[criterion] for r in rows if r["method"] == method and GROUPS[r["user"]] in groups]
                row = pick(table, method=method, population=population, criterion=criterion)
                means[method] = mean(own)
                assert row["mean"] == pytest.approx(means[method]) and row["n"] == 3
                assert row["ci_low"] <= row["mean"] <= row["ci_high"]
            row = pick(gaps, method_a="pdpo", method_b="dpo", population=population, criterion=criterion)
            assert row["difference"] == pytest.approx(means["pdpo"] - means["dpo"]) and row["n"] == 3


def test_win_rates_compare_answers_to_one_user_prompt_by_prompt_and_sample_by_sample() -> None:
    rows = judged("dpo", "pdpo")
    found = win_rates(Answers(rows, GROUPS, ["dpo", "pdpo"]), BOOTSTRAP)
    score = {(r["method"], r["user"], r["prompt_id"], r["sample"]): r["score"] for r in rows}
    for a, b in (("dpo", "pdpo"), ("pdpo", "dpo")):
        for population, groups in POPULATIONS.items():
            keys = [key[1:] for key in score if key[0] == a and GROUPS[key[1]] in groups]
            each = [(score[a, *key], score[b, *key]) for key in keys]
            wins, losses, ties = (sum(f(x, y) for x, y in each) for f in (float.__gt__, float.__lt__, float.__eq__))
            row = pick(found, method_a=a, method_b=b, population=population)
            assert (row["wins"], row["losses"], row["ties"]) == (wins, losses, ties)
            assert row["rate"] == (wins / (wins + losses) if wins + losses else None)
            assert row["rate_half_ties"] == pytest.approx((wins + ties / 2) / len(each))
            assert row["ci_low"] <= row["rate_half_ties"] <= row["ci_high"]
    assert pick(found, method_a="dpo", method_b="pdpo", population="seen")["ties"] > 0


def test_populations_without_a_user_have_no_rows() -> None:
    answers = Answers(judged("dpo", "pdpo", users=(1, 2)), GROUPS, ["dpo", "pdpo"])
    assert answers.populations() == ["seen", "majority"]
    for rows in (scores(answers, BOOTSTRAP), win_rates(answers, BOOTSTRAP), differences({}, answers, BOOTSTRAP)):
        assert {row["population"] for row in rows} == {"seen", "majority"}
    # A reward model answers nothing.
    assert scores(Answers([], GROUPS, ["prm"]), BOOTSTRAP) == []


def test_answers_that_are_missing_or_of_strangers_are_refused_and_those_of_other_methods_passed_over() -> None:
    rows = judged("dpo", "pdpo")
    for gone in (rows[0], rows[-1]):
        with pytest.raises(InputError, match=f"answers of {gone['method']}: not every user is answered every prompt"):
            Answers([row for row in rows if row is not gone], GROUPS, ["dpo", "pdpo"])
    with pytest.raises(InputError, match="answers: user 9 is not among the users"):
        Answers(rows, {1: MAJORITY, 2: MAJORITY, 3: MINORITY}, ["dpo"])
    assert Answers(rows, GROUPS, ["dpo"]).methods == ["dpo"]


def test_lengths_are_means_over_prompts_of_each_user() -> None:
    people = [{"id": user, "group": group, "kind": f"kind {user}"} for user, group in GROUPS.items()]
    tokens = {(1, "q1"): [3, 5], (1, "q2"): [10, 12], (9, "q1"): [7]}
    rows = [{"method": "dpo", "user": user, "prompt_id": q, "tokens": n} for (user, q), counts in tokens.items() for n in counts]
    one, other = lengths(rows, people, BOOTSTRAP)
    assert (one["user"], one["group"], one["kind"], one["tokens"], one["n"]) == (1, MAJORITY, "kind 1", (4 + 11) / 2, 2)
    assert (one["ci_low"], one["ci_high"]) == (4, 11)
    assert (other["user"], other["group"], other["tokens"], other["n"]) == (9, UNSEEN, 7, 1)
    with pytest.raises(InputError, match="answers of dpo: user 9 is not among the users; answer again"):
        lengths(rows, people[:3], BOOTSTRAP)


def test_cold_start_means_are_over_new_users_by_method_and_number_of_pairs() -> None:
    rows = [row | {"pairs": pairs} for pairs in (0, 5) for row in judged("pdpo", "soup", users=(8, 9))]
    rows = [row | {"score": row["score"] / (1 + row["pairs"])} for row in rows]
    table = cold_start(rows, BOOTSTRAP)
    assert len(table) == 2 * 2 * 2
    for row in table:
        own = [r[row["criterion"]] for r in rows if (r["method"], r["pairs"]) == (row["method"], row["pairs"])]
        assert row["mean"] == pytest.approx(mean(own)) and row["n"] == 3 and row["ci_low"] <= row["mean"] <= row["ci_high"]
    assert cold_start([], BOOTSTRAP) == []
