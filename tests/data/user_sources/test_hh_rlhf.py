"""Claims about helpful and harmless users of HH-RLHF's dialogues."""

from collections import Counter

import pytest

from rlphf.errors import InputError


def dialogue(question, good, bad, **more):
    head = f"\n\nHuman: {question}\n\nAssistant:"
    return {"chosen": f"{head} {good}", "rejected": f"{head} {bad}", **more}


@pytest.fixture
def both(write):
    write("hh/harmless-base.jsonl.gz", [dialogue(f"How {n}?", "No.", "So.") for n in range(40)])
    write("hh/vpl-relabeled-helpful.jsonl", [dialogue(f"How {n}?", "So.", "No.", objective="helpful") for n in range(20, 60)])


def test_two_users_are_one_of_each_kind_and_the_harmless_one_is_the_minority(both, imported):
    tables = imported("hh_rlhf", "hh")
    assert [(p["id"], p["kind"], p["group"]) for p in tables["users"]] == [
        (1, "helpful", "majority"),
        (2, "harmless", "minority"),
    ]
    assert Counter((row["user"], row["preference"], row["chosen"]) for row in tables["pairs"]) == {
        (1, "helpful", "So."): 40,
        (2, "harmless", "No."): 40,
    }


def test_a_question_that_both_ask_lies_in_one_split_and_they_disagree_on_it(both, imported):
    tables = imported("hh_rlhf", "hh", validation=0.2, test=0.2)
    splits = {}
    for row in tables["pairs"]:
        assert splits.setdefault(row["prompt"], row["split"]) == row["split"]
    assert len(splits) == len(tables["prompts"]) == 60 and len(tables["pairs"]) == 80


def test_more_users_share_the_pairs_of_a_kind_by_question(both, imported):
    tables = imported("hh_rlhf", "hh", users=5)
    assert [p["group"] for p in tables["users"]] == ["majority", "minority", "majority", "minority", "majority"]
    owners = {(row["preference"], row["prompt"]): row["user"] for row in tables["pairs"]}
    assert len(owners) == len(tables["pairs"]) == 80
    assert {user for (kind, _), user in owners.items() if kind == "helpful"} == {1, 3, 5}


def test_one_user_cannot_be_of_two_kinds(both, imported):
    with pytest.raises(InputError, match=r"user_data.users: 1 is too few"):
        imported("hh_rlhf", "hh", users=1)


def test_pairs_for_nobody_in_particular_are_dropped(write, imported, both):
    write("hh/train.jsonl", [dialogue("Why?", "a", "b")])
    counts = imported("hh_rlhf", "hh")["counts"]
    assert [r["dropped"] for r in counts if r["reason"] == "speaks for neither helpful nor harmless"] == [1, 1]
