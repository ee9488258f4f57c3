"""Experiments of the papers' sizes, on random models of their architectures: adapters attach, and PPO and P-DPO take steps."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import GPTJConfig, GPTJForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from rlphf.config import Experiment, load_layers
from rlphf.files import read_json
from rlphf.lm.adapters import add_policy, new_policy
from rlphf.lm.backbone import load_backbone
from rlphf.lm.rewards import RewardModels
from rlphf.lm.stack import Stack
from rlphf.train.dpo import DPOTrainer
from rlphf.train.learner import Task
from rlphf.train.ppo import PPOTrainer
from rlphf.train.users import Pair
from rlphf.users.methods import settings_of
from rlphf.users.model import new_user_model

CONFIG = Path(__file__).parent.parent.parent / "config"
PROMPTS = [[5, 6, 7, 8], [9, 10, 11]]


def experiment(name: str) -> Experiment:
    return load_layers([CONFIG / "config.yaml", CONFIG / "experiments" / f"{name}.yaml"])


def random_model(name: str, vocabulary: int) -> PreTrainedModel:
    """A tiny model of the architecture of an experiment's backbone; Llama 3's has fewer keys than queries."""
    torch.manual_seed(0)
    ends = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0, "vocab_size": vocabulary}
    if name == "prlhf-tldr":
        return GPTJForCausalLM(GPTJConfig(n_positions=128, n_embd=32, n_layer=2, n_head=4, rotary_dim=4, **ends))
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    keys = 2 if name == "prlhf-prism" else 4
    return LlamaForCausalLM(LlamaConfig(num_key_value_heads=keys, max_position_embeddings=128, **sizes, **ends))


def moved(before: dict[str, torch.Tensor], model: torch.nn.Module) -> set[str]:
    """Names of the layers that a step has moved."""
    return {
        name.split(".lora_")[0].rpartition(".")[2] for name, p in model.named_parameters() if not torch.equal(p, before[name])
    }


def frozen(model: PreTrainedModel) -> PreTrainedModel:
    return model.requires_grad_(False).eval()


def test_a_policy_of_personalized_soups_takes_a_ppo_step(tiny_backbone: Path, make_reward: Callable[..., Path]) -> None:
    chosen, tokenizer = experiment("psoups-7b"), load_backbone(tiny_backbone)[1]
    smaller = {"batch_size": 2, "mini_batch_size": 2, "inner_epochs": 2, "max_new_tokens": 6, "min_new_tokens": 2}
    settings = chosen.ppo.model_copy(update=smaller | {"early_stop_kl": None})
    base, fresh = frozen(random_model("psoups-7b", len(tokenizer))), make_reward()
    policy = new_policy(base, settings.lora, seed=1)
    scaling = settings.lora.alpha / settings.lora.rank
    policies = Stack(base, [policy.factors], [scaling], trained=True)
    rewards = RewardModels(base, [fresh], read_json(fresh / "adapter.json")["backbone_sha256"])
    trainer = PPOTrainer(base, tokenizer, policies, rewards, [Task(PROMPTS, [[prompt] for prompt in PROMPTS], 0)], settings)
    before = {name: p.detach().clone() for name, p in policies.parameters(0).items()}
    metrics, _ = trainer.update(0, [0])[0]
    assert metrics["optimizer_steps"] == 2 and metrics["grad_norm"] > 0
    after = policies.parameters(0)
    found = {name.rpartition(".lora_")[0].rpartition(".")[2] for name, p in after.items() if not p.equal(before[name])}
    assert found == set(settings.lora.targets)


@pytest.mark.parametrize("name", ["prlhf-tldr", "prlhf-psoups", "prlhf-prism"])
def test_a_policy_and_a_user_model_of_p_rlhf_take_a_step(name: str, tiny_backbone: Path) -> None:
    chosen, tokenizer = experiment(name), load_backbone(tiny_backbone)[1]
    settings = chosen.dpo.model_copy(update={"batch_size": 2, "epochs": 1, "warmup_steps": 0})
    base = frozen(random_model(name, len(tokenizer)))
    users = new_user_model(settings_of(chosen.users, "individual"), [1, 2], base.get_input_embeddings().weight, seed=0)
    model = add_policy(base, settings.lora, seed=1)
    pairs = [Pair(prompt, prompt, [20, 21, 1], [22, 1], user) for prompt, user in zip(PROMPTS, (1, 2), strict=True)]
    trainer = DPOTrainer(model, tokenizer, users, pairs, settings, seed=0)
    trainer.reference = trainer.reference_worth(pairs)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    metrics = trainer.update(0)
    assert metrics["loss"] > 0 and metrics["grad_norm"] > 0
    assert moved(before, model) == set(settings.lora.targets)
