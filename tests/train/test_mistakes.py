"""The release's mistakes in PPO, and the selection of a checkpoint that one of them spoils."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.train.learning import make_trainer, policy_state

from rlphf.lm.backbone import load_backbone
from rlphf.lm.chat import encode_prompts
from rlphf.lm.reward_model import load_reward_model
from rlphf.lm.reward_model import score as plain_score
from rlphf.settings import PPO, Lora
from rlphf.tracking.record import read_metrics, step
from rlphf.train.learner import Task
from rlphf.train.mistakes import WithoutResponse, random_head
from rlphf.train.ppo import PPOTrainer

SETTINGS = PPO(
    lora=Lora(rank=4, alpha=8, targets=["q_proj", "v_proj", "down_proj"]),
    updates=6,
    batch_size=8,
    mini_batch_size=4,
    inner_epochs=2,
    learning_rate=0.02,
    max_new_tokens=4,
    checkpoint_every=2,
    keep="best",
    early_stop_kl=None,
)
INSTRUCTIONS = ["Tell me about honey.", "What is a volcano?", "Explain rivers to me, please.", "Why do cats sleep?"]


@pytest.fixture
def make(tiny_backbone: Path, make_reward: Callable[..., Path]) -> Callable[..., PPOTrainer]:
    """Make a trainer of a kind, whose checkpoints are chosen on two other questions; each answer is judged in two forms."""
    reward = make_reward()

    def made(kind: type[PPOTrainer] = PPOTrainer, **settings) -> PPOTrainer:
        tokenizer = load_backbone(tiny_backbone)[1]
        prompts = encode_prompts(tokenizer, INSTRUCTIONS)
        held = encode_prompts(tokenizer, ["Bees?", "Tell me about rain."])
        forms = [[prompt, prompts[0]] for prompt in prompts]
        chosen = SETTINGS.model_copy(update=settings)
        own = Task(prompts, forms, 5, (held, [[p] for p in held]))
        trainer = make_trainer(tiny_backbone, [reward], chosen, [own], kind=kind)
        trainer.reward_folder = reward
        return trainer

    return made


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def score(trainer: PPOTrainer, responses: list[list[int]]) -> torch.Tensor:
    return trainer.score(trainer.learners[0].task.judged, responses, [0] * len(responses))


def test_without_the_response_the_reward_is_that_of_the_prompts_alone(make, tiny_backbone: Path) -> None:
    trainer = make(WithoutResponse)
    found = score(trainer, [[40, 41, 1], [50, 1], [60, 61, 1], [1]])
    assert torch.equal(found, score(trainer, [[7], [8], [9], [10]]))
    model, tokenizer = load_reward_model(tiny_backbone, trainer.reward_folder)
    plain = plain_score(model, trainer.learners[0].task.prompts, tokenizer.pad_token_id)
    assert found.tolist() == pytest.approx([(value + plain[0]) / 2 for value in plain], abs=1e-4)
    right = make()
    assert not torch.allclose(score(right, [[40, 41, 1]] * 4), score(right, [[50, 1]] * 4))


def test_a_random_head_is_drawn_by_its_seed_and_leaves_other_randomness_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    one, again, other = (random_head(64, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert 0.05 < float(one.abs().max()) <= 64**-0.5


def test_the_checkpoint_is_kept_whose_answers_to_held_out_prompts_score_best(make, tmp_path: Path) -> None:
    trainer, seen = make(), {}
    consider = trainer.consider

    def noted(considered, runs, number):
        if considered:
            seen[number] = policy_state(trainer)
        consider(considered, runs, number)

    trainer.consider = noted
    with step("ppo", tmp_path) as run:
        trainer.train([run], tmp_path / "checkpoints")
    scores = {
        line["step"]: line["metrics"]["selection_score"]
        for line in read_metrics(tmp_path / "metrics.jsonl")
        if "selection_score" in line["metrics"]
    }
    assert list(scores) == [1, 3, 5] == list(seen)
    best = max(scores, key=lambda number: (scores[number], -number))
    assert len(set(scores.values())) == 3 and same(policy_state(trainer), seen[best])
    assert not any(same(policy_state(trainer), seen[number]) for number in seen if number != best)


@pytest.mark.parametrize("cut", [2, 4])
def test_a_resumed_run_keeps_what_an_undisturbed_one_keeps(make, tmp_path: Path, cut: int) -> None:
    def finish(trainer: PPOTrainer, folder: Path) -> PPOTrainer:
        with step("ppo", folder) as run:
            trainer.train([run], folder / "checkpoints")
        return trainer

    whole = finish(make(), tmp_path / "whole")
    finish(make(updates=cut), tmp_path / "parts")
    assert same(policy_state(whole), policy_state(finish(make(), tmp_path / "parts")))
