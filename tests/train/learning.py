"""Trainers of policies on the tiny backbone."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from rlphf.lm.adapters import new_policy
from rlphf.lm.backbone import backbone_sha256, load_backbone
from rlphf.lm.chat import encode_prompts
from rlphf.lm.rewards import RewardModels
from rlphf.lm.stack import Stack
from rlphf.settings import PPO
from rlphf.train.learner import Rollout, Task
from rlphf.train.ppo import PPOTrainer

INSTRUCTIONS = ["Tell me about honey.", "What is a volcano?", "Explain rivers to me, please.", "Why do cats sleep?", "Bees?"]


def task(tokenizer, instructions: Sequence[str] = INSTRUCTIONS, seed: int = 5, held: Sequence[str] = ()) -> Task:
    """A task to answer instructions, each judged as it is."""
    prompts, others = (encode_prompts(tokenizer, texts) if texts else [] for texts in (instructions, held))
    return Task(prompts, [[prompt] for prompt in prompts], seed, (others, [[prompt] for prompt in others]))


def make_trainer(
    backbone: Path,
    rewards: Sequence[Path],
    settings: PPO,
    tasks: Sequence[Task] | None = None,
    dtype: torch.dtype = torch.float32,
    kind: type[PPOTrainer] = PPOTrainer,
) -> PPOTrainer:
    """A trainer of fresh policies that start alike, one per reward model; by default all have one task."""
    base, tokenizer = load_backbone(backbone, dtype)
    models = RewardModels(base, rewards, backbone_sha256(backbone))
    fresh = new_policy(base, settings.lora, seed=3)
    scalings = [settings.lora.alpha / settings.lora.rank] * len(rewards)
    policies = Stack(base, [fresh.factors] * len(rewards), scalings, trained=True)
    return kind(base, tokenizer, policies, models, tasks or [task(tokenizer)] * len(rewards), settings)


def evaluate(trainer: PPOTrainer, prompts=None, responses=None, judged=None) -> Rollout:
    """The rollout of a trainer's one policy: by default of its own prompts."""
    own = trainer.learners[0].task
    asked = {0: own.prompts if prompts is None else prompts}
    return trainer.evaluate(asked, {0: responses}, {0: own.judged if judged is None else judged})[0]


def losses(trainer: PPOTrainer, rollout: Rollout, index: Tensor) -> dict[str, Tensor]:
    """The parts of the loss of a trainer's one policy on rows of its rollout."""
    return trainer.losses({0: rollout}, {0: index}, {0: rollout.batch.mask[index].sum()})[0]


def policy_state(trainer: PPOTrainer, number: int = 0) -> dict[str, Tensor]:
    """A copy of a policy's factors."""
    return {name: value.detach().clone() for name, value in trainer.learners[number].policy.items()}
