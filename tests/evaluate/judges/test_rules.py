"""Claims about the rules for real text."""

import math
import subprocess
import sys

import pyarrow as pa
import pytest

from rlphf.errors import InputError
from rlphf.evaluate.judges.rules import RULES, polarity, readability, rule_scores, rules_step, words
from rlphf.evaluate.scores import SCORES, Scores
from rlphf.files import read_parquet

SIMPLE = "The sun is hot. It is big. We see it in the day."
HARD = "Thermonuclear nucleosynthesis necessitates extraordinarily concentrated gravitational confinement of ionised hydrogen."


def test_readability_is_the_formula_of_its_source():
    # 4.71 characters per word, full stops among them, + 0.5 words per sentence - 21.43.
    assert readability("The sun is hot. It is big.") == pytest.approx(4.71 * 20 / 7 + 0.5 * 7 / 2 - 21.43)


def test_what_is_simpler_shorter_or_friendlier_scores_higher():
    simple, hard = rule_scores(SIMPLE), rule_scores(HARD)
    assert simple["P1A"] > hard["P1A"] and simple["P1B"] < hard["P1B"]
    assert rule_scores("No.")["P2A"] > simple["P2A"] and rule_scores("No.")["P2B"] < simple["P2B"]
    warm, cold = rule_scores("What a wonderful and funny question!"), rule_scores("What a stupid and boring question!")
    assert warm["P3A"] > 0 > cold["P3A"] and warm["P3B"] == -warm["P3A"]


def test_rules_speak_of_six_preferences_alone():
    assert set(rule_scores("Anything.")) == set(RULES) == {"P1A", "P1B", "P2A", "P2B", "P3A", "P3B"}


@pytest.mark.parametrize("text", ["", "  \n\t", "!!! ...", "1 2 3", "日本語のテキスト。", "a" * 5000, "\x00"])
def test_every_text_has_a_score(text):
    assert all(math.isfinite(score) for score in rule_scores(text).values())


@pytest.mark.parametrize("text", ["", "  \n\t"])
def test_a_text_without_words_scores_zero(text):
    assert readability(text) == polarity(text) == words(text) == 0.0
    assert [str(score) for score in rule_scores(text).values()] == ["0.0"] * 6


def test_rules_need_no_network_and_no_data_of_nltk():
    code = (
        "import socket, nltk\n"
        "def refuse(*_, **__): raise SystemExit('opened a socket')\n"
        "socket.socket.connect = refuse\n"
        "nltk.data.path.clear()\n"
        "nltk.download = refuse\n"
        "from rlphf.evaluate.judges.rules import rule_scores\n"
        "print(len(rule_scores('A good day.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "6\n", "")


def test_all_samples_of_the_evaluated_methods_are_scored_once(inputs, tmp_path):
    others = [{**row, "method": "front"} for row in read_parquet(inputs.responses[0]).to_pylist()]
    inputs.change("pp", lambda rows: [*rows, *others])
    out = tmp_path / "rules" / "scores.parquet"
    rules_step(inputs.config, inputs.prompts, inputs.responses, out)
    table = read_parquet(out, SCORES)
    assert table.num_rows == (3 * 2 + 1) * 4 * 2 * 6
    assert set(table["method"].to_pylist()) == {"psoups", "vb", "mod", "pp"}
    cell = Scores(table).cell("pp", "P1A-P2B-P3A")
    assert cell.prompts == ("q0", "q1", "q2", "q3") and cell.samples == 2
    assert cell.values["P2B"].tolist() == [[31.0, 31.0]] * 4


def test_scores_have_the_same_bytes_whatever_the_order_of_the_files(inputs, tmp_path):
    for name, files in (("one", inputs.responses), ("two", inputs.responses[::-1])):
        rules_step(inputs.config, inputs.prompts, files, tmp_path / name / "scores.parquet")
    assert (tmp_path / "one" / "scores.parquet").read_bytes() == (tmp_path / "two" / "scores.parquet").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [{**rows[0], "prompt_id": "q7"}], r"responses.parquet: row 1: prompt_id 'q7' is not among"),
        (lambda rows: [], "responses: method pp: there are none"),
        (lambda rows: [{**row, "method": "vb", "combination": ""} for row in rows[:1]], "row 1: q0, vb, , 0 occurs twice"),
    ],
)
def test_responses_that_cannot_be_scored_are_named_and_nothing_is_written(inputs, tmp_path, change, message):
    inputs.change("pp", change)
    with pytest.raises(InputError, match=message):
        rules_step(inputs.config, inputs.prompts, inputs.responses, tmp_path / "rules" / "scores.parquet")
    assert not (tmp_path / "rules" / "scores.parquet").exists()


def test_prompts_need_no_topic(inputs):
    assert pa.compute.is_null(read_parquet(inputs.prompts)["topic"]).to_pylist() == [True] * 5
