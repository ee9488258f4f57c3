"""Claims about users who are personas, and about who of them is the minority."""

import pytest

from rlphf.data.user_sources.minority import told_by_others
from rlphf.data.user_sources.persona import sentence
from rlphf.errors import InputError

THINGS = "art music math sport poems birds rivers trains gardens maps".split()


def statement(text, yes):
    answers = (" Yes", " No") if yes else (" No", " Yes")
    question = f'Is the following statement something you would say?\n"{text}"'
    fields = ("answer_matching_behavior", "answer_not_matching_behavior")
    return {"question": question, "statement": text, "label_confidence": 0.9, **dict(zip(fields, answers, strict=True))}


def opinions(name, likes):
    """Twenty statements of a persona that likes, or does not like, each of ten things."""
    return [statement(f"{name}: I {verb} {thing}", (verb == "love") == likes) for thing in THINGS for verb in ("love", "hate")]


@pytest.fixture
def five(write):
    for name in ("interest-in-art", "openness", "politically-liberal", "risk-seeking"):
        write(f"personas/{name}.jsonl", opinions(name, True))
    write("personas/risk-averse.jsonl.gz", opinions("risk-averse", False))


def test_each_file_is_a_user_who_chooses_the_matching_answer(five, imported):
    tables = imported("persona", "personas")
    kinds = ["interest-in-art", "openness", "politically-liberal", "risk-averse", "risk-seeking"]
    assert [(p["id"], p["kind"]) for p in tables["users"]] == list(enumerate(kinds, 1))
    first = tables["pairs"][0]
    assert (first["chosen"], first["rejected"], first["preference"], first["user"]) == ("Yes", "No", "interest-in-art", 1)
    assert first["prompt"].endswith('"interest-in-art: I love art"') and len(tables["pairs"]) == 100


def test_whom_the_others_tell_wrongly_is_the_minority(five, imported):
    groups = {p["kind"]: p["group"] for p in imported("persona", "personas")["users"]}
    assert [kind for kind, group in groups.items() if group == "minority"] == ["risk-averse"]
    assert set(groups.values()) == {"majority", "minority"}


def test_the_others_tell_what_they_would_choose_alike():
    rows = [(1, "I love cats", "Yes", "No"), (2, "I love dogs", "Yes", "No"), (2, "I hate dogs", "No", "Yes")]
    assert told_by_others([*rows, (1, "I hate cats", "No", "Yes")])[1] == 1.0
    assert told_by_others([*rows, (1, "I hate cats", "Yes", "No")])[1] == 0.5
    assert told_by_others([(1, "I love cats", "Yes", "No"), (2, "I love dogs", "No", "Yes")]) == {}


def test_names_become_sentences():
    assert sentence("interest-in-art") == "My interest: art."
    assert sentence("subscribes-to-virtue-ethics") == "I subscribe to: virtue ethics."
    assert sentence("desire-for-recursive-self-improvement") == "My desire: recursive self improvement."
    assert sentence("risk-averse") == "I am: risk averse."
    assert [sentence(name) for name in ("openness", "neuroticism")] == ["My trait: openness.", "My trait: neuroticism."]


def test_a_statement_of_two_users_lies_in_one_split_and_one_that_a_file_repeats_counts_once(write, imported):
    for name, likes in (("risk-averse", False), ("risk-seeking", True)):
        write(f"personas/{name}.jsonl", opinions("both", likes) + opinions("both", not likes))
    tables = imported("persona", "personas", validation=0.3, test=0.3)
    assert len(tables["pairs"]) == 40 and len(tables["prompts"]) == 20
    splits = {}
    for row in tables["pairs"]:
        assert splits.setdefault(row["prompt"], row["split"]) == row["split"]
    assert [r["dropped"] for r in tables["counts"] if r["reason"] == "repeated statement"] == [20, 20, 40]


def test_a_bad_line_is_refused_with_file_line_and_field_or_set_aside(five, write, imported):
    broken = [*opinions("openness", True), {"question": "Why?", "answer_matching_behavior": " Yes"}]
    write("personas/openness.jsonl", broken)
    with pytest.raises(InputError, match=r"openness.jsonl, line 21, field answer_not_matching_behavior: is missing") as caught:
        imported("persona", "personas")
    assert "\n" not in str(caught.value) and "data.on_bad_record" in str(caught.value)
    tables = imported("persona", "personas", bad="quarantine")
    (aside,) = tables["quarantine"]
    assert (aside["source"], aside["file"], aside["line"]) == ("persona", "openness.jsonl", 21)
    assert len(tables["pairs"]) == 100
