"""PPO on a tiny random backbone: what it computes of given responses, and that it learns."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft.utils import get_peft_model_state_dict

from rlphf.lm.adapters import POLICY, REWARD, active, add_policy, add_reward
from rlphf.lm.backbone import backbone_sha256, load_backbone
from rlphf.lm.chat import encode_prompts
from rlphf.settings import PPO, Lora
from rlphf.tracking.record import read_metrics, step
from rlphf.train import ppo
from rlphf.train.ppo import PPOTrainer
from rlphf.train.reward import load_reward_model, score

SETTINGS = PPO(
    lora=Lora(rank=4, alpha=8, dropout=0.5, targets=["q_proj", "v_proj", "o_proj", "down_proj"]),
    updates=12,
    batch_size=32,
    mini_batch_size=16,
    inner_epochs=4,
    learning_rate=0.02,
    max_new_tokens=6,
    kl_coefficient=0.02,
    early_stop_kl=None,
)
SHORT = {"updates": 6, "batch_size": 8, "mini_batch_size": 4, "inner_epochs": 2, "max_new_tokens": 4, "checkpoint_every": 3}
INSTRUCTIONS = ["Tell me about honey.", "What is a volcano?", "Explain rivers to me, please.", "Why do cats sleep?", "Bees?"]
# Ragged responses of token ids; the end token is 1, and the second and the last do not end.
RESPONSES = [[40, 41, 1], [50, 51, 52, 53, 54, 55], [1], [60, 61, 62, 63, 1], [70, 0, 71]]


@pytest.fixture
def make(tiny_backbone: Path, make_reward: Callable[..., Path]) -> Callable[..., PPOTrainer]:
    """Make a trainer: of a fresh policy, or with random B and value head if `moved`."""
    reward = make_reward()

    def made(moved: bool = False, reward: Path = reward, dtype: torch.dtype = torch.float32, **settings) -> PPOTrainer:
        chosen = PPO(**(SETTINGS.model_dump() | settings))
        base, tokenizer = load_backbone(tiny_backbone, dtype)
        model = add_policy(base, chosen.lora, seed=3)
        head = add_reward(model, reward, backbone_sha256(tiny_backbone))
        prompts = encode_prompts(tokenizer, INSTRUCTIONS)
        trainer = PPOTrainer(model, tokenizer, head, prompts, [[prompt] for prompt in prompts], chosen, seed=5)
        if moved:
            torch.manual_seed(11)
            with torch.no_grad():
                for name, parameter in trainer.trained.items():
                    if "lora_A" not in name:
                        parameter.normal_(std=0.3)
        return trainer

    return made


def policy_state(trainer: PPOTrainer) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in get_peft_model_state_dict(trainer.model, adapter_name=POLICY).items()}


def plain_logprobs(trainer: PPOTrainer, prompt: list[int], response: list[int], temperature: float = 1.0) -> torch.Tensor:
    """Log-probabilities of a response's tokens by one forward pass of the whole model, alone in its batch."""
    logits = trainer.model(input_ids=torch.tensor([prompt + response], device=trainer.device)).logits[0]
    shares = torch.log_softmax(logits.float() / temperature, -1)
    start = len(prompt) - 1
    return torch.stack([shares[start + t, token] for t, token in enumerate(response)])


# What is computed of a batch of responses.


def test_at_the_start_ratio_is_1_and_kl_is_0(make) -> None:
    trainer = make()
    rollout = trainer.evaluate(trainer.prompts, RESPONSES, trainer.judged)
    assert torch.equal(rollout.logprobs, rollout.reference)
    parts = trainer.losses(rollout, torch.arange(5))
    assert float(parts["policy_kl"].detach()) == 0.0 and float(parts["clip_fraction"]) == 0.0
    # With every ratio at 1, the loss is the mean advantage, which whitening makes 0.
    assert float(parts["policy_loss"].detach()) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_of_the_whole_model(make, temperature: float) -> None:
    trainer = make(moved=True, temperature=temperature)
    rollout = trainer.evaluate(trainer.prompts, RESPONSES, trainer.judged)
    with torch.no_grad():
        for i, response in enumerate(RESPONSES):
            wanted = plain_logprobs(trainer, trainer.prompts[i], response, temperature)
            assert torch.allclose(rollout.logprobs[i, : len(response)], wanted, atol=1e-4)


