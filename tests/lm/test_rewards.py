"""Reward models on a backbone beside policies: the scores of plain PEFT, several at once, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlphf.errors import InputError
from rlphf.lm.adapters import active, add_policy
from rlphf.lm.backbone import backbone_sha256, load_backbone
from rlphf.lm.reward_model import load_reward_model
from rlphf.lm.reward_model import score as plain_score
from rlphf.lm.rewards import RewardModels
from rlphf.settings import Lora

WEIGHTS = "adapter_model.safetensors"
NAME = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"
PROMPTS = [[2, 40, 41], [2, 50, 51, 52, 3], [2, 60, 61]]
RESPONSES = [[70, 1], [80, 81, 82, 1], [90]]


@pytest.fixture(scope="module")
def rewards(make_reward: Callable[..., Path]) -> list[Path]:
    return [make_reward(seed=seed) for seed in (0, 8)]


@pytest.mark.parametrize("wrapped", [False, True])
def test_each_response_gets_the_score_of_its_own_model_in_plain_peft(tiny_backbone: Path, rewards, wrapped: bool) -> None:
    base, tokenizer = load_backbone(tiny_backbone)
    # PEFT may hold the layers already, as it does for RLOO; its policy is off while responses are scored.
    policy = add_policy(base, Lora(rank=2), seed=1) if wrapped else None
    models = RewardModels(base, rewards, backbone_sha256(tiny_backbone))
    which = [1, 0, 1]
    if policy is None:
        found = models.score([[p] for p in PROMPTS], RESPONSES, which, tokenizer.pad_token_id)
    else:
        with active(policy, None):
            found = models.score([[p] for p in PROMPTS], RESPONSES, which, tokenizer.pad_token_id)
    for i, number in enumerate(which):
        model, _ = load_reward_model(tiny_backbone, rewards[number])
        (wanted,) = plain_score(model, [PROMPTS[i] + RESPONSES[i]], tokenizer.pad_token_id)
        assert float(found[i]) == pytest.approx(wanted, abs=1e-4)


def test_a_score_is_the_mean_over_the_prompts_of_a_response(tiny_backbone: Path, rewards) -> None:
    base, tokenizer = load_backbone(tiny_backbone)
    models = RewardModels(base, rewards, backbone_sha256(tiny_backbone))
    together = models.score([PROMPTS, PROMPTS[:1]], RESPONSES[:2], [0, 1], tokenizer.pad_token_id)
    each = [float(models.score([[p]], RESPONSES[:1], [0], tokenizer.pad_token_id)) for p in PROMPTS]
    assert float(together[0]) == pytest.approx(sum(each) / 3, abs=1e-5)


def test_scoring_leaves_the_backbone_as_it_was(tiny_backbone: Path, rewards) -> None:
    base, tokenizer = load_backbone(tiny_backbone)
    tokens = torch.tensor([PROMPTS[1]])
    with torch.no_grad():
        before = base(tokens).logits
        models = RewardModels(base, rewards, backbone_sha256(tiny_backbone))
        models.score([[p] for p in PROMPTS], RESPONSES, [0, 1, 0], tokenizer.pad_token_id)
        assert torch.equal(base(tokens).logits, before)
    assert not any(parameter.requires_grad for i in range(2) for parameter in models.stack.parameters(i).values())


@pytest.fixture
def broken(rewards: list[Path], tmp_path: Path) -> Callable[..., Path]:
    """A copy of the reward model's folder with changed tensors or description."""

    def make(change: Callable[[dict], None], of: str = WEIGHTS) -> Path:
        folder = tmp_path / "broken"
        shutil.copytree(rewards[0], folder)
        content = load_file(folder / WEIGHTS) if of == WEIGHTS else json.loads((folder / of).read_text())
        change(content)
        if of == WEIGHTS:
            save_file(content, folder / WEIGHTS)
        else:
            (folder / of).write_text(json.dumps(content))
        return folder

    return make


