"""Annotators: the simulated one is as noisy as it says, a rule is certain, and pairs keep their prompts' split."""

import json
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest

from rlphf.data.annotate import annotate, annotate_step, choose, oracle_utility, rule_utility
from rlphf.data.records import PAIRS, PROMPTS, RESPONSES, check_pairs
from rlphf.errors import InputError
from rlphf.files import read_parquet, sha256, write_parquet
from rlphf.lm.reward_model import encode_texts, load_reward_model, score
from rlphf.preferences import GENERAL, instruction
from rlphf.settings import Annotator
from rlphf.testbed import oracle
from rlphf.testbed.language import draw_plan, question, realise, topics

SIMULATED = Annotator(kind="simulated", rationality=5.0)
RULE = Annotator(kind="rule")


def prompt(name: str, topic: str | None = "honey", split: str = "train") -> dict:
    return {"id": name, "prompt": f"{name}?", "topic": topic, "source": "testbed", "split": split}


def response(name: str, sample: int, text: str) -> dict:
    return {
        "prompt_id": name,
        "method": "rollout",
        "combination": "",
        "sample": sample,
        "response": text,
        "tokens": 1,
        "finished": True,
    }


def rollouts(count: int = 40, pairs: int = 2) -> tuple[list[dict], list[dict]]:
    """Prompts on testbed topics and two responses per pair, as the corpus would answer."""
    rng, names = Random(0), sorted(topics())
    asked, said = [], []
    for i in range(count):
        topic = rng.choice(names)
        asked.append(prompt(f"p{i:03d}", topic, "test" if i % 4 == 0 else "train") | {"prompt": question(topic, i % 10)})
        said += [response(f"p{i:03d}", k, realise(draw_plan(rng, topic))) for k in range(2 * pairs)]
    return asked, said


def made(
    prompts: list[dict], responses: list[dict], settings: Annotator = SIMULATED, preference: str = "P2B", seed: int = 1
) -> list[dict]:
    utility = oracle_utility(preference) if settings.kind == "simulated" else rule_utility(preference, {})
    return annotate(prompts, responses, preference, settings, utility, seed).to_pylist()


@pytest.mark.parametrize("kind", ["simulated", "rule", "reward_model"])
def test_scores_that_are_no_numbers_choose_nothing(kind: str) -> None:
    settings, asked, said = (
        Annotator(kind=kind, model="mine"),
        [prompt("a")],
        [response("a", k, text) for k, text in enumerate("xy")],
    )
    with pytest.raises(InputError, match="prompt a: the annotator's scores of its responses are no numbers"):
        annotate(asked, said, "P2B", settings, lambda prompt, text: math.nan, 1)


@pytest.mark.parametrize("difference", [0.0, 0.1, -0.3, 0.6])
def test_the_simulated_annotator_chooses_by_bradley_terry(difference: float) -> None:
    rng, count = Random(2), 20_000
    chosen = [choose(difference, SIMULATED, rng) for _ in range(count)]
    wanted = 1 / (1 + math.exp(-5.0 * difference))
    rate = sum(first for first, _ in chosen) / count
    assert abs(rate - wanted) < 4 * math.sqrt(wanted * (1 - wanted) / count)
    assert all(p == pytest.approx(wanted if first else 1 - wanted) for first, p in chosen)


def test_the_stated_probabilities_are_calibrated() -> None:
    # Of the pairs whose better response is said to be chosen with probability p, it is chosen in the share p.
    prompts, responses = rollouts(count=400, pairs=8)
    rows = made(prompts, responses)
    chosen = defaultdict(list)
    for probability in (row["probability"] for row in rows if row["probability"] != 0.5):
        chosen[round(max(probability, 1 - probability), 6)].append(probability > 0.5)
    assert len(chosen) == 5
    for stated, found in chosen.items():
        assert len(found) > 100
        assert abs(sum(found) / len(found) - stated) < 4 * math.sqrt(stated * (1 - stated) / len(found))


def test_an_extreme_difference_is_certain_and_does_not_overflow() -> None:
    settings = Annotator(rationality=1e6)
    assert choose(1.0, settings, Random(0)) == (True, 1.0)
    assert choose(-1.0, settings, Random(0)) == (False, 1.0)


