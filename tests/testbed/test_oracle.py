"""The oracle reads every response back as it was meant, and gives bad ones what they deserve."""

from random import Random

import pytest
from tests.testbed.planned import planned_scores

from rlphf.preferences import PREFERENCES
from rlphf.testbed.language import FACTS, draw_plan, realise, remarks, topics
from rlphf.testbed.oracle import CRITERIA, GENERAL, general, read, scores


def test_the_oracle_agrees_with_how_each_of_10_000_responses_was_generated() -> None:
    rng, names = Random(0), sorted(topics())
    for _ in range(10_000):
        asked = rng.sample(list(PREFERENCES), rng.randint(0, 3))
        plan = draw_plan(rng, rng.choice(names), asked)
        text = realise(plan)
        assert [sentence.item for sentence in read(text) if sentence] == list(plan.items), text
        assert scores(text, plan.topic) == pytest.approx(planned_scores(plan)), text


def test_there_is_a_criterion_for_every_preference_and_helpfulness_and_each_lies_in_0_to_1() -> None:
    assert (*PREFERENCES, "helpfulness") == CRITERIA
    rng, names = Random(1), sorted(topics())
    for _ in range(500):
        # Sentences of any topics in any order, some of them cut: what a bad policy may say.
        parts = [realise(draw_plan(rng, rng.choice(names))) for _ in range(rng.randint(1, 3))]
        text = " ".join(part[: rng.randint(1, len(part))] for part in parts)
        found = scores(text, rng.choice(names))
        assert tuple(found) == CRITERIA and all(0 <= value <= 1 for value in found.values())
        assert 0 <= general(found) <= 1


HONEY = topics()["honey"].facts
PLAIN, TECHNICAL = [f[0] for f in HONEY], [f[1] for f in HONEY]
FRIENDLY = remarks()["friendly"]["asides"][0]
NEUTRAL = remarks()["neutral"]["asides"][0]


def test_expertise_is_the_share_of_a_wording_among_the_facts() -> None:
    found = scores(" ".join([PLAIN[0], PLAIN[1], TECHNICAL[2], NEUTRAL]), "honey")
    assert found["P1A"] == pytest.approx(2 / 3) and found["P1B"] == pytest.approx(1 / 3)


def test_a_short_response_is_concise_and_a_complete_one_informative() -> None:
    one, all_of_them = scores(PLAIN[0], "honey"), scores(" ".join(PLAIN), "honey")
    assert one["P2A"] == 1.0 and one["P2B"] == pytest.approx(1 / FACTS)
    assert all_of_them["P2B"] == 1.0 and all_of_them["P2A"] < 0.5
    assert scores(" ".join(PLAIN * 3), "honey")["P2A"] == 0.0


def test_both_wordings_of_a_fact_are_one_fact() -> None:
    found = scores(f"{PLAIN[0]} {TECHNICAL[0]}", "honey")
    assert found["P2B"] == pytest.approx(1 / FACTS) and found["helpfulness"] == 0.5


def test_style_is_the_share_of_a_tone_among_the_remarks() -> None:
    found = scores(f"{PLAIN[0]} {FRIENDLY} {NEUTRAL}", "honey")
    assert found["P3A"] == 0.5 and found["P3B"] == found["P3C"] == found["P3D"] == 0.0
    assert scores(PLAIN[0], "honey")["P3A"] == 0.0


def test_a_response_on_another_topic_helps_nobody() -> None:
    found = scores(f"{FRIENDLY} {PLAIN[0]}", "volcanoes")
    assert found["P1A"] == found["P2A"] == found["P2B"] == found["helpfulness"] == 0.0
    assert found["P3A"] == 1.0


def test_a_sentence_on_another_topic_costs_helpfulness() -> None:
    other = topics()["volcanoes"].facts[0][0]
    opener = next(text for text in remarks()["friendly"]["openers"] if "{topic}" in text)
    assert scores(f"{PLAIN[0]} {other}", "honey")["helpfulness"] == 0.5
    assert scores(f"{opener.format(topic=topics()['volcanoes'].name)} {PLAIN[0]}", "honey")["helpfulness"] == 0.5
    assert scores(f"{opener.format(topic=topics()['honey'].name)} {PLAIN[0]}", "honey")["helpfulness"] == 1.0


def test_a_cut_or_made_up_sentence_costs_helpfulness() -> None:
    assert scores(f"{PLAIN[0]} {PLAIN[1][:-1]}", "honey")["helpfulness"] == 0.5
    assert scores(f"{PLAIN[0]} {PLAIN[1][:12]}", "honey")["helpfulness"] == 0.5
    assert scores(f"{PLAIN[0]} The moon is made of cheese.", "honey")["helpfulness"] == 0.5
    assert read(f"{PLAIN[0]} The moon is made of cheese.")[1] is None


def test_repeating_costs_helpfulness() -> None:
    assert scores(f"{PLAIN[0]} {PLAIN[0]}", "honey")["helpfulness"] == 0.5
    assert scores(f"{PLAIN[0]} {FRIENDLY} {FRIENDLY} {FRIENDLY}", "honey")["helpfulness"] == 0.5


@pytest.mark.parametrize("text", ["", " ", ".", "!?", "honey", "\n\n"])
def test_nothing_said_scores_nothing(text: str) -> None:
    assert set(scores(text, "honey").values()) == {0.0}


def test_line_breaks_and_capitals_do_not_matter() -> None:
    assert scores(f"{PLAIN[0].upper()}\n{FRIENDLY.lower()}", "honey") == scores(f"{PLAIN[0]} {FRIENDLY}", "honey")


def test_the_general_labeller_likes_help_information_and_friendliness() -> None:
    assert sum(GENERAL.values()) == pytest.approx(1.0)
    best = scores(" ".join([FRIENDLY, *PLAIN]), "honey")
    assert general(best) == pytest.approx(1.0)
    assert general(scores(PLAIN[0], "honey")) < general(scores(f"{PLAIN[0]} {FRIENDLY}", "honey")) < general(best)
