"""Responses of a method: how many, to what, and from which random numbers."""

from pathlib import Path

import pytest

from rlphf.config import Experiment, parse
from rlphf.evaluate.generate import respond
from rlphf.lm.backbone import load_backbone

PROMPTS = [{"id": "q1", "prompt": "Tell me about honey."}, {"id": "q2", "prompt": "Explain rivers to me."}]


@pytest.fixture
def experiment() -> Experiment:
    settings = {"samples": 3, "decoding": {"temperature": 1.0, "max_new_tokens": 6, "batch_size": 4}}
    return parse({"experiment": "test", "seed": 1, "evaluation": settings})


def test_each_prompt_gets_its_samples_and_they_differ(tiny_backbone: Path, experiment: Experiment) -> None:
    model, tokenizer = load_backbone(tiny_backbone)
    rows = respond(model, tokenizer, PROMPTS, experiment, "pp/P1A", ["P1A"])
    assert [(row["prompt_id"], row["sample"]) for row in rows] == [(q, k) for q in ("q1", "q2") for k in range(3)]
    assert len({row["response"] for row in rows}) == 6


def test_the_name_of_an_arm_decides_its_random_numbers(tiny_backbone: Path, experiment: Experiment) -> None:
    model, tokenizer = load_backbone(tiny_backbone)
    one, same, other = (respond(model, tokenizer, PROMPTS, experiment, name, []) for name in ("vb/", "vb/", "pp/P1A"))
    assert one == same != other