def test_the_reference_ignores_the_policy(make) -> None:
    fresh, moved = make(), make(moved=True)
    rollout = moved.evaluate(moved.prompts, RESPONSES, moved.judged)
    mask = rollout.batch.mask.bool()
    assert torch.equal(rollout.reference, fresh.evaluate(fresh.prompts, RESPONSES, fresh.judged).reference)
    assert (rollout.logprobs - rollout.reference)[mask].abs().min() > 1e-4
    with torch.no_grad(), active(moved.model, None):
        assert torch.allclose(rollout.reference[1, :6], plain_logprobs(moved, moved.prompts[1], RESPONSES[1]), atol=1e-4)


def test_padding_changes_nothing(make) -> None:
    trainer = make(moved=True, score_scaling=False, whiten_advantages=False)
    together = trainer.evaluate(trainer.prompts, RESPONSES, trainer.judged)
    for i, response in enumerate(RESPONSES):
        alone = trainer.evaluate([trainer.prompts[i]], [response], [trainer.judged[i]])
        for name in ("logprobs", "reference", "values", "advantages", "returns"):
            assert torch.allclose(getattr(together, name)[i, : len(response)], getattr(alone, name)[0], atol=1e-4), name
        assert torch.allclose(together.scores[i], alone.scores[0], atol=1e-4)
        assert bool(together.finished[i]) == bool(alone.finished[0]) == (response[-1] == 1)


def test_a_mini_batch_sees_the_numbers_of_its_own_rows(make) -> None:
    trainer = make(moved=True)
    rollout = trainer.evaluate(trainer.prompts, RESPONSES, trainer.judged)
    parts = trainer.losses(rollout, torch.tensor([4, 2]))
    # Row 2 has one token and row 4 three; the policy has not moved since, so each ratio is 1.
    advantages = torch.cat([rollout.advantages[2, :1], rollout.advantages[4, :3]])
    errors = torch.cat([(rollout.values - rollout.returns)[2, :1], (rollout.values - rollout.returns)[4, :3]])
    assert float(parts["policy_kl"].detach()) == pytest.approx(0.0, abs=1e-5)
    assert float(parts["policy_loss"].detach()) == pytest.approx(-float(advantages.mean()), abs=1e-4)
    assert float(parts["value_loss"].detach()) == pytest.approx(0.5 * float((errors**2).mean()), rel=1e-3)


def test_the_score_goes_to_the_last_token(make) -> None:
    # Without discounted future, penalty and value, the return of a token is its own reward.
    trainer = make(gamma=0.0, kl_coefficient=0.0, score_scaling=False)
    rollout = trainer.evaluate(trainer.prompts, RESPONSES, trainer.judged)
    for i, response in enumerate(RESPONSES):
        assert float(rollout.returns[i, len(response) - 1]) == pytest.approx(float(rollout.scores[i]), rel=1e-6)
        assert rollout.returns[i].count_nonzero() == 1


def test_scores_are_those_of_the_saved_reward_model_in_plain_peft(make, make_reward, tiny_backbone: Path) -> None:
    folder = make_reward(seed=8)
    trainer = make(moved=True, reward=folder)
    judged = trainer.prompts[::-1]
    rollout = trainer.evaluate(trainer.prompts, RESPONSES, [[prompt] for prompt in judged])
    model, tokenizer = load_reward_model(tiny_backbone, folder)
    # The last response ends within the length limit on a token that is neither padding nor the end.
    texts = [p + r for p, r in zip(judged, RESPONSES, strict=True)]
    assert rollout.scores.tolist() == pytest.approx(score(model, texts, tokenizer.pad_token_id), abs=1e-4)
    assert rollout.scores.std() > 0.1


def test_a_response_that_several_prompts_judge_gets_the_mean_of_their_scores(make, make_reward) -> None:
    trainer = make(moved=True, reward=make_reward(seed=8))
    groups = [trainer.prompts[:3], trainer.prompts[2:4], trainer.prompts[4:], trainer.prompts[:1], trainer.prompts[1:3]]
    found = trainer.evaluate(trainer.prompts, RESPONSES, groups).scores
    for i, group in enumerate(groups):
        each = [trainer.evaluate(trainer.prompts[:1], [RESPONSES[i]], [[prompt]]).scores[0] for prompt in group]
        assert float(found[i]) == pytest.approx(float(sum(each)) / len(each), abs=1e-5)