def refused(folder: Path, backbone: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        RewardModels(load_backbone(backbone)[0], [folder], backbone_sha256(backbone))
    assert "\n" not in str(caught.value)


def test_a_reward_model_of_another_backbone_is_refused(broken, tiny_backbone: Path) -> None:
    folder = broken(lambda about: about.update(backbone_sha256="0" * 64), of="adapter.json")
    refused(folder, tiny_backbone, "another backbone")


def test_an_adapter_without_a_head_is_refused(broken, tiny_backbone: Path) -> None:
    refused(broken(lambda t: t.pop("base_model.model.score.weight")), tiny_backbone, "no score head")


@pytest.mark.parametrize("shape", [(2, 32), (1, 16), (32,)])
def test_a_head_of_another_shape_is_refused(broken, tiny_backbone: Path, shape: tuple[int, ...]) -> None:
    folder = broken(lambda t: t.update({"base_model.model.score.weight": torch.zeros(shape)}))
    refused(folder, tiny_backbone, r"broken: its score head is .*, the backbone's states need \[1, 32\]; train it again")


def test_a_configuration_without_targets_needs_no_layer(broken, tiny_backbone: Path) -> None:
    folder = broken(lambda config: config.pop("target_modules"), of="adapter_config.json")
    RewardModels(load_backbone(tiny_backbone)[0], [folder], backbone_sha256(tiny_backbone))


def test_a_missing_tensor_is_refused(broken, tiny_backbone: Path) -> None:
    refused(broken(lambda t: t.pop(NAME)), tiny_backbone, "v_proj has no lora_B")


def test_a_tensor_without_a_place_is_refused(broken, tiny_backbone: Path) -> None:
    folder = broken(lambda t: t.update({NAME.replace("layers.1", "layers.7"): torch.zeros(32, 4)}))
    refused(folder, tiny_backbone, r"layers\.7")


def test_a_tensor_of_another_shape_is_refused(broken, tiny_backbone: Path) -> None:
    refused(broken(lambda t: t.update({NAME: torch.zeros(31, 4)})), tiny_backbone, "has 32 to 31, the backbone has 32 to 32")


def test_a_layer_without_factors_is_refused(broken, tiny_backbone: Path) -> None:
    def change(tensors: dict) -> None:
        for name in (NAME, NAME.replace("lora_B", "lora_A")):
            tensors.pop(name)

    refused(broken(change), tiny_backbone, r"layers\.1\.self_attn\.v_proj has no factors")


def test_weights_that_are_no_finite_numbers_are_refused(broken, tiny_backbone: Path) -> None:
    folder = broken(lambda t: t.update({NAME: torch.full((32, 4), float("nan"))}))
    refused(folder, tiny_backbone, f"{NAME} has values that are no finite numbers")


@pytest.mark.parametrize("text", ["[]", "{}", '{"r": 0, "lora_alpha": 1, "target_modules": ["q_proj"]}', '{"r": "a"}'])
def test_a_configuration_that_is_none_is_refused(rewards, tiny_backbone: Path, tmp_path: Path, text: str) -> None:
    shutil.copytree(rewards[0], tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text(text)
    refused(tmp_path / "adapter", tiny_backbone, "is no configuration of a PEFT LoRA adapter")


def test_a_folder_that_nothing_describes_is_refused(tiny_backbone: Path, tmp_path: Path) -> None:
    refused(tmp_path, tiny_backbone, "cannot be read as JSON")


def test_a_pickled_adapter_is_refused_and_never_opened(rewards, tiny_backbone: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "opened",))

    folder = tmp_path / "pickled"
    shutil.copytree(rewards[0], folder)
    (folder / WEIGHTS).unlink()
    torch.save({"weight": Trap()}, folder / "adapter_model.bin")
    refused(folder, tiny_backbone, "pickled")
    torch.save({"weight": Trap()}, folder / WEIGHTS)
    refused(folder, tiny_backbone, "pickled")
    assert not (tmp_path / "opened").exists()


def test_a_cut_file_is_refused(rewards, tiny_backbone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    shutil.copytree(rewards[0], folder)
    (folder / WEIGHTS).write_bytes((rewards[0] / WEIGHTS).read_bytes()[:-10])
    refused(folder, tiny_backbone, "cannot be read as safetensors")