def test_the_stated_probability_is_that_of_the_oracles_difference() -> None:
    prompts, responses = rollouts()
    topic_of = {p["prompt"]: p["topic"] for p in prompts}
    for preference in ("P1A", "P3B", GENERAL):
        for row in made(prompts, responses, preference=preference):
            good, bad = (oracle.scores(row[name], topic_of[row["prompt"]]) for name in ("chosen", "rejected"))
            difference = (
                oracle.general(good) - oracle.general(bad) if preference == GENERAL else good[preference] - bad[preference]
            )
            assert row["probability"] == pytest.approx(1 / (1 + math.exp(-5.0 * difference)))


def test_pairs_are_made_of_samples_2k_and_2k_plus_1_and_keep_the_split() -> None:
    prompts, responses = rollouts()
    text_of = {(r["prompt_id"], r["sample"]): r["response"] for r in responses}
    wanted = {frozenset((text_of[p["id"], k], text_of[p["id"], k + 1])) for p in prompts for k in (0, 2)}
    rows = made(prompts, responses)
    assert {frozenset((r["chosen"], r["rejected"])) for r in rows} == wanted
    split_of = {p["prompt"]: p["split"] for p in prompts}
    assert all(r["split"] == split_of[r["prompt"]] and r["source"] == "testbed" and r["user"] is None for r in rows)


def test_pairs_keep_the_rules_of_their_table() -> None:
    prompts, responses = rollouts()
    check_pairs(annotate(prompts, responses, "P2B", SIMULATED, oracle_utility("P2B"), seed=1), "pairs")
    check_pairs(annotate(prompts, responses, "P2B", RULE, rule_utility("P2B", {}), seed=1), "pairs")


def test_the_order_of_the_rows_does_not_matter_and_the_seed_does() -> None:
    prompts, responses = rollouts()
    rows = made(prompts, responses)
    assert made(prompts[::-1], responses[::-1]) == rows == made(prompts, responses)
    assert made(prompts, responses, seed=2) != rows


def test_equal_empty_and_lone_responses_give_no_pair() -> None:
    texts = ["Same.", "Same.", "", "One.", "Two.", "", "Three.", "Four.", "Alone."]
    rows = made([prompt("p")], [response("p", k, text) for k, text in enumerate(texts)], RULE)
    assert rows == []
    rows = made([prompt("p")], [response("p", 0, "Longer by far."), response("p", 1, "Short.")], RULE)
    assert [(r["chosen"], r["rejected"], r["probability"]) for r in rows] == [("Longer by far.", "Short.", 1.0)]


@pytest.mark.parametrize(
    ("preference", "better", "worse"),
    [
        ("P2B", "A cat is a cat.", "Extraordinarily short."),
        ("P2A", "Extraordinarily short.", "A cat is a cat."),
        ("P1B", "Extraordinarily short.", "A cat is a cat."),
        ("P1A", "A cat is a cat.", "Extraordinarily short."),
        ("P3A", "What a lovely cat.", "What an ugly cat."),
        ("P3B", "What an ugly cat.", "What a lovely cat."),
    ],
)
def test_a_rule_without_noise_always_takes_the_text_that_its_preference_wants(preference: str, better: str, worse: str) -> None:
    for texts in ((better, worse), (worse, better)):
        rows = made([prompt("p", topic=None)], [response("p", k, text) for k, text in enumerate(texts)], RULE, preference)
        assert [(r["chosen"], r["rejected"], r["probability"]) for r in rows] == [(better, worse, 1.0)]


def test_a_rule_with_noise_errs_as_often_as_it_says() -> None:
    settings = Annotator(kind="rule", noise=0.2)
    chosen = [choose(1.0, settings, Random(seed)) for seed in range(2000)]
    wrong = [p for first, p in chosen if not first]
    assert abs(len(wrong) / len(chosen) - 0.2) < 0.04
    assert set(wrong) == {0.2} and {p for first, p in chosen if first} == {0.8}


def test_responses_that_a_rule_finds_equal_give_no_pair() -> None:
    assert made([prompt("p")], [response("p", 0, "One cat."), response("p", 1, "Two dogs.")], RULE) == []


@pytest.mark.parametrize("preference", [GENERAL, "P3C"])
def test_what_has_no_rule_is_refused_in_one_line(preference: str) -> None:
    with pytest.raises(InputError, match=f"there is no text rule for '{preference}'; rules know P1A"):
        rule_utility(preference, {})


