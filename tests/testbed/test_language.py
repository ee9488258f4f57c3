"""The generated language: large enough, English, and drawn as it is asked for."""

from collections import Counter
from random import Random

import pytest

from rlphf.settings import Testbed as Settings
from rlphf.testbed.language import (
    FACTS,
    MAX_ASIDES,
    PHRASINGS,
    TONES,
    WORDINGS,
    Plan,
    Remark,
    draw_plan,
    question,
    realise,
    remarks,
    topics,
)
from rlphf.testbed.oracle import split_sentences


def sentences() -> list[str]:
    """Every sentence of the language, remarks with each topic that they can name."""
    facts = [text for topic in topics().values() for wordings in topic.facts for text in wordings]
    said = [text for parts in remarks().values() for texts in parts.values() for text in texts]
    named = [text.format(topic=t.name) for text in said if "{topic}" in text for t in topics().values()]
    return facts + named + [text for text in said if "{topic}" not in text]


def test_there_are_topics_for_training_and_for_holding_out_each_with_facts_in_two_wordings() -> None:
    assert len(topics()) >= 48 and FACTS >= 6 and WORDINGS == ("plain", "technical")
    for topic in topics().values():
        assert len(topic.facts) == FACTS
        assert all(len(wordings) == 2 and wordings[0] != wordings[1] for wordings in topic.facts)
    settings = Settings()
    assert settings.train_topics >= 36 and settings.test_topics >= 12
    assert settings.train_topics + settings.validation_topics + settings.test_topics <= len(topics())
    assert settings.train_phrasings + settings.test_phrasings <= len(PHRASINGS) == len(set(PHRASINGS))


def test_each_of_five_tones_has_openers_asides_and_closers() -> None:
    assert set(remarks()) == set(TONES) and len(TONES) == 5
    for parts in remarks().values():
        assert set(parts) == {"openers", "asides", "closers"}
        assert len(parts["openers"]) > 1 and len(parts["closers"]) > 1 and len(parts["asides"]) >= MAX_ASIDES


def test_no_two_sentences_are_alike_and_each_is_one_sentence() -> None:
    said = sentences()
    bare = Counter("".join(c for c in text.lower() if c.isalnum()) for text in said)
    assert max(bare.values()) == 1
    for text in said:
        assert split_sentences(text) == [text] and text[-1] in ".!?" and "{" not in text
        # Quotation marks and digits may begin a sentence; a small letter may not.
        assert not text[0].islower() and text == " ".join(text.split()) and text.isascii()


def test_there_are_over_a_million_distinct_responses() -> None:
    # A lower bound: one tone each, and no asides. Each fact is absent, plain or technical, but not all are absent.
    frames = sum((len(p["openers"]) + 1) * (len(p["closers"]) + 1) - 1 for p in remarks().values()) + 1
    assert len(topics()) * (3**FACTS - 1) * frames > 1_000_000
    rng = Random(0)
    drawn = {realise(draw_plan(rng, topic)) for topic in topics() for _ in range(200)}
    assert len(drawn) > 0.97 * 200 * len(topics())


def test_a_response_is_its_plans_sentences_in_order() -> None:
    items = (Remark("openers", "friendly", 0), (2, "technical"), (0, "plain"), Remark("closers", "sassy", 1))
    facts = topics()["honey"].facts
    wanted = [remarks()["friendly"]["openers"][0], facts[2][1], facts[0][0], remarks()["sassy"]["closers"][1]]
    assert realise(Plan("honey", items)) == " ".join(wanted).replace("{topic}", topics()["honey"].name)


def test_a_question_names_its_topic() -> None:
    for topic in topics().values():
        asked = [question(topic.id, k) for k in range(len(PHRASINGS))]
        assert len(set(asked)) == len(PHRASINGS) and all(topic.name in text for text in asked)


def drawn(obeyed: list[str]) -> list[Plan]:
    rng = Random(3)
    return [draw_plan(rng, rng.choice(sorted(topics())), obeyed) for _ in range(400)]


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


@pytest.mark.parametrize(("preference", "wording"), [("P1A", "plain"), ("P1B", "technical")])
def test_expertise_is_the_wording_with_few_slips(preference: str, wording: str) -> None:
    facts = [w for plan in drawn([preference]) for _, w in plan.facts]
    assert 0.9 < facts.count(wording) / len(facts) < 1


def test_informativeness_is_the_number_of_facts() -> None:
    assert {len(plan.facts) for plan in drawn(["P2A"])} == {1, 2}
    assert {len(plan.facts) for plan in drawn(["P2B"])} == {FACTS - 1, FACTS}
    assert {len(plan.facts) for plan in drawn([])} == set(range(1, FACTS + 1))


@pytest.mark.parametrize(
    ("preference", "tone"), [("P3A", "friendly"), ("P3B", "unfriendly"), ("P3C", "sassy"), ("P3D", "sarcastic")]
)
def test_style_is_the_tone_of_every_remark(preference: str, tone: str) -> None:
    plans = drawn([preference])
    assert {r.tone for plan in plans for r in plan.remarks} == {tone}
    assert mean(bool(plan.remarks) for plan in plans) > 0.9


def test_without_a_preference_all_tones_occur_and_neutral_most() -> None:
    tones = Counter(r.tone for plan in drawn([]) for r in plan.remarks)
    assert set(tones) == set(TONES) and tones["neutral"] > 0.5 * tones.total()


def test_a_plan_states_no_fact_and_makes_no_remark_twice() -> None:
    for plan in drawn([]) + drawn(["P2B", "P3A"]):
        assert len({number for number, _ in plan.facts}) == len(plan.facts) >= 1
        assert len(set(plan.remarks)) == len(plan.remarks)
