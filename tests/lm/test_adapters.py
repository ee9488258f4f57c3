"""Adapters: one initialisation, switched without side effects, written and read in PEFT's own format, refused when unfit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from rlphf.errors import InputError
from rlphf.files import sha256
from rlphf.lm.adapters import (
    POLICY,
    REWARD,
    active,
    add_policy,
    add_reward,
    initial_a_digest,
    lora_config,
    read_tensors,
    write_adapter,
    write_policy,
)
from rlphf.lm.backbone import backbone_sha256, load_backbone
from rlphf.settings import Lora
from rlphf.train.reward import classifier

TOKENS = torch.tensor([[2, 40, 41, 42, 3, 43]])
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def reward(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model with random factors and a random head."""
    from peft import get_peft_model

    torch.manual_seed(1)
    model = get_peft_model(classifier(tiny_backbone)[0], lora_config(Lora(rank=4), task_type="SEQ_CLS"))
    state = {name: torch.randn_like(value) for name, value in get_peft_model_state_dict(model).items()}
    folder = tmp_path_factory.mktemp("reward") / "adapter"
    about = {"kind": "reward", "backbone_sha256": backbone_sha256(tiny_backbone)}
    write_adapter(folder, state, model.peft_config["default"].to_dict(), "backbone", about)
    return folder


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


def test_only_the_policys_factors_are_trainable(policy: PeftModel, reward: Path, tiny_backbone: Path) -> None:
    add_reward(policy, reward, backbone_sha256(tiny_backbone))
    for name, parameter in policy.named_parameters():
        assert parameter.requires_grad == (f".{POLICY}." in name), name


def test_unknown_targets_are_refused_in_one_line(tiny_backbone: Path) -> None:
    with pytest.raises(InputError, match="^lora.targets: .*no_such_layer") as caught:
        add_policy(load_backbone(tiny_backbone)[0], Lora(targets=["no_such_layer"]), seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [None, REWARD, POLICY])
@pytest.mark.parametrize("fails", [False, True])
def test_after_a_switch_all_is_as_before(policy, reward: Path, tiny_backbone: Path, name: str | None, fails: bool) -> None:
    add_reward(policy, reward, backbone_sha256(tiny_backbone))
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


def test_gradients_of_the_policy_survive_a_switch_before_the_backward_pass(policy, reward: Path, tiny_backbone: Path) -> None:
    add_reward(policy, reward, backbone_sha256(tiny_backbone))
    loss = moved(policy)(TOKENS).logits.logsumexp(-1).sum()
    with active(policy, REWARD), torch.no_grad():
        policy(TOKENS)
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


@pytest.fixture
def broken(reward: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the reward model's folder with changed tensors or description."""

    def make(change: Callable[[dict], None], of: str = WEIGHTS) -> Path:
        folder = tmp_path / "broken"
        shutil.copytree(reward, folder)
        content = load_file(folder / WEIGHTS) if of == WEIGHTS else json.loads((folder / of).read_text())
        change(content)
        if of == WEIGHTS:
            save_file(content, folder / WEIGHTS)
        else:
            (folder / of).write_text(json.dumps(content))
        return folder

    return make


def refused(policy: PeftModel, folder: Path, backbone: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        add_reward(policy, folder, backbone_sha256(backbone))
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_a_reward_model_of_another_backbone_is_refused(policy, broken, tiny_backbone: Path) -> None:
    folder = broken(lambda about: about.update(backbone_sha256="0" * 64), of="adapter.json")
    refused(policy, folder, tiny_backbone, "another backbone")


def test_an_adapter_without_a_head_is_refused(policy, broken, tiny_backbone: Path) -> None:
    refused(policy, broken(lambda t: t.pop("base_model.model.score.weight")), tiny_backbone, "no score head")


NAME = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"


def test_a_missing_tensor_is_refused(policy, broken, tiny_backbone: Path) -> None:
    refused(policy, broken(lambda t: t.pop(NAME)), tiny_backbone, f"{NAME}: found none")


def test_a_tensor_without_a_place_is_refused(policy, broken, tiny_backbone: Path) -> None:
    folder = broken(lambda t: t.update({NAME.replace("layers.1", "layers.7"): torch.zeros(32, 4)}))
    refused(policy, folder, tiny_backbone, r"layers\.7.*place for none")


def test_a_tensor_of_another_shape_is_refused(policy, broken, tiny_backbone: Path) -> None:
    refused(
        policy, broken(lambda t: t.update({NAME: torch.zeros(31, 4)})), tiny_backbone, r"found \[31, 4\].*place for \[32, 4\]"
    )


def test_weights_that_are_no_finite_numbers_are_refused(policy, broken, tiny_backbone: Path) -> None:
    folder = broken(lambda t: t.update({NAME: torch.full((32, 4), float("nan"))}))
    refused(policy, folder, tiny_backbone, f"{NAME} has values that are no finite numbers")


@pytest.mark.parametrize("text", ["[]", "{}", '{"r": 0, "lora_alpha": 1, "target_modules": ["q_proj"]}', '{"r": "a"}'])
def test_a_configuration_that_is_none_is_refused(policy, reward: Path, tiny_backbone: Path, tmp_path: Path, text: str) -> None:
    shutil.copytree(reward, tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text(text)
    refused(policy, tmp_path / "adapter", tiny_backbone, "is no LoRA adapter's for this backbone")


def test_a_folder_that_nothing_describes_is_refused(policy, tiny_backbone: Path, tmp_path: Path) -> None:
    refused(policy, tmp_path, tiny_backbone, "cannot be read as JSON")


def test_a_pickled_adapter_is_refused_and_never_opened(policy, reward: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "opened",))

    folder = tmp_path / "pickled"
    shutil.copytree(reward, folder)
    (folder / WEIGHTS).unlink()
    torch.save({"weight": Trap()}, folder / "adapter_model.bin")
    refused(policy, folder, tiny_backbone, "pickled adapters are not accepted")
    torch.save({"weight": Trap()}, folder / WEIGHTS)
    refused(policy, folder, tiny_backbone, "pickled adapters are not accepted")
    assert not (tmp_path / "opened").exists()


def test_a_cut_file_is_refused(reward: Path, tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes((reward / WEIGHTS).read_bytes()[:-10])
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        read_tensors(tmp_path)