def test_a_response_without_an_end_gets_the_penalty_for_its_score(make) -> None:
    plain = make(score_scaling=False)
    plain = plain.evaluate(plain.prompts, RESPONSES, plain.judged)
    trainer = make(score_scaling=False, missing_eos_penalty=-7.0, gamma=0.0)
    rollout = trainer.evaluate(trainer.prompts, RESPONSES, trainer.judged)
    assert rollout.scores.tolist() == [-7.0 if r[-1] != 1 else float(plain.scores[i]) for i, r in enumerate(RESPONSES)]
    assert rollout.returns[1].sum() == -7.0


def test_scores_are_normalised_by_all_scores_so_far(make) -> None:
    trainer = make(gamma=0.0, kl_coefficient=0.0)
    first = trainer.evaluate(trainer.prompts, RESPONSES, trainer.judged).scores
    second = trainer.evaluate(trainer.prompts[:2], RESPONSES[:2], trainer.judged[:2])
    seen = torch.cat([first, second.scores])
    wanted = (second.scores - seen.mean()) / seen.std()
    assert second.returns.sum(1).tolist() == pytest.approx(wanted.tolist(), abs=1e-4)


# How it trains.


@pytest.fixture(scope="module")
def learned(tiny_backbone: Path, make_reward: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory):
    """Twelve updates against a reward model that likes responses which end: (tensors before, the trainer, metrics)."""
    folder = tmp_path_factory.mktemp("learned")
    base, tokenizer = load_backbone(tiny_backbone)
    model = add_policy(base, SETTINGS.lora, seed=3)
    head = add_reward(model, make_reward(scale=0.0, likes=tokenizer.eos_token_id), backbone_sha256(tiny_backbone))
    prompts = encode_prompts(tokenizer, INSTRUCTIONS)
    trainer = PPOTrainer(model, tokenizer, head, prompts, [[prompt] for prompt in prompts], SETTINGS, seed=5)
    before = {name: p.detach().clone() for name, p in model.named_parameters()} | {"head": head.weight.clone()}
    with step("ppo", folder) as run:
        assert trainer.train(run, folder / "checkpoints") == SETTINGS.updates
    return before, trainer, read_metrics(folder / "metrics.jsonl"), folder


def test_ppo_raises_an_easy_reward(learned) -> None:
    metrics = [line["metrics"] for line in learned[2]]
    assert metrics[0]["score"] < 0.5 and metrics[-1]["score"] > 3.0
    assert metrics[0]["finished"] < 0.2 and metrics[-1]["finished"] > 0.6
    assert metrics[0]["kl"] == 0.0 and metrics[-1]["kl"] > 1.0


def test_only_the_policy_and_the_value_head_are_trained(learned) -> None:
    before, trainer, _, _ = learned
    for name, parameter in trainer.model.named_parameters():
        assert torch.equal(before[name], parameter) != (f".{POLICY}." in name), name
    assert torch.equal(before["head"], trainer.reward_head.weight)
    assert trainer.value_head.weight.abs().sum() > 0
    assert {name for name in before if f".{REWARD}." in name}


def test_every_update_is_tracked_with_sample_responses(learned) -> None:
    _, trainer, metrics, folder = learned
    assert [line["step"] for line in metrics] == list(range(SETTINGS.updates))
    wanted = {"score", "kl", "kl_coefficient", "length", "finished", "explained_variance", "entropy", "clip_fraction"}
    assert all(wanted <= line["metrics"].keys() for line in metrics)
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert sorted({s["step"] for s in samples}) == [0, 10, 11]
    assert {s["prompt"] for s in samples} <= set(INSTRUCTIONS)
    assert any(s["response"] for s in samples)


def finish(trainer: PPOTrainer, folder: Path) -> list[dict]:
    with step("ppo", folder) as run:
        trainer.train(run, folder / "checkpoints")
    return [line["metrics"] for line in read_metrics(folder / "metrics.jsonl")]


