import pytest

from rlphf.data.sources.psoups import question, read
from rlphf.data.sources.raw import Bad, Pair
from rlphf.errors import InputError
from rlphf.preferences import PREFERENCES, instruction

# Wordings of the release that differ from the canonical ones.
VARIANTS = {
    "P1A": ["Generate a response that can easily be understandable by an elementary school student."],
    "P1B": [
        "Generate a response that can only a PhD Student in that specific field could understand.",
        "Choose a response that can only be understandable by a PhD student in that specific field.",
    ],
    "P2A": ["Generate a response that is concise and to the point without being verbose."],
    "P2B": ["Generate a response that is very informative without missing any background information."],
    "P3A": [
        "Generate a response that is friendly witty funny and humorous like a close friend.",
        "Choose a response that is friendly, witty, funny and humorous, like a close friend.",
    ],
    "P3B": ["Choose a response that is written in an unfriendly manner."],
    "P3C": ["Generate a response in an sassy manner."],
    "P3D": ["Generate a response in an sarcastic manner"],
}


def record(user_input, a="good", b="bad"):
    return {"user_input": user_input, "completion_a": a, "completion_b": b}


@pytest.mark.parametrize("name", PREFERENCES)
def test_every_wording_of_a_preference_is_taken_off_the_end(name):
    for wording in [PREFERENCES[name].prompt, PREFERENCES[name].prompt.lower(), *VARIANTS[name]]:
        for text in (f"Why? {wording}", f"Why?\n{wording}\n", f"<|user|>\nWhy? {wording} \n<|assistant|>\n"):
            assert question(text) == ("Why?", [name]), text


def test_several_preferences_are_taken_off():
    assert question(instruction("Why?", ["P1A", "P2B", "P3D"])) == ("Why?", ["P3D", "P2B", "P1A"])


@pytest.mark.parametrize(
    "text",
    [
        "Generate a response in a sassy manner. Then count to three.",
        "Explain how to generate a response in a sarcastic mannerism",
        "Regenerate a response in a sassy manner.",
        "What does <|assistant|> mean?",
    ],
)
def test_a_question_that_only_resembles_a_preference_stays(text):
    assert question(text) == (text, [])


@pytest.mark.parametrize("name", ["P2A.json", "P2A.jsonl", "P2A.json.gz"])
def test_pairs_speak_for_the_preference_that_the_file_is_named_after(write, name):
    path = write(f"rm_training/{name}", [record(instruction("Why?", ["P2A"]), " short ", "long")] * 2)
    first, second = read(path.parent, None)
    assert isinstance(first, Pair)
    assert (first.prompt, first.chosen, first.rejected, first.preference) == ("Why?", "short", "long", "P2A")
    assert second.place.number == 2


def test_a_configured_preference_wins_over_the_name(write):
    (pair,) = read(write("P2A.json", [record("Why?")]), "P3B")
    assert pair.preference == "P3B"


def test_a_file_that_says_no_preference_is_refused(write):
    with pytest.raises(InputError, match="train.json: no preference; set `preference` of the source"):
        list(read(write("train.json", [record("Why?")]), None))


def test_a_record_that_asks_for_another_preference_is_bad(write):
    (bad,) = read(write("P1A.json", [record(instruction("Why?", ["P1B"]))]), None)
    assert isinstance(bad, Bad)
    assert (bad.field, bad.reason) == ("user_input", "asks for P1B, but the pairs speak for P1A")


def test_a_record_without_a_question_or_a_field_is_bad(write):
    unasked = [record(PREFERENCES["P1A"].prompt), record("\u200b")]
    path = write("P1A.json", [*unasked, {"user_input": "Why?", "completion_a": "x"}, record(3)])
    assert [bad.field for bad in read(path, None)] == ["user_input", "user_input", "completion_b", "user_input"]
