"""Checkpoints that a gold model chooses: what it scores best is kept, whatever rewarded the policy, within a KL budget."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.train.learning import make_trainer, policy_state, task

from rlphf.lm.backbone import backbone_sha256, load_backbone
from rlphf.lm.rewards import RewardModels
from rlphf.settings import PPO, Lora
from rlphf.tracking.record import read_metrics, step
from rlphf.train.ppo import PPOTrainer

HELD = ["Bees?", "Tell me about rain.", "Explain rivers to me, please."]

SETTINGS = PPO(
    lora=Lora(rank=4, alpha=8, dropout=0.0, targets=["q_proj", "v_proj", "o_proj", "down_proj"]),
    updates=6,
    batch_size=16,
    mini_batch_size=8,
    inner_epochs=2,
    learning_rate=0.02,
    max_new_tokens=4,
    checkpoint_every=1,
    kl_coefficient=0.02,
    keep="best",
    keep_by="gold",
    early_stop_kl=None,
)


@pytest.fixture
def make(tiny_backbone: Path, make_reward: Callable[..., Path]) -> Callable[..., PPOTrainer]:
    """Make a trainer whose reward and gold model are opposites: one likes answers that end, the other's head is its negative."""
    _, tokenizer = load_backbone(tiny_backbone)
    reward = make_reward(scale=0.0, likes=tokenizer.eos_token_id)

    def made(gold: bool = True, **settings) -> PPOTrainer:
        chosen = SETTINGS.model_copy(update=settings)
        own = task(tokenizer, ["Tell me about honey.", "What is a volcano?", "Why do cats sleep?"], held=HELD)
        trainer = make_trainer(tiny_backbone, [reward], chosen, [own])
        if gold:
            trainer.selector = RewardModels(trainer.model, [reward], backbone_sha256(tiny_backbone))
            trainer.selector.heads = -trainer.selector.heads
        return trainer

    return made


def finish(trainer: PPOTrainer, folder: Path) -> list[dict]:
    with step("ppo", folder) as run:
        trainer.train([run], folder / "checkpoints")
    return [line for line in read_metrics(folder / "metrics.jsonl") if "selection_score" in line["metrics"]]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items())


def test_where_reward_and_gold_disagree_the_gold_model_chooses(make, tmp_path: Path) -> None:
    by_reward, by_gold = make(gold=False), make()
    rewarded, golden = finish(by_reward, tmp_path / "reward"), finish(by_gold, tmp_path / "gold")
    # Both runs are one training: the gold model's score of each checkpoint is the reward model's, turned round.
    scores = [line["metrics"]["selection_score"] for line in rewarded]
    assert [line["metrics"]["selection_score"] for line in golden] == pytest.approx([-score for score in scores], abs=1e-5)
    assert by_reward.learners[0].best.score == max(scores) and by_gold.learners[0].best.score == pytest.approx(
        -min(scores), abs=1e-5
    )
    assert max(scores) > min(scores) and not same(policy_state(by_reward), policy_state(by_gold))


def test_a_policy_beyond_the_budget_is_passed_over_even_if_it_scores_best(make, tmp_path: Path, monkeypatch) -> None:
    free = finish(make(gold=False), tmp_path / "free")
    trainer, found = make(gold=False, max_kl=4.0), [0.0]
    # The start is the one policy within the budget.
    monkeypatch.setattr(
        trainer, "log_ratios", lambda prompts, responses: torch.full((len(responses[0]),), found.pop() if found else 5.0)
    )
    lines = finish(trainer, tmp_path / "budget")
    assert {line["metrics"]["selection_kl"] for line in lines} == {5.0}
    assert all(not value.any() for name, value in policy_state(trainer).items() if "lora_B" in name)
    assert max(line["metrics"]["selection_score"] for line in free) > trainer.learners[0].best.score


def test_log_ratios_are_zero_at_the_start_and_grows_with_the_adapter(make) -> None:
    trainer = make()
    prompts, responses = {0: trainer.learners[0].task.selection[0]}, {0: [[40, 41, 1], [50, 51], [60, 1]]}
    assert trainer.log_ratios(prompts, responses).tolist() == pytest.approx([0.0] * 3, abs=1e-6)
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in trainer.learners[0].trained.items():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    assert trainer.log_ratios(prompts, responses).abs().mean() > 1e-2


def test_a_selection_is_measured_in_parts_of_a_batch_as_if_at_once(make, tmp_path: Path, monkeypatch) -> None:
    trainer = make(max_kl=100.0)
    sizes, at_once = [], trainer.log_ratios
    monkeypatch.setattr(trainer, "log_ratios", lambda asked, given: sizes.append(len(given[0])) or at_once(asked, given))
    metrics = []
    for size in (1, 2, len(trainer.learners[0].task.selection[0])):
        trainer.settings = trainer.settings.model_copy(update={"batch_size": size, "mini_batch_size": 1})
        with step(f"selection-{size}", tmp_path / str(size)) as run:
            trainer.consider([0], [run], 1)
        metrics.append(read_metrics(tmp_path / str(size) / "metrics.jsonl")[-1]["metrics"])
    assert set(sizes[:-1]) == {1, 2} and sizes[-1] == len(trainer.learners[0].task.selection[0]) > 2
    assert metrics[0] == pytest.approx(metrics[2], abs=1e-5) and metrics[1] == pytest.approx(metrics[2], abs=1e-5)


def test_the_gold_model_is_never_trained(make, tmp_path: Path) -> None:
    trainer = make()
    before = {name: value.clone() for name, value in trainer.selector.stack.parameters(0).items()}
    heads = trainer.selector.heads.clone()
    finish(trainer, tmp_path)
    assert same(before, trainer.selector.stack.parameters(0)) and torch.equal(heads, trainer.selector.heads)
