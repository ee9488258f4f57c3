"""Adapters: one initialisation, switched without side effects, written and read in PEFT's own format, refused when unfit."""

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from peft.utils import get_peft_model_state_dict
from transformers import GPT2Config, GPT2LMHeadModel

from rlphf.errors import InputError
from rlphf.files import sha256
from rlphf.lm.adapters import POLICY, active, add_policy, initial_a_digest, new_policy, write_policy
from rlphf.lm.backbone import load_backbone
from rlphf.settings import Lora

TOKENS = torch.tensor([[2, 40, 41, 42, 3, 43]])
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def policy(tiny_backbone: Path) -> PeftModel:
    return add_policy(load_backbone(tiny_backbone)[0], Lora(rank=4), seed=3).eval()


def moved(model: PeftModel) -> PeftModel:
    """The model with a B that is not zero."""
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if f"lora_B.{POLICY}" in name:
                parameter.normal_()
    return model


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS).logits


def test_a_new_policy_is_the_backbone_and_its_a_comes_from_the_seed_alone(tiny_backbone: Path) -> None:
    digests = []
    for noise, seed in ((1, 3), (2, 3), (2, 4)):
        torch.manual_seed(noise)
        base = load_backbone(tiny_backbone)[0]
        plain = logits(base)
        model = add_policy(base, Lora(rank=4), seed).eval()
        assert torch.equal(logits(model), plain)
        digests.append(initial_a_digest(model))
    assert digests[0] == digests[1] != digests[2]


def test_what_a_training_that_diverged_ended_with_is_not_written(policy: PeftModel, tmp_path: Path) -> None:
    name, moved = next((name, p) for name, p in policy.named_parameters() if f"lora_B.{POLICY}" in name)
    with torch.no_grad():
        moved[0, 0] = float("nan")
    told = f"^{tmp_path / 'adapter'}: the training ended with no finite numbers in {name.replace(f'.{POLICY}', '')}; lower its"
    with pytest.raises(InputError, match=told):
        write_policy(policy, tmp_path / "adapter", "backbone", {})
    assert not list(tmp_path.iterdir())


def test_only_the_policys_factors_are_trainable(policy: PeftModel) -> None:
    for name, parameter in policy.named_parameters():
        assert parameter.requires_grad == (f".{POLICY}." in name), name


def test_a_policy_that_no_model_carries_is_the_one_that_a_model_would(tiny_backbone: Path, policy: PeftModel) -> None:
    base = load_backbone(tiny_backbone)[0]
    before = logits(base)
    fresh = new_policy(base, Lora(rank=4), seed=3)
    assert torch.equal(logits(base), before) and not any("lora" in name for name, _ in base.named_parameters())
    state = get_peft_model_state_dict(policy, adapter_name=POLICY)
    assert {f"{name}.lora_{k}.weight" for name in fresh.factors for k in "AB"} == state.keys()
    for name, (a, b) in fresh.factors.items():
        assert torch.equal(a, state[f"{name}.lora_A.weight"]) and torch.equal(b, state[f"{name}.lora_B.weight"])
    assert fresh.initial_a_sha256 == initial_a_digest(policy)
    assert fresh.config == policy.peft_config[POLICY].to_dict()


@pytest.mark.parametrize("targets", [["q_proj", "v_prjo"], ["q_proj", "lm_head"], ["embed_tokens"], ["self_attn"]])
def test_targets_that_are_no_linear_layers_of_the_backbone_are_refused_in_one_line(
    tiny_backbone: Path, targets: list[str]
) -> None:
    wanted = (
        f"lora.targets: the backbone has no linear layer {targets[-1]!r}; it has down_proj, gate_proj, k_proj, o_proj, q_proj,"
    )
    with pytest.raises(InputError, match=f"^{wanted} up_proj, v_proj$"):
        add_policy(load_backbone(tiny_backbone)[0], Lora(targets=targets), seed=0)


def test_a_backbone_without_linear_layers_is_refused() -> None:
    model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=16, n_positions=8))
    with pytest.raises(InputError, match="^lora.targets: the backbone has no linear layer 'c_attn'; it has none$"):
        add_policy(model, Lora(targets=["c_attn"]), seed=0)


@pytest.mark.parametrize("name", [None, POLICY])
@pytest.mark.parametrize("fails", [False, True])
def test_after_a_switch_all_is_as_before(policy, name: str | None, fails: bool) -> None:
    for part, parameter in policy.named_parameters():
        if f"lora_A.{POLICY}" in part:
            parameter.requires_grad_(False)
    before, flags = logits(moved(policy)), {n: p.requires_grad for n, p in policy.named_parameters()}
    try:
        with active(policy, name):
            inside = logits(policy)
            if fails:
                raise KeyError
    except KeyError:
        pass
    assert policy.active_adapter == POLICY
    assert flags == {n: p.requires_grad for n, p in policy.named_parameters()}
    assert torch.equal(logits(policy), before) and torch.equal(inside, before) == (name == POLICY)


def test_gradients_of_the_policy_survive_a_switch_before_the_backward_pass(policy) -> None:
    loss = moved(policy)(TOKENS).logits.logsumexp(-1).sum()
    with active(policy, None), torch.no_grad():
        policy(TOKENS)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for n, p in policy.named_parameters() if f".{POLICY}." in n)


def test_a_written_policy_gives_the_same_logits_in_plain_peft(policy, tiny_backbone: Path, tmp_path: Path) -> None:
    write_policy(moved(policy), tmp_path / "adapter", "results/backbone", {"preference": "P1A"})
    plain = load_backbone(tiny_backbone)[0]
    assert torch.equal(logits(PeftModel.from_pretrained(plain, tmp_path / "adapter")), logits(policy))
    assert json.loads((tmp_path / "adapter" / "adapter.json").read_text()) == {"kind": "policy", "preference": "P1A"}
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "results/backbone" and str(tiny_backbone) not in json.dumps(config)
    assert {p.name for p in (tmp_path / "adapter").iterdir()} == {WEIGHTS, "adapter_config.json", "adapter.json"}


def test_equal_policies_are_written_as_equal_bytes(tiny_backbone: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        model = add_policy(load_backbone(tiny_backbone)[0], Lora(rank=4, targets=["v_proj", "q_proj", "o_proj"]), seed=3)
        write_policy(moved(model), tmp_path / name, "backbone", {})
    assert sha256(tmp_path / "one") == sha256(tmp_path / "other")
