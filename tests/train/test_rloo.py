"""RLOO through TRL, on a tiny backbone."""

from pathlib import Path

import pytest
import torch
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file

from rlphf.config import PPO, Lora
from rlphf.errors import InputError
from rlphf.lm.adapters import POLICY, add_policy, initial_a_digest, write_policy
from rlphf.lm.backbone import load_backbone
from rlphf.tracking.record import read_metrics, step
from rlphf.train.rloo import GROUP, Scorer, train_rloo

SETTINGS = PPO(
    algorithm="rloo",
    lora=Lora(rank=4, alpha=8, dropout=0.0, targets=["q_proj", "v_proj", "o_proj", "down_proj"]),
    updates=8,
    batch_size=32,
    mini_batch_size=16,
    inner_epochs=2,
    learning_rate=0.02,
    max_new_tokens=6,
    kl_coefficient=0.02,
    checkpoint_every=4,
    sample_every=4,
)
INSTRUCTIONS = ["Tell me about honey.", "What is a volcano?", "Explain rivers to me.", "Why do cats sleep?", "Describe bees."]
A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def trained(backbone: Path, reward: Path, folder: Path, settings: PPO = SETTINGS, stop: bool = False):
    """Train under a record in `folder`; return the policy's tensors before and after, the outer steps and the model."""
    base, tokenizer = load_backbone(backbone)
    model = add_policy(base, settings.lora, seed=3)
    before = {name: value.clone() for name, value in get_peft_model_state_dict(model, adapter_name=POLICY).items()}
    with step("ppo", folder) as run:
        updates = train_rloo(model, tokenizer, backbone, reward, INSTRUCTIONS, settings, 5, run, folder / "checkpoints")
    after = {name: value.clone() for name, value in get_peft_model_state_dict(model, adapter_name=POLICY).items()}
    return before, after, updates, model


@pytest.fixture(scope="module")
def reward(make_reward) -> Path:
    return make_reward(scale=0.0, likes=7)


@pytest.fixture(scope="module")
def undisturbed(tiny_backbone: Path, reward: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("rloo")
    return folder, *trained(tiny_backbone, reward, folder)


def test_x(undisturbed):
    folder, before, after, updates, model = undisturbed
    for m in read_metrics(folder / "metrics.jsonl"):
        print(m)
    print((folder/"samples.jsonl").read_text()[:1000])
    import subprocess
    print(subprocess.run(["find", str(folder)], capture_output=True,text=True).stdout)
    assert 0
