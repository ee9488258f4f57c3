"""An experiment's own preferences: what their rules measure, and that annotator, judges, labels and prompts all go by them."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest
import yaml

from rlphf.config import parse
from rlphf.data.annotate import annotate_step
from rlphf.data.learned import asked_for
from rlphf.data.own_rules import own_score, sentences_with
from rlphf.data.records import PAIRS, PROMPTS, RESPONSES
from rlphf.data.rules import polarity, readability, words
from rlphf.derived import shared_preferences, trained_together
from rlphf.errors import InputError
from rlphf.evaluate.judges.oracle import oracle_step
from rlphf.evaluate.judges.rules import rules_step
from rlphf.evaluate.judges.templates.texts import criterion
from rlphf.evaluate.labels import preference_label
from rlphf.evaluate.scores import SCORES
from rlphf.files import read_parquet, write_parquet
from rlphf.preferences import PREFERENCES, axis_of, combinations, declare, instruction, known, members, request
from rlphf.settings_own import TextRule

POETIC = {
    "axis": "style",
    "name": "poetic",
    "prompt": "Answer as a poet would.",
    "rule": {"words": ["lovely", "o moon"]},
    "judge": "The response is poetic.",
}
SETTINGS = {
    "experiment": "own",
    "own_preferences": {"P3E": POETIC},
    "preferences": ["P1A", "P2A", "P3A", "P3E"],
    "combination_preferences": ["P1A", "P2A", "P3A", "P3E"],
    "evaluation": {"methods": ["vb", "psoups"]},
}
TEXT = "It is so lovely. Bees fly. O moon, see them! Is that loveliness? Lovely"


@pytest.fixture(autouse=True)
def _none_is_left() -> Iterator[None]:
    yield
    declare({})


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    return tmp_path / "config.yaml"


def test_sentences_count_that_hold_a_word_as_a_whole_in_any_case():
    assert sentences_with(TEXT, ["lovely", "o moon"]) == 3 / 5
    assert sentences_with(TEXT, ["bee"]) == 0 and sentences_with(TEXT, ["BEES"]) == 1 / 5
    assert sentences_with("", ["a"]) == sentences_with(" \n", ["a"]) == 0
    assert sentences_with("3.5 (c++) is it.", ["c++"]) == 1


@pytest.mark.parametrize(("measure", "rule"), [("words", words), ("readability", readability)])
def test_a_measure_is_that_of_the_papers_rules_with_a_direction(measure, rule):
    assert own_score(TextRule(measure=measure), TEXT) == rule(TEXT)
    assert own_score(TextRule(measure=measure, direction="less"), TEXT) == -rule(TEXT)
    assert own_score(TextRule(words=["bees"], direction="less"), TEXT) == 4 / 5


def test_tone_lies_in_the_scale_of_the_oracle():
    texts = ("What a lovely, wonderful friend!", "The bee flies.", "What a horrible, awful bore.")
    friendly, neutral, blunt = (own_score(TextRule(measure="polarity"), text) for text in texts)
    assert 1 >= friendly > neutral == 0.5 > blunt >= 0 and friendly == (1 + polarity(texts[0])) / 2
    assert own_score(TextRule(measure="polarity", direction="less"), texts[0]) == 1 - friendly


def test_whoever_reads_the_configuration_knows_its_preferences_and_no_others():
    parse(SETTINGS)
    assert list(known()) == [*PREFERENCES, "P3E"]
    assert instruction("Why?", ["P3E"]) == "Why? Answer as a poet would."
    assert combinations(["P1A", "P2A", "P3A", "P3E"]) == ["P1A-P2A-P3A", "P1A-P2A-P3E"]
    assert preference_label("P3E") == "P3E poetic" and criterion("P3E") == "The response is poetic."
    assert asked_for("pmorl", "P3E") == ["P3E"]
    parse({"experiment": "other"})
    assert list(known()) == list(PREFERENCES) and preference_label("P3E") == "P3E"
    with pytest.raises(InputError, match="'P3E' is unknown"):
        instruction("Why?", ["P3E"])


def test_tables_tell_the_axis_of_a_preference_that_is_not_at_hand():
    assert axis_of("P3E") == "style" and members("P1A-P3E") == ["P1A", "P3E"]
    with pytest.raises(InputError, match="two preferences of the axis 'style'"):
        members("P3A-P3E")


def test_requests_of_the_papers_preferences_are_drawn_as_before():
    before = [request(name, "all", Random(seed)) for name in PREFERENCES for seed in range(20)]
    parse(SETTINGS)
    assert [request(name, "all", Random(seed)) for name in PREFERENCES for seed in range(20)] == before
    assert {tuple(request("P3E", "all", Random(seed))) for seed in range(99)} == {
        (a, b, "P3E") for a in ("P1A", "P1B") for b in ("P2A", "P2B")
    }


def test_policies_of_others_train_with_whom_they_trained_before():
    with_own = parse({**SETTINGS, "ppo": {"together": 2}})
    without = parse(
        {**SETTINGS, "preferences": ["P1A", "P2A", "P3A"], "combination_preferences": ["P1A"], "ppo": {"together": 2}}
    )
    assert trained_together(with_own) == [*trained_together(without), ["P3E"]] and shared_preferences(with_own) == [
        "P1A",
        "P2A",
        "P3A",
    ]


def written(folder: Path, rows: list[dict], topic: str | None = "bees") -> tuple[Path, Path]:
    """Write prompts and responses; return their files."""
    names = dict.fromkeys(row["prompt_id"] for row in rows)
    asked = [{"id": n, "prompt": f"{n}?", "topic": topic, "source": "testbed", "split": "test"} for n in names]
    write_parquet(folder / "prompts.parquet", pa.Table.from_pylist(asked, PROMPTS))
    write_parquet(folder / "responses.parquet", pa.Table.from_pylist(rows, RESPONSES))
    return folder / "prompts.parquet", folder / "responses.parquet"


def response(name: str, sample: int, text: str, method: str = "rollout", combination: str = "") -> dict:
    about = {"prompt_id": name, "method": method, "combination": combination, "sample": sample}
    return about | {"response": text, "tokens": 1, "finished": True}


def test_its_own_rule_chooses_its_pairs_in_the_testbed_too(config, tmp_path):
    rows = [response("q1", 0, "Dull."), response("q1", 1, "How lovely."), response("q2", 0, "Dull."), response("q2", 1, "Grey.")]
    annotate_step(config, "P3E", *written(tmp_path, rows), tmp_path, tmp_path / "pairs" / "pairs.parquet")
    (pair,) = read_parquet(tmp_path / "pairs" / "pairs.parquet", PAIRS).to_pylist()
    assert (pair["prompt"], pair["chosen"], pair["rejected"]) == ("q1?", "How lovely.", "Dull.")
    assert pair["preference"] == "P3E" and pair["probability"] == 1


def test_words_that_no_response_has_are_named_as_the_reason(config, tmp_path):
    files = written(tmp_path, [response("q1", 0, "Dull."), response("q1", 1, "Grey.")])
    with pytest.raises(InputError, match="nothing to choose for P3E: .* with its words .*; choose others"):
        annotate_step(config, "P3E", *files, tmp_path, tmp_path / "pairs" / "pairs.parquet")


@pytest.mark.parametrize("judge", [oracle_step, rules_step])
def test_judges_score_it_by_its_rule_beside_what_they_know(config, tmp_path, judge):
    rows = [response("q1", 0, "Dull.", "vb"), response("q1", 0, "How lovely. Dull.", "psoups", "P1A-P2A-P3E")]
    prompts, responses = written(tmp_path, rows)
    judge(config, prompts, [responses], tmp_path / "judge" / "scores.parquet")
    table = read_parquet(tmp_path / "judge" / "scores.parquet", SCORES).to_pylist()
    assert {row["method"]: row["score"] for row in table if row["criterion"] == "P3E"} == {"vb": 0.0, "psoups": 0.5}
    assert {"P1A", "P3A"} < {row["criterion"] for row in table}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"P3D": POETIC}, "own_preferences.P3D"),
        ({"P3E": {**POETIC, "axis": "expertise"}}, "ids of axis expertise begin with P1; P3E is of style"),
        ({"P3E": {**POETIC, "rule": None}}, "P3E.rule: needed, because annotator.kind simulated cannot choose its pairs"),
        ({"P3E": {**POETIC, "rule": {"measure": "words"}}}, "set a measure whose do, too: sentences_with or polarity"),
        ({"P3E": {**POETIC, "rule": {"words": []}}}, "words: needed for measure sentences_with"),
        ({"P3E": {**POETIC, "tone": "soft"}}, "P3E.tone: unknown key"),
        ({}, "preference 'P3E' is unknown"),
    ],
)
def test_what_is_no_preference_is_refused(change, fault):
    with pytest.raises(InputError, match=fault):
        parse({**SETTINGS, "own_preferences": change})
