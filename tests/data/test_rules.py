"""Claims about the rules for real text."""

import math
import subprocess
import sys

import pytest

from rlphf.data.rules import RULES, polarity, readability, rule_scores, words

SIMPLE = "The sun is hot. It is big. We see it in the day."
HARD = "Thermonuclear nucleosynthesis necessitates extraordinarily concentrated gravitational confinement of ionised hydrogen."


def test_readability_is_the_formula_of_its_source():
    # 4.71 characters per word, full stops among them, + 0.5 words per sentence - 21.43.
    text = "Generally, the brightest stars exhaust hydrogen. Astronomers observe them."
    assert readability(text) == pytest.approx(4.71 * 66 / 9 + 0.5 * 9 / 2 - 21.43)


@pytest.mark.parametrize(("text", "year"), [("Go. Go on.", 0.0), ("See example.org/" + "a1" * 200, 20.0)])
def test_readability_ends_where_school_does(text: str, year: float):
    assert readability(text) == year


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
        "from rlphf.data.rules import rule_scores\n"
        "print(len(rule_scores('A good day.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "6\n", "")
