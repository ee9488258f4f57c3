import pytest

from rlphf.data.sources.hh_rlhf import read, split
from rlphf.data.sources.raw import Bad, Dropped

ONE = "\n\nHuman: Why?\n\nAssistant:"
TWO = "\n\nHuman: Why?\n\nAssistant: Guess.\n\nHuman: No idea.\n\nAssistant:"


def record(head, good, bad, **more):
    return {"chosen": head + good, "rejected": head + bad, **more}


def test_a_single_question_stands_alone_and_longer_dialogues_keep_their_turns(write):
    path = write("harmless-base.jsonl.gz", [record(ONE, " Yes.", " No."), record(TWO, " Yes.", " No.")])
    one, two = read(path, None)
    assert (one.prompt, one.chosen, one.rejected) == ("Why?", "Yes.", "No.")
    assert two.prompt == "Human: Why?\n\nAssistant: Guess.\n\nHuman: No idea."
    assert (two.chosen, two.rejected) == ("Yes.", "No.")


def test_the_layout_without_leading_blank_lines_reads_alike(write):
    rows = [record(TWO, " Yes.", " No."), record(TWO.strip(), " Yes.", " No.", prompt="ignored", Index=3)]
    first, second = read(write("a.jsonl", rows), None)
    assert (first.prompt, first.chosen, first.rejected) == (second.prompt, second.chosen, second.rejected)


def test_replies_may_mention_human_and_assistant_and_share_their_beginning():
    assert split("Human: a\n\nAssistant: Well,  Human: x", "Human: a\n\nAssistant: Well, no") == (
        "a",
        "Well,  Human: x",
        "Well, no",
    )


def test_dialogues_that_part_before_the_last_reply_are_dropped(write):
    rows = [
        {"chosen": TWO + " Yes.", "rejected": ONE + " No."},
        {"chosen": ONE + " A", "rejected": ONE.replace("Why", "How") + " B"},
    ]
    for dropped in read(write("helpful-base.jsonl", rows), None):
        assert isinstance(dropped, Dropped)
        assert (dropped.preference, dropped.reason) == ("helpful", "dialogues part before the last reply")


@pytest.mark.parametrize("nothing", ["", "\u200b"])
def test_an_empty_question_is_dropped_and_empty_replies_are_left_to_the_caller(write, nothing):
    asked = f"\n\nHuman: {nothing}\n\nAssistant:"
    empty, silent = read(write("a.jsonl", [record(asked, "a", "b"), record(ONE, "", " No.")]), None)
    assert isinstance(empty, Dropped) and empty.reason == "empty prompt"
    assert (silent.chosen, silent.rejected) == ("", "No.")


def test_pairs_speak_for_the_objective_then_the_configured_then_the_named_kind_of_user(write):
    row = record(ONE, " Yes.", " No.", data_subset="harmless")
    relabelled = row | {"objective": "helpful"}
    assert [pair.preference for pair in read(write("harmless-base.jsonl", [row, relabelled]), None)] == ["harmless", "helpful"]
    assert [pair.preference for pair in read(write("harmless-base.jsonl", [row, relabelled]), "mine")] == ["mine", "helpful"]
    assert [pair.preference for pair in read(write("train.jsonl", [row]), None)] == ["general"]
    files = [write(f"hub/{kind}/train.jsonl", [row]) for kind in ("harmless-base", "helpful-base")]
    assert [pair.preference for file in files for pair in read(file, None)] == ["harmless", "helpful"]
    assert [pair.preference for pair in read(files[0].parent.parent, None)] == ["harmless", "helpful"]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"chosen": "Hello.", "rejected": ONE}, "chosen"),
        ({"chosen": ONE, "rejected": "\n\nHuman: Why?"}, "rejected"),
        ({"chosen": ONE}, "rejected"),
        ({"chosen": None, "rejected": ONE}, "chosen"),
        (record(ONE, "a", "b", objective=""), "objective"),
    ],
)
def test_what_is_no_dialogue_is_bad(write, row, field):
    (bad,) = read(write("a.jsonl", [row]), None)
    assert isinstance(bad, Bad) and bad.field == field
