"""Claims about tables whose texts are messages: what is read of each layout, how dialogues are told, and what is refused."""

import sys
import types

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlphf.data.sources import hh_rlhf, hub
from rlphf.data.sources.messages import HAS_SYSTEM
from rlphf.data.sources.raw import Bad, Dropped, Pair, Prompt
from rlphf.data.sources.table import read

TOLD = "Human: Why?\n\nAssistant: Guess.\n\nHuman: No idea."


def said(*texts, first=0):
    """Messages of user and assistant in turn, the user first unless `first` is 1."""
    return [{"role": ("user", "assistant")[(n + first) % 2], "content": text} for n, text in enumerate(texts)]


def system(text):
    return [{"role": "system", "content": text}]


def answers(*head, chosen="yes", rejected="no"):
    return {"chosen": said(*head, chosen), "rejected": said(*head, rejected)}


def alone(prompt, chosen="yes", rejected="no"):
    return {"prompt": prompt, "chosen": said(chosen, first=1), "rejected": said(rejected, first=1)}


def sharegpt(messages):
    """The same messages with ShareGPT's keys and names of roles."""
    names = {"user": "human", "assistant": "gpt"}
    return [{"from": names[message["role"]], "value": message["content"]} for message in messages]


LONG = ("Why?", "Guess.", "No idea.")
LAYOUTS = {
    "explicit": (alone(said("Why?")), alone(said(*LONG))),
    "implicit": (answers("Why?"), answers(*LONG)),
    "text": ({"prompt": "Why?"} | answers(" Why? \n"), {"prompt": " Why?"} | answers(*LONG)),
    "prompt twice": ({"prompt": said("Why?")} | answers("Why?"), {"prompt": said(*LONG)} | answers(*LONG)),
    "sharegpt": tuple({key: sharegpt(told) for key, told in row.items()} for row in (alone(said("Why?")), alone(said(*LONG)))),
    "messages alone": tuple(
        {"prompt": sharegpt(said(*head)), "chosen": sharegpt(said("yes", first=1))[0], "rejected": said("no", first=1)[0]}
        for head in (LONG[:1], LONG)
    ),
    "answers as texts": tuple({"prompt": said(*head), "chosen": "yes", "rejected": "no"} for head in (("Why?",), LONG)),
    "empty system": (alone(system(" ") + said("Why?")), {name: system("") + told for name, told in answers(*LONG).items()}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("format", ["jsonl", "parquet", "hub"])
def test_every_layout_gives_the_same_pairs(write, tmp_path, monkeypatch, layout, format):
    rows = [row | {"preference": "P1A", "score_chosen": 7.5} for row in LAYOUTS[layout]]
    path = tmp_path / f"a.{format}"
    if format == "hub":
        monkeypatch.setitem(sys.modules, "datasets", types.SimpleNamespace(load_dataset=lambda *_, **__: rows))
        pairs = hub.read("owner/name", {}, None, None)
    elif format == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        pairs = read(path, {}, None)
    else:
        pairs = read(write(path.name, rows), {}, None)
    found = [(pair.prompt, pair.chosen, pair.rejected, pair.preference) for pair in pairs]
    assert found == [("Why?", "yes", "no", "P1A"), (TOLD, "yes", "no", "P1A")]


def test_a_dialogue_is_told_as_the_reader_of_hh_rlhf_tells_it(write):
    head = "\n\nHuman: Why?\n\nAssistant: Guess.\n\nHuman: No idea.\n\nAssistant:"
    for cut, told in ((head, LONG), ("\n\nHuman: Why?\n\nAssistant:", LONG[:1])):
        (theirs,) = hh_rlhf.read(write("hh.jsonl", [{"chosen": cut + " yes", "rejected": cut + " no"}]), None)
        (ours,) = read(write("a.jsonl", [answers(*told)]), {}, None)
        assert (ours.prompt, ours.chosen, ours.rejected) == (theirs.prompt, theirs.chosen, theirs.rejected)


def test_an_answer_may_hold_what_looks_like_a_turn_and_an_empty_one_is_left_to_the_caller(write):
    look, empty = read(write("a.jsonl", [answers("Why?", chosen="a\n\nAssistant: b"), answers("Why?", rejected=" ")]), {}, None)
    assert (look.prompt, look.chosen) == ("Why?", "a\n\nAssistant: b")
    assert isinstance(empty, Pair) and empty.rejected == ""


def test_columns_may_have_other_names(write):
    row = {"ask": said("Why?"), "a": said("yes", first=1), "b": "no"}
    (pair,) = read(write("a.jsonl", [row]), {"prompt": "ask", "chosen": "a", "rejected": "b"}, "P2A")
    assert (pair.prompt, pair.chosen, pair.rejected, pair.preference) == ("Why?", "yes", "no", "P2A")
    row = {"a": said("Why?", "yes"), "b": said("Why?", "no")}
    (pair,) = read(write("b.jsonl", [row]), {"chosen": "a", "rejected": "b"}, None)
    assert (pair.prompt, pair.chosen, pair.rejected) == ("Why?", "yes", "no")
    (bad,) = read(write("c.jsonl", [answers("Why?")]), {"prompt": "ask", "chosen": "chosen"}, None)
    assert isinstance(bad, Bad) and bad.field == "ask"


def test_prompts_without_answers_may_be_messages(write):
    rows = [{"q": said(*LONG)}, {"q": system("Be kind.") + said("Why?")}, {"q": said("Why?", "So.")}]
    prompt, dropped, bad = read(write("a.jsonl", rows), {"prompt": "q"}, None)
    assert isinstance(prompt, Prompt) and prompt.prompt == TOLD
    assert isinstance(dropped, Dropped) and (dropped.preference, dropped.reason) == (None, HAS_SYSTEM)
    assert isinstance(bad, Bad) and bad.reason == "its last message is the assistant's, expected the user's"


def test_what_a_system_message_says_has_no_place_in_a_prompt_so_its_record_is_dropped(write):
    whole = {name: system("Be kind.") + messages for name, messages in answers("Why?").items()}
    rows = [alone(system("Be kind.") + said("Why?")), whole, whole | {"prompt": "Why?"}]
    for dropped in read(write("a.jsonl", rows), {}, "P1A"):
        assert isinstance(dropped, Dropped) and (dropped.preference, dropped.reason) == ("P1A", HAS_SYSTEM)


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        (answers("Why?") | {"rejected": said("How?", "no")}, "rejected", "differs from chosen before the last message"),
        (answers("Why?") | {"rejected": said(*LONG, "no")}, "rejected", "differs from chosen before the last message"),
        (answers("Why?") | {"rejected": system("x") + said("Why?", "no")}, "rejected", "differs from chosen before the last"),
        (answers("Why?") | {"rejected": "no"}, "rejected", "differs from chosen before the last message"),
        (answers("Why?") | {"chosen": said("Why?")}, "chosen", "its last message is the user's, expected the assistant's"),
        (answers("Why?") | {"rejected": said("Why?", "a", "b")}, "rejected", "its last message is the user's, expected the"),
        (alone(said("Why?", "So.")), "prompt", "its last message is the assistant's, expected the user's"),
        ({"prompt": "How?"} | answers("Why?"), "chosen", "is a dialogue that does not begin with prompt"),
        ({"prompt": said(*LONG)} | answers("Why?"), "chosen", "is a dialogue that does not begin with prompt"),
        (alone(None), "chosen", "has no message before the answer, and the record no prompt"),
        (alone("Why?") | {"chosen": []}, "chosen", "has no message with a text"),
        (alone([]), "prompt", "has no message with a text"),
        (alone(system("")), "prompt", "has no message with a text"),
        (alone(" "), "prompt", "is empty"),
        (alone(None) | {"chosen": "yes"}, "prompt", "expected text, got null"),
        (alone(said(" ")), "prompt", "message 1, content: is empty"),
        (answers(" "), "chosen", "message 1, content: is empty"),
        (alone([{"role": "tool", "content": "x"}]), "prompt", "message 1, role: is 'tool', expected user, assistant or system"),
        (alone([{"from": "human", "text": "x"}]), "prompt", "message 1, role: is missing; the record has from, text"),
        (alone([{"from": "tool", "value": "x"}]), "prompt", "message 1, role: is 'tool', expected user, assistant or system"),
        (alone([{"from": ["human"], "value": "x"}]), "prompt", "message 1, role: expected text, got list"),
        (alone([{"role": "user", "content": ["x"]}]), "prompt", "message 1, content: expected text, got list"),
        (alone(["Why?"]), "prompt", "message 1: expected an object with role and content, got str"),
        (alone(said("Why?") * 2), "prompt", "user and assistant do not take turns before the answer, first and last the user"),
        (alone(said("So.", "Why?", first=1)), "prompt", "user and assistant do not take turns before the answer"),
        (answers("Why?", "So."), "chosen", "its last message is the user's, expected the assistant's"),
        (alone({"role": "user", "text": "Why?"}), "prompt", "expected text, got dict"),
        ({"chosen": "yes", "rejected": said("Why?", "no")}, "prompt", "is missing; the record has chosen, rejected"),
    ],
)
def test_a_dialogue_that_breaks_a_rule_is_bad_with_one_reason(write, row, field, reason):
    (bad,) = read(write("a.jsonl", [row]), {}, None)
    assert isinstance(bad, Bad) and bad.field == field and bad.reason.startswith(reason), bad
