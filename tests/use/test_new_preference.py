"""A preference of one's own is data: written into an experiment's file, checked as a whole, and all else there kept."""

import shutil
from pathlib import Path

import pytest
import yaml

from rlphf.cli import main
from rlphf.config import load_layers
from rlphf.derived import combinations_of, own_rules
from rlphf.preferences import preference
from rlphf.use.new_preference import with_value

ROOT = Path(__file__).parent.parent.parent
MINE = Path("config/experiments/mine.yaml")
POETIC = ["--id", "P3E", "--axis", "style", "--name", "poetic", "--prompt", "Answer as a poet would."]
WORDS = ["--words", "lovely", "wonderful"]


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    monkeypatch.chdir(tmp_path)


def add(*arguments: str) -> int:
    return main(["new-preference", "--experiment", str(MINE), *arguments])


def mine() -> object:
    return load_layers([Path("config/config.yaml"), MINE])


def test_a_file_that_is_not_there_is_made_and_is_a_valid_experiment(capsys):
    assert add(*POETIC, *WORDS) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[1] == (
        "snakemake --workflow-profile workflow/profiles/default --configfile config/experiments/mine.yaml --dry-run"
    )
    experiment = mine()
    assert experiment.preferences[-1] == "P3E" and experiment.combination_preferences[-1] == "P3B"
    assert preference("P3E").prompt == "Answer as a poet would."
    assert own_rules(experiment)["P3E"].words == ["lovely", "wonderful"]
    assert set(yaml.safe_load(MINE.read_text())) == {"own_preferences", "preferences"}


def test_what_is_in_the_file_stays_and_a_second_one_joins_the_first():
    MINE.write_text(
        "# Mine.\nexperiment: mine  # a name\n\n# Of PPO.\nppo: {updates: 3}\npreferences: [P1A, P2A]\n# The last word.\n"
        "combination_preferences: [P1A, P2A]\nevaluation: {front: [P1A, P2A]}\n"
    )
    assert add(*POETIC, *WORDS, "--combine") == 0
    long = ["--id", "P2E", "--axis", "informativeness", "--name", "brief", "--prompt", "Be brief.", "--words", "short"]
    assert add(*long, "--direction", "less") == 0
    text = MINE.read_text()
    for line in ("# Mine.", "experiment: mine  # a name", "# Of PPO.", "ppo: {updates: 3}", "# The last word."):
        assert line in text.splitlines()
    experiment = mine()
    assert experiment.preferences == ["P1A", "P2A", "P3E", "P2E"] and combinations_of(experiment) == ["P1A-P2A-P3E"]
    assert list(experiment.own_preferences) == ["P3E", "P2E"] and own_rules(experiment)["P2E"].direction == "less"


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\n",
        "a: 1",
        "a: [1,\n  2]\nb: 2\n",
        "a:\n- 1\n- 2\n# of b\nb: 2\n",
        "a:\n  c: 1\n\n\nb: 2",
        "b: 2\na:\n  - 1\n# end\n",
        "# only\n",
        "",
    ],
)
def test_a_value_is_replaced_or_added_and_nothing_else_changes(text):
    made = with_value(text, "a", {"x": [1]})
    assert yaml.safe_load(made) == {**(yaml.safe_load(text) or {}), "a": {"x": [1]}}
    assert [line for line in text.splitlines() if line.startswith("#")] == [x for x in made.splitlines() if x.startswith("#")]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--id", "P3A", *POETIC[2:], *WORDS], "--id P3A: is one of the paper's"),
        (["--id", "P4E", *POETIC[2:], *WORDS], "--id P4E: is no id of an experiment's own preference; choose P and the number"),
        (["--id", "p3e", *POETIC[2:], *WORDS], "and a letter from E on, such as P3E"),
        (["--id", "P1C", *POETIC[2:], *WORDS], "--id P1C: is no id of an experiment's own preference"),
        (["--id", "P2E", *POETIC[2:], *WORDS], "ids of axis style begin with P3; P2E is of informativeness"),
        ([*POETIC[:2], "--axis", "mood", *POETIC[4:], *WORDS], "own_preferences.P3E.axis"),
        ([*POETIC[:6], "--prompt", " ", *WORDS], "own_preferences.P3E.prompt"),
        ([*POETIC[:6], "--prompt", "two\nlines", *WORDS], "own_preferences.P3E.prompt"),
        (POETIC, "own_preferences.P3E.rule: needed, because annotator.kind simulated cannot choose its pairs"),
        ([*POETIC, "--measure", "words"], "own_preferences.P3E.rule: the oracle's scores lie in [0, 1]"),
        ([*POETIC, "--measure", "words", *WORDS], "words: needed for measure sentences_with, and for no other"),
        ([*POETIC, "--measure", "beauty"], "own_preferences.P3E.rule.measure"),
        ([*POETIC, "--words", "?!"], "words: each needs a letter or a digit"),
        ([*POETIC, *WORDS, "--direction", "up"], "own_preferences.P3E.rule.direction"),
        ([*POETIC, "--direction", "less"], "--direction: is about a rule"),
    ],
)
def test_what_makes_no_valid_experiment_is_refused_in_one_line_and_not_written(capsys, arguments, fault):
    assert add(*arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("rlphf: error: ") and fault in said and said.count("\n") == 1
    assert not MINE.exists()


def test_an_id_and_a_name_are_taken_once(capsys):
    assert add(*POETIC, *WORDS) == 0
    before = MINE.read_bytes()
    assert add(*POETIC, *WORDS) == 2 and add("--id", "P3F", *POETIC[2:], *WORDS) == 2
    assert "--id P3E: config/experiments/mine.yaml has it already, as poetic" in capsys.readouterr().err
    assert MINE.read_bytes() == before


def test_a_broken_file_is_left_as_it_is(capsys):
    MINE.write_text("experiment: [\n")
    assert add(*POETIC, *WORDS) == 2
    assert MINE.read_text() == "experiment: [\n" and "cannot be read as YAML" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["{experiment: mine}\n", "preferences: &ids [P1A, P3B]\ncombination_preferences: *ids\nevaluation: {front: []}\n"]
)
def test_a_file_whose_form_leaves_no_room_is_left_as_it_is(capsys, text):
    MINE.write_text(text)
    assert add(*POETIC, *WORDS) == 2
    assert MINE.read_text() == text and "give each key a line of its own" in capsys.readouterr().err


def test_a_judge_that_has_to_be_told_needs_to_be_told(capsys):
    MINE.write_text("evaluation: {judges: [oracle, llm]}\n")
    assert add(*POETIC, *WORDS, "--combine") == 2
    assert "own_preferences.P3E.judge: needed, because the judge llm has to be told of it" in capsys.readouterr().err
    assert add(*POETIC, *WORDS, "--combine", "--judge", "The response is poetic.") == 0


@pytest.mark.parametrize("direction", ["more", "less"])
def test_a_tone_by_its_lexicon_serves_beside_the_oracle(direction):
    assert add(*POETIC, "--measure", "polarity", "--direction", direction) == 0
    experiment = mine()
    assert "oracle" in experiment.evaluation.judges
    assert (own_rules(experiment)["P3E"].measure, own_rules(experiment)["P3E"].direction) == ("polarity", direction)


def test_any_text_rule_serves_where_no_oracle_judges():
    layers = ["--config", "config/config.yaml", "config/experiments/smollm2-cpu.yaml"]
    assert add(*POETIC, "--measure", "readability", *layers) == 0
    rule = own_rules(load_layers([*map(Path, layers[1:]), MINE]))["P3E"]
    assert (rule.measure, rule.direction) == ("readability", "more")