def assert_equal(one: PPOTrainer, other: PPOTrainer) -> None:
    for name, value in policy_state(one).items():
        assert torch.equal(value, policy_state(other)[name]), name
    assert torch.equal(one.value_head.weight, other.value_head.weight)
    for a, b in zip(one.trained.values(), other.trained.values(), strict=True):
        assert all(torch.equal(one.optimizer.state[a][k], other.optimizer.state[b][k]) for k in ("step", "exp_avg", "exp_avg_sq"))
    assert one.moments == other.moments and one.kl == other.kl


def test_a_resumed_run_equals_an_undisturbed_one_to_the_bit(make, tmp_path: Path) -> None:
    whole = make(**SHORT)
    metrics = finish(whole, tmp_path / "whole")
    finish(make(**SHORT | {"updates": 3}), tmp_path / "parts")
    resumed = make(**SHORT)
    assert metrics[3:] == finish(resumed, tmp_path / "parts")[3:]
    assert_equal(whole, resumed)


def test_a_run_falls_back_from_a_damaged_checkpoint_and_ends_the_same(make, tmp_path: Path) -> None:
    whole = make(**SHORT)
    finish(whole, tmp_path)
    newest = tmp_path / "checkpoints" / "step-000006" / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    again = make(**SHORT)
    assert again.restore(tmp_path / "checkpoints") == 3
    finish(make(**SHORT), tmp_path)
    last = make(**SHORT)
    assert last.restore(tmp_path / "checkpoints") == 6
    assert_equal(whole, last)


def test_it_stops_when_the_policy_is_too_far_from_the_backbone_and_stays_stopped(make, tmp_path: Path) -> None:
    settings = SHORT | {"max_kl": 1e-6, "checkpoint_every": 1}
    trainer = make(**settings)
    with step("ppo", tmp_path) as run:
        assert trainer.train(run, tmp_path / "checkpoints") == 2
    again = make(**settings)
    with step("ppo", tmp_path) as run:
        assert again.train(run, tmp_path / "checkpoints") == 2
    assert_equal(trainer, again)


def test_inner_epochs_end_early_when_the_policy_leaves_the_sampling_policy(make) -> None:
    full, _ = make(**SHORT).update(0)
    assert full["optimizer_steps"] == 4 and full["stopped_early"] == 0.0
    early, _ = make(**SHORT, early_stop_kl=1e-9).update(0)
    assert 1 <= early["optimizer_steps"] < 4 and early["stopped_early"] == 1.0


def test_each_pass_draws_every_prompt_once_and_the_length_limit_is_drawn_when_asked(make, monkeypatch) -> None:
    drawn, limits, sample = [], [], ppo.sample

    def recorded(model, prompts, decoding, *rest):
        drawn.extend(map(tuple, prompts))
        limits.append(decoding.max_new_tokens)
        return sample(model, prompts, decoding, *rest)

    monkeypatch.setattr(ppo, "sample", recorded)
    trainer = make(**SHORT | {"batch_size": 4, "max_new_tokens": 5}, min_new_tokens=2)
    for number in range(10):
        trainer.update(number)
    passes = [sorted(drawn[i : i + 5]) for i in range(0, 40, 5)]
    assert passes == [sorted(map(tuple, trainer.prompts))] * 8
    assert len({tuple(drawn[i : i + 5]) for i in range(0, 40, 5)}) > 1
    assert set(limits) <= {2, 3, 4, 5} and len(set(limits)) > 1


def test_the_learning_rate_warms_up_over_updates(make) -> None:
    trainer = make(**SHORT, warmup_updates=4)
    rates = []
    for number in (0, 1, 5):
        trainer.update(number)
        rates.append(trainer.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.005, 0.01, 0.02])


def test_it_trains_in_bfloat16_with_the_adapter_in_float32(make) -> None:
    trainer = make(dtype=torch.bfloat16, **SHORT)
    before = policy_state(trainer)
    metrics, _ = trainer.update(0)
    after = policy_state(trainer)
    assert metrics["kl"] == 0.0 and metrics["score_std"] > 0
    assert next(trainer.model.get_base_model().parameters()).dtype == torch.bfloat16
    for name, value in after.items():
        assert value.dtype == torch.float32 and torch.isfinite(value).all()
        assert not torch.equal(value, before[name])
