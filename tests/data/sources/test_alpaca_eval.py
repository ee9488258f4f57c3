import pytest

from rlphf.data.sources.alpaca_eval import read
from rlphf.data.sources.raw import Bad, Dropped, Pair
from rlphf.errors import InputError

LENGTHS = {"m": 20, "m_concise": 10, "m_verbose": 30}


def output(generator, text, instruction="Why?"):
    return {"dataset": "d", "instruction": instruction, "output": text, "generator": generator}


def annotation(first, second, preference, instruction="Why?"):
    return {"instruction": instruction, "generator_1": first, "generator_2": second, "preference": preference}


def read_all(write, outputs, annotations=()):
    for generator in dict.fromkeys(row["generator"] for row in outputs):
        write(f"ae/outputs/{generator}.jsonl.gz", [row for row in outputs if row["generator"] == generator])
    path = write("ae/gpt4_annotations.jsonl.gz", list(annotations)).parent
    return list(read(path))


def test_a_preference_above_one_and_a_half_chooses_the_second_answer_with_its_probability(write):
    outputs = [output("m", "ours"), output("n", "theirs")]
    annotations = [annotation("m", "n", 1.9), annotation("m", "n", 1.25), annotation("m", "n", 2.0), annotation("m", "n", 1)]
    pairs = read_all(write, outputs, annotations)
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("theirs", "ours"), ("ours", "theirs")] * 2
    assert [pair.probability for pair in pairs] == pytest.approx([0.9, 0.75, 1.0, 1.0])
    assert {pair.preference for pair in pairs} == {"general"}


def test_ties_missing_preferences_and_missing_answers_are_dropped(write):
    annotations = [
        annotation("m", "n", 1.5),
        annotation("m", "n", None),
        annotation("m", "n", 2, "How?"),
        annotation("m", "x", 2),
    ]
    dropped = read_all(write, [output("m", "ours"), output("n", "theirs")], annotations)
    assert [d.reason for d in dropped] == ["tie", "annotator gave no preference", "an answer is missing", "an answer is missing"]


@pytest.mark.parametrize("preference", [0.99, 2.01, float("nan"), "second", True, [2]])
def test_a_preference_outside_its_scale_is_bad(write, preference):
    (bad,) = read_all(write, [output("m", "ours"), output("n", "theirs")], [annotation("m", "n", preference)])
    assert isinstance(bad, Bad) and bad.field == "preference"


def test_concise_and_verbose_answers_make_pairs_where_their_lengths_agree(write):
    pairs = read_all(write, [output(name, name[-1] * n) for name, n in LENGTHS.items()])
    assert {(pair.preference, len(pair.chosen), len(pair.rejected)) for pair in pairs} == {
        ("P2A", 10, 20),
        ("P2A", 10, 30),
        ("P2B", 30, 20),
        ("P2B", 30, 10),
    }


def test_answers_that_missed_their_length_are_dropped_with_the_reason(write):
    lengths = {"m": 20, "m_concise": 20, "m_verbose": 15}
    found = read_all(write, [output(name, name[-1] * n) for name, n in lengths.items()])
    assert [(d.preference, d.reason) for d in found if isinstance(d, Dropped)] == [
        ("P2A", "concise answer is not shorter"),
        ("P2A", "concise answer is not shorter"),
        ("P2B", "verbose answer is not longer"),
        ("P2B", "verbose answer is not longer"),
    ]
    assert not any(isinstance(raw, Pair) for raw in found)


def test_empty_and_absent_answers_are_dropped(write):
    outputs = [output("m", "plain"), output("m_concise", "  "), output("m_concise", "short", "How?")]
    found = read_all(write, outputs)
    assert [(d.preference, d.reason) for d in found] == [("P2A", "empty answer"), ("P2A", "an answer is missing")]


def test_a_plain_answer_of_another_generator_is_not_compared(write):
    assert read_all(write, [output("n", "plain answer"), output("m_concise", "short")]) == []


def test_a_second_answer_to_an_instruction_is_dropped_and_a_broken_one_is_bad(write):
    outputs = [output("m", "one"), output("m", "two"), output("m", None, "How?")]
    second, bad = read_all(write, outputs)
    assert second.reason == "second answer of a generator to an instruction" and second.preference is None
    assert (bad.field, bad.place.number) == ("output", 3)


def test_a_folder_without_outputs_is_refused(tmp_path):
    with pytest.raises(InputError, match="outputs: no such file"):
        list(read(tmp_path))


def test_what_is_no_table_is_not_taken_for_annotations(write, tmp_path):
    read_all(write, [output("m", "ours"), output("n", "theirs")])
    for name in (".gpt4_annotations.json.swp", "annotations.md"):
        (tmp_path / "ae" / name).write_text("no table")
    assert list(read(tmp_path / "ae")) == []
