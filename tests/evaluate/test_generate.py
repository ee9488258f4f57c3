"""Responses of a method: how many, to what, and from which random numbers."""

from pathlib import Path

import pytest
import torch

from rlphf.config import Experiment, parse
from rlphf.errors import InputError
from rlphf.evaluate.generate import Arm, arms, respond, serving
from rlphf.lm.adapters import add_policy, write_policy
from rlphf.lm.backbone import load_backbone
from rlphf.settings import Lora

PROMPTS = [{"id": "q1", "prompt": "Tell me about honey."}, {"id": "q2", "prompt": "Explain rivers to me."}]


@pytest.fixture
def experiment() -> Experiment:
    settings = {"samples": 3, "decoding": {"temperature": 1.0, "max_new_tokens": 6, "batch_size": 4}}
    return parse({"experiment": "test", "seed": 1, "evaluation": settings})


@pytest.fixture
def make_policy(tiny_backbone: Path, tmp_path: Path):
    """Write a policy that is not the backbone; return its folder."""

    def make(seed: int) -> Path:
        model = add_policy(load_backbone(tiny_backbone)[0], Lora(rank=2), seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.fill_(0.1)
        write_policy(model, tmp_path / str(seed), str(tiny_backbone), {})
        return tmp_path / str(seed)

    return make


def test_each_prompt_gets_its_samples_and_they_differ(tiny_backbone: Path, experiment: Experiment) -> None:
    model, tokenizer = load_backbone(tiny_backbone)
    rows = respond(model, tokenizer, PROMPTS, experiment, Arm("pp", "P1A", ["P1A"], {}))
    assert [(row["prompt_id"], row["sample"]) for row in rows] == [(q, k) for q in ("q1", "q2") for k in range(3)]
    # The tiny backbone's short responses may meet by chance; those of one prompt are drawn apart.
    for question in ("q1", "q2"):
        assert len({row["response"] for row in rows if row["prompt_id"] == question}) > 1


def test_the_name_of_an_arm_decides_its_random_numbers(tiny_backbone: Path, experiment: Experiment) -> None:
    model, tokenizer = load_backbone(tiny_backbone)
    made = [respond(model, tokenizer, PROMPTS, experiment, Arm(name, "", [], {})) for name in ("vb", "vb", "pp")]
    one, same, other = ([row["response"] for row in rows] for rows in made)
    assert one == same != other


def described(method: str, **settings) -> list[tuple]:
    raw = {"experiment": "test", "preferences": ["P1A", "P2A", "P2B"], "combination_preferences": ["P1A", "P2A"]}
    found = arms(method, parse({**raw, **settings}), Path("run"))
    return [(a.combination, a.asked, {path.as_posix(): weight for path, weight in a.adapters.items()}) for a in found]


def test_arms_of_each_method_are_asked_and_served_as_it_says() -> None:
    both = ["P1A", "P2A"]
    assert described("vb") == [("", [], {})]
    assert described("rlhf") == [("", [], {"run/ppo/general/adapter": 1.0})]
    assert described("pp") == [("P1A-P2A", both, {})]
    assert described("mt") == [("P1A-P2A", both, {"run/sft/mt/adapter": 1.0})]
    assert described("pmorl") == [("P1A-P2A", both, {"run/ppo/pmorl/adapter": 1.0})]
    assert described("psoups") == [("P1A-P2A", both, {"run/soups/P1A-P2A": 1.0})]
    assert described("psoups_unprompted") == [("P1A-P2A", [], {"run/soups/P1A-P2A": 1.0})]
    ways = {"compared": {"ties": {"rule": "ties"}}}
    assert described("psoups_ties", soup=ways) == [("P1A-P2A", both, {"run/soups/ties/P1A-P2A": 1.0})]
    assert described("psoups", soup=ways | {"scale": 1.5}) == described("psoups")
    weights = {"run/ppo/P1A/adapter": 0.7, "run/ppo/P2A/adapter": 0.5}
    assert described("mod", soup={"weights": {"P1A": 0.7}}) == [("P1A-P2A", both, weights)]


def test_a_front_asks_for_both_unless_they_exclude_each_other() -> None:
    front = described("front", evaluation={"front": ["P1A", "P2A"], "front_points": 3})
    assert front == [(w, ["P1A", "P2A"], {f"run/soups/front/{w}": 1.0}) for w in ("0.000", "0.500", "1.000")]
    assert {str(asked) for _, asked, _ in described("front", evaluation={"front": ["P2A", "P2B"]})} == {"[]"}


def test_a_method_that_is_none_and_a_front_between_nobody_are_refused() -> None:
    with pytest.raises(InputError, match="--method: 'nosuch' is none; choose from vb, rlhf"):
        described("nosuch")
    with pytest.raises(InputError, match="'psoups_ties' is none; choose from .*psoups_thin"):
        described("psoups_ties", soup={"compared": {"thin": {"rule": "ties"}}})
    with pytest.raises(InputError, match="evaluation.front: names no preferences"):
        described("front", evaluation={"front": []})


def test_no_adapter_is_left_on_the_backbone(tiny_backbone: Path, make_policy) -> None:
    model, _ = load_backbone(tiny_backbone)
    tokens = torch.tensor([[2, 40, 41, 3]])
    with torch.no_grad():
        before = model(tokens).logits
        for adapters in ({}, {make_policy(1): 1.0}, {make_policy(1): 0.5, make_policy(2): 0.5}):
            with serving(model, adapters):
                pass
            assert torch.equal(model(tokens).logits, before)


def test_no_adapter_is_left_on_the_backbone_where_answering_fails(tiny_backbone: Path, make_policy) -> None:
    model, _ = load_backbone(tiny_backbone)
    for adapters in ({make_policy(1): 1.0}, {make_policy(1): 0.5}):
        with pytest.raises(ValueError, match="in the midst"), serving(model, adapters):
            assert any(module._forward_hooks for module in model.modules())
            raise ValueError("in the midst")
        assert not any(module._forward_hooks for module in model.modules())
