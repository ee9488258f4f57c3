"""Who learns from which pairs: no judge from what rewards or chooses a policy."""

from rlphf.config import Experiment, parse
from rlphf.data.learned import asked_for, learned_splits, policy_names, reward_names, sources, unseen_split

SIX = ["P1A", "P1B", "P2A", "P2B", "P3A", "P3B"]


def experiment(
    keep_by: str = "reward", gold_raw: tuple[str, ...] = (), judges: tuple[str, ...] = ("oracle", "gold")
) -> Experiment:
    return parse(
        {
            "experiment": "some",
            "preferences": [*SIX, "P3C"],
            "combination_preferences": SIX,
            "ppo": {"keep": "best", "keep_by": keep_by},
            "data": {"sources": [{"kind": "alpaca_eval", "path": "raw"}]},
            "evaluation": {"gold_raw": list(gold_raw), "judges": list(judges), "methods": ["vb", "pp"], "front": []},
        }
    )


def test_reward_models_are_those_of_policies_of_judge_and_selector_and_of_raw_pairs():
    assert policy_names(experiment()) == [*SIX, "P3C"] and reward_names(experiment()) == [*SIX, "P3C", "gold"]
    raw = experiment("gold").model_dump(mode="json")
    raw["data"]["reward_models"] = ["helpful"]
    raw["evaluation"] |= {"methods": ["vb", "pp", "pmorl", "rlhf"], "judges": ["oracle"]}
    made = parse(raw)
    assert policy_names(made) == [*SIX, "P3C", "general", "pmorl"]
    assert reward_names(made) == [*policy_names(made), "selector", "raw-helpful"]


def test_policies_that_rules_reward_have_no_reward_models_and_judges_have_theirs():
    raw = experiment("gold", ("general",)).model_dump(mode="json")
    raw["preferences"], raw["ppo"]["reward"], raw["user_evaluation"]["methods"] = SIX, "rule", []
    made = parse(raw)
    assert policy_names(made) == SIX and reward_names(made) == ["gold", "selector"]
    raw["evaluation"]["methods"] = ["vb", "pmorl", "rlhf"]
    assert reward_names(parse(raw)) == ["general", "pmorl", "gold", "selector"]


def test_raw_pairs_take_the_place_of_rollouts_for_the_gold_models_alone():
    made = experiment(gold_raw=("P2A", "P2B", "general"))
    assert sources("gold", made) == (["P1A", "P1B", "P3A", "P3B"], ["P2A", "P2B", "general"])
    assert sources("selector", made) == (["P1A", "P1B", "P3A", "P3B", "P3C"], ["P2A", "P2B", "general"])
    assert sources("gold", experiment()) == ([*SIX, "general"], [])
    assert sources("pmorl", made) == (SIX, []) and sources("P2A", made) == (["P2A"], [])
    assert sources("raw-helpful", made) == ([], ["helpful"])


def test_who_scores_single_policies_learns_from_every_preference():
    every = ([*SIX, "P3C", "general"], [])
    assert sources("selector", experiment()) == sources("gold", experiment(judges=("gold", "rules"))) == every


def test_policies_selector_and_judge_learn_from_splits_of_their_own():
    chosen = experiment("gold")
    learned = [learned_splits(name, chosen) for name in ("P1A", "selector", "gold")]
    assert learned == [("train",), ("validation",), ("test",)]
    assert learned_splits("gold", experiment()) == ("validation", "test")
    for name in ("P1A", "raw-P2A", "selector", "gold", "gold/P2A"):
        assert unseen_split(name) not in learned_splits(name.partition("/")[0], chosen)


def test_kinds_of_users_that_are_no_preference_ask_for_nothing():
    assert asked_for("gold", "P2A") == ["P2A"] and asked_for("gold", "general") == asked_for("raw-helpful", "helpful") == []
    assert asked_for("P2A", "whatever") == ["P2A"] and asked_for("general", "general") == []