def test_the_oracle_does_not_label_what_it_cannot_read() -> None:
    with pytest.raises(InputError, match="prompt p: .*testbed prompts only"):
        made([prompt("p", topic=None)], [response("p", 0, "One."), response("p", 1, "Two.")])


def test_the_step_writes_the_same_bytes_for_the_same_seed_and_other_choices_for_another_preference(tmp_path: Path) -> None:
    prompts, responses = rollouts()
    write_parquet(tmp_path / "prompts.parquet", pa.Table.from_pylist(prompts, PROMPTS))
    write_parquet(tmp_path / "responses.parquet", pa.Table.from_pylist(responses, RESPONSES))
    (tmp_path / "config.yaml").write_text("experiment: test\nannotator: {rationality: 1.0}\n")

    def step(name: str, preference: str = "P2B") -> Path:
        out = tmp_path / name / "pairs.parquet"
        annotate_step(
            tmp_path / "config.yaml", preference, tmp_path / "prompts.parquet", tmp_path / "responses.parquet", tmp_path, out
        )
        return out

    assert sha256(step("one")) == sha256(step("same"))
    one, other = (read_parquet(step(n, p), PAIRS).to_pylist() for n, p in (("one", "P2B"), ("other", "P2A")))
    assert [r["chosen"] for r in one] != [r["chosen"] for r in other]


ASKED, SAID = rollouts()
SAME = [response("p", k, "Same.") for k in range(2)]


@pytest.mark.parametrize(
    ("prompts", "responses", "message"),
    [
        ([prompt("p")], SAME, "responses.parquet: nothing to choose for P2B: no two responses to a prompt differ"),
        (ASKED[1:], SAID, "responses.parquet: prompt 'p000' is not among those in .*; sample rollouts again"),
    ],
    ids=["no pair", "no prompt"],
)
def test_what_gives_no_pairs_is_an_error_in_one_line(
    tmp_path: Path, prompts: list[dict], responses: list[dict], message: str
) -> None:
    write_parquet(tmp_path / "prompts.parquet", pa.Table.from_pylist(prompts, PROMPTS))
    write_parquet(tmp_path / "responses.parquet", pa.Table.from_pylist(responses, RESPONSES))
    (tmp_path / "config.yaml").write_text("experiment: test\n")
    out = tmp_path / "out" / "pairs.parquet"
    with pytest.raises(InputError, match=message):
        annotate_step(
            tmp_path / "config.yaml", "P2B", tmp_path / "prompts.parquet", tmp_path / "responses.parquet", tmp_path, out
        )
    assert not out.exists()


def test_a_model_that_annotates_chooses_by_its_scores_of_whole_texts_and_is_an_input_as_is_its_backbone(
    tmp_path: Path, tiny_backbone: Path, make_reward: Callable[..., Path]
) -> None:
    prompts, responses = rollouts()
    write_parquet(tmp_path / "prompts.parquet", pa.Table.from_pylist(prompts, PROMPTS))
    write_parquet(tmp_path / "responses.parquet", pa.Table.from_pylist(responses, RESPONSES))
    model, out = make_reward(preference="P2B"), tmp_path / "pairs" / "pairs.parquet"
    # Neither the scale of the oracle's scores nor the length of the experiment's own reward models is this model's.
    about = {"kind": "reward_model", "model": str(model), "rationality": 1e4}
    (tmp_path / "config.yaml").write_text(json.dumps({"experiment": "test", "annotator": about, "reward": {"max_length": 16}}))
    annotate_step(
        tmp_path / "config.yaml", "P2B", tmp_path / "prompts.parquet", tmp_path / "responses.parquet", tiny_backbone, out
    )
    known = json.loads((out.parent / "record.json").read_text())["inputs"]
    assert {"model", "backbone"} < set(known)
    scorer, tokenizer = load_reward_model(tiny_backbone, model)
    rows = read_parquet(out, PAIRS).to_pylist()
    chosen, rejected = (
        score(
            scorer,
            encode_texts(tokenizer, [instruction(r["prompt"], ["P2B"]) for r in rows], [r[name] for r in rows]),
            tokenizer.pad_token_id,
        )
        for name in ("chosen", "rejected")
    )
    odds = [one - other for one, other in zip(chosen, rejected, strict=True)]
    assert len(rows) > 50 and max(odds) > 0.1
    assert [r["probability"] for r in rows] == pytest.approx([1 / (1 + math.exp(-x)) for x in odds], abs=1e-4)
