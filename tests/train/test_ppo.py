"""PPO on a tiny random backbone: what it computes of given responses, and that it learns."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest
import torch
from tests.train.learning import INSTRUCTIONS, evaluate, losses, make_trainer, policy_state, task

from rlphf.errors import InputError
from rlphf.lm.backbone import load_backbone
from rlphf.lm.reward_model import load_reward_model, score
from rlphf.seeds import derive
from rlphf.settings import PPO, Lora
from rlphf.tracking.record import read_metrics, step
from rlphf.train import ppo
from rlphf.train.ppo import PPOTrainer

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
# Ragged responses of token ids; the end token is 1, and the second and the last do not end.
RESPONSES = [[40, 41, 1], [50, 51, 52, 53, 54, 55], [1], [60, 61, 62, 63, 1], [70, 0, 71]]


@pytest.fixture
def make(tiny_backbone: Path, make_reward: Callable[..., Path]) -> Callable[..., PPOTrainer]:
    """Make a trainer: of a fresh policy, or with random B and value head if `moved`."""
    reward = make_reward()

    def made(moved: bool = False, reward: Path = reward, dtype: torch.dtype = torch.float32, **settings) -> PPOTrainer:
        trainer = make_trainer(tiny_backbone, [reward], PPO(**(SETTINGS.model_dump() | settings)), dtype=dtype)
        if moved:
            torch.manual_seed(11)
            with torch.no_grad():
                for name, parameter in trainer.learners[0].trained.items():
                    if "lora_A" not in name:
                        parameter.normal_(std=0.3)
        return trainer

    return made


def plain_logprobs(
    trainer: PPOTrainer, prompt: list[int], response: list[int], temperature: float = 1.0, policy: bool = True
) -> torch.Tensor:
    """Log-probabilities of a response's tokens by one forward pass of the whole model, alone in its batch."""
    with trainer.policies.mixing(torch.tensor([[float(policy)]])):
        logits = trainer.model(input_ids=torch.tensor([prompt + response], device=trainer.device)).logits[0]
    shares = torch.log_softmax(logits.float() / temperature, -1)
    start = len(prompt) - 1
    return torch.stack([shares[start + t, token] for t, token in enumerate(response)])


# What is computed of a batch of responses.


def test_at_the_start_ratio_is_1_and_kl_is_0(make) -> None:
    trainer = make()
    rollout = evaluate(trainer, responses=RESPONSES)
    assert torch.equal(rollout.logprobs, rollout.reference)
    parts = losses(trainer, rollout, torch.arange(5))
    assert float(parts["policy_kl"].detach()) == 0.0 and float(parts["clip_fraction"]) == 0.0
    # With every ratio at 1, the loss is the mean advantage, which whitening makes 0.
    assert float(parts["policy_loss"].detach()) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_probabilities_are_those_of_the_whole_model(make, temperature: float) -> None:
    trainer = make(moved=True, temperature=temperature)
    rollout = evaluate(trainer, responses=RESPONSES)
    with torch.no_grad():
        for i, response in enumerate(RESPONSES):
            wanted = plain_logprobs(trainer, trainer.learners[0].task.prompts[i], response, temperature)
            assert torch.allclose(rollout.logprobs[i, : len(response)], wanted, atol=1e-4)


def test_the_reference_ignores_the_policy(make) -> None:
    fresh, moved = make(), make(moved=True)
    rollout = evaluate(moved, responses=RESPONSES)
    mask = rollout.batch.mask.bool()
    assert torch.equal(rollout.reference, evaluate(fresh, responses=RESPONSES).reference)
    assert (rollout.logprobs - rollout.reference)[mask].abs().min() > 1e-4
    with torch.no_grad():
        wanted = plain_logprobs(moved, moved.learners[0].task.prompts[1], RESPONSES[1], policy=False)
    assert torch.allclose(rollout.reference[1, :6], wanted, atol=1e-4)


def test_padding_changes_nothing(make) -> None:
    trainer = make(moved=True, score_scaling=False, whiten_advantages=False)
    together = evaluate(trainer, responses=RESPONSES)
    for i, response in enumerate(RESPONSES):
        own = trainer.learners[0].task
        alone = evaluate(trainer, [own.prompts[i]], [response], [own.judged[i]])
        for name in ("logprobs", "reference", "values", "advantages", "returns"):
            assert torch.allclose(getattr(together, name)[i, : len(response)], getattr(alone, name)[0], atol=1e-4), name
        assert torch.allclose(together.scores[i], alone.scores[0], atol=1e-4)
        assert bool(together.finished[i]) == bool(alone.finished[0]) == (response[-1] == 1)


def test_a_mini_batch_sees_the_numbers_of_its_own_rows(make) -> None:
    trainer = make(moved=True)
    rollout = evaluate(trainer, responses=RESPONSES)
    parts = losses(trainer, rollout, torch.tensor([4, 2]))
    # Row 2 has one token and row 4 three; the policy has not moved since, so each ratio is 1.
    advantages = torch.cat([rollout.advantages[2, :1], rollout.advantages[4, :3]])
    errors = torch.cat([(rollout.values - rollout.returns)[2, :1], (rollout.values - rollout.returns)[4, :3]])
    assert float(parts["policy_kl"].detach()) == pytest.approx(0.0, abs=1e-5)
    assert float(parts["policy_loss"].detach()) == pytest.approx(-float(advantages.mean()), abs=1e-4)
    assert float(parts["value_loss"].detach()) == pytest.approx(0.5 * float((errors**2).mean()), rel=1e-3)


def test_the_score_goes_to_the_last_token(make) -> None:
    # Without discounted future, penalty and value, the return of a token is its own reward.
    trainer = make(gamma=0.0, kl_coefficient=0.0, score_scaling=False)
    rollout = evaluate(trainer, responses=RESPONSES)
    for i, response in enumerate(RESPONSES):
        assert float(rollout.returns[i, len(response) - 1]) == pytest.approx(float(rollout.scores[i]), rel=1e-6)
        assert rollout.returns[i].count_nonzero() == 1


def test_scores_are_those_of_the_saved_reward_model_in_plain_peft(make, make_reward, tiny_backbone: Path) -> None:
    folder = make_reward(seed=8)
    trainer = make(moved=True, reward=folder)
    judged = trainer.learners[0].task.prompts[::-1]
    rollout = evaluate(trainer, responses=RESPONSES, judged=[[prompt] for prompt in judged])
    model, tokenizer = load_reward_model(tiny_backbone, folder)
    # The last response ends within the length limit on a token that is neither padding nor the end.
    texts = [p + r for p, r in zip(judged, RESPONSES, strict=True)]
    assert rollout.scores.tolist() == pytest.approx(score(model, texts, tokenizer.pad_token_id), abs=1e-4)
    assert rollout.scores.std() > 0.1


def test_a_response_that_several_prompts_judge_gets_the_mean_of_their_scores(make, make_reward) -> None:
    trainer = make(moved=True, reward=make_reward(seed=8))
    prompts = trainer.learners[0].task.prompts
    groups = [prompts[:3], prompts[2:4], prompts[4:], prompts[:1], prompts[1:3]]
    found = evaluate(trainer, responses=RESPONSES, judged=groups).scores
    for i, group in enumerate(groups):
        each = [evaluate(trainer, prompts[:1], [RESPONSES[i]], [[prompt]]).scores[0] for prompt in group]
        assert float(found[i]) == pytest.approx(float(sum(each)) / len(each), abs=1e-5)


def test_a_response_without_an_end_gets_the_penalty_for_its_score(make) -> None:
    plain = make(score_scaling=False)
    plain = evaluate(plain, responses=RESPONSES)
    trainer = make(score_scaling=False, missing_eos_penalty=-7.0, gamma=0.0)
    rollout = evaluate(trainer, responses=RESPONSES)
    assert rollout.scores.tolist() == [-7.0 if r[-1] != 1 else float(plain.scores[i]) for i, r in enumerate(RESPONSES)]
    assert rollout.returns[1].sum() == -7.0


def test_scores_are_normalised_by_all_scores_so_far(make) -> None:
    trainer = make(gamma=0.0, kl_coefficient=0.0)
    first = evaluate(trainer, responses=RESPONSES).scores
    own = trainer.learners[0].task
    second = evaluate(trainer, own.prompts[:2], RESPONSES[:2], own.judged[:2])
    seen = torch.cat([first, second.scores])
    wanted = (second.scores - seen.mean()) / seen.std()
    assert second.returns.sum(1).tolist() == pytest.approx(wanted.tolist(), abs=1e-4)


# How it trains.


@pytest.fixture(scope="module")
def learned(tiny_backbone: Path, make_reward: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory):
    """Twelve updates against a reward model that likes responses which end: (tensors before, the trainer, metrics)."""
    folder = tmp_path_factory.mktemp("learned")
    trainer = make_trainer(tiny_backbone, [make_reward(scale=0.0, likes=1)], SETTINGS)
    before = {name: p.detach().clone() for name, p in everything(trainer).items()}
    with step("ppo", folder) as run:
        assert trainer.train([run], folder / "checkpoints") == [SETTINGS.updates]
    return before, trainer, read_metrics(folder / "metrics.jsonl"), folder


def everything(trainer: PPOTrainer) -> dict[str, torch.Tensor]:
    """The backbone, the policy, the reward model and its head."""
    found = dict(trainer.model.named_parameters()) | {"head": trainer.rewards.heads}
    found |= {f"policy/{name}": value for name, value in trainer.policies.parameters(0).items()}
    return found | {f"reward/{name}": value for name, value in trainer.rewards.stack.parameters(0).items()}


def test_ppo_raises_an_easy_reward(learned) -> None:
    metrics = [line["metrics"] for line in learned[2]]
    assert metrics[0]["score"] < 0.5 and metrics[-1]["score"] > 3.0
    assert metrics[0]["finished"] < 0.2 and metrics[-1]["finished"] > 0.5
    assert metrics[0]["kl"] == 0.0 and metrics[-1]["kl"] > 1.0


def test_only_the_policy_and_the_value_head_are_trained(learned) -> None:
    before, trainer, _, _ = learned
    for name, parameter in everything(trainer).items():
        assert torch.equal(before[name], parameter) != name.startswith("policy/"), name
    assert trainer.learners[0].value_head.weight.abs().sum() > 0


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
        trainer.train([run], folder / "checkpoints")
    return [line["metrics"] for line in read_metrics(folder / "metrics.jsonl")]


def assert_equal(one: PPOTrainer, other: PPOTrainer) -> None:
    for mine, theirs in zip(one.learners, other.learners, strict=True):
        for a, b in zip(mine.trained.values(), theirs.trained.values(), strict=True):
            assert torch.equal(a, b)
            states = mine.optimizer.state[a], theirs.optimizer.state[b]
            assert all(torch.equal(states[0][k], states[1][k]) for k in ("step", "exp_avg", "exp_avg_sq"))
        assert mine.moments == theirs.moments and mine.kl == theirs.kl


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
        assert trainer.train([run], tmp_path / "checkpoints") == [2]
    again = make(**settings)
    with step("ppo", tmp_path) as run:
        assert again.train([run], tmp_path / "checkpoints") == [2]
    assert_equal(trainer, again)


def test_a_policy_that_diverges_ends_the_training_at_once_and_leaves_no_checkpoint(make, tmp_path: Path) -> None:
    trainer = make(**SHORT | {"checkpoint_every": 1})
    with torch.no_grad():
        trainer.learners[0].value_head.weight.fill_(float("nan"))
    with pytest.raises(InputError, match="no finite numbers any more; lower ppo.learning_rate"), step("ppo", tmp_path) as run:
        trainer.train([run], tmp_path / "checkpoints")
    assert not list(tmp_path.glob("checkpoints/*"))


def test_inner_epochs_end_early_when_the_policy_leaves_the_sampling_policy(make) -> None:
    full, _ = make(**SHORT).update(0, [0])[0]
    assert full["optimizer_steps"] == 4 and full["stopped_early"] == 0.0
    trainer = make(**SHORT, early_stop_kl=1e-9)
    found = [trainer.update(number, [0])[0][0] for number in range(5)]
    assert all((metrics["optimizer_steps"] < 4) == (metrics["stopped_early"] == 1.0) for metrics in found)
    assert any(metrics["stopped_early"] for metrics in found)


def test_each_pass_draws_every_prompt_once_and_the_length_limit_is_drawn_when_asked(make, monkeypatch) -> None:
    drawn, limits, sample = [], [], ppo.sample

    def recorded(model, prompts, decoding, *rest):
        drawn.extend(map(tuple, prompts))
        limits.append(decoding.max_new_tokens)
        return sample(model, prompts, decoding, *rest)

    monkeypatch.setattr(ppo, "sample", recorded)
    trainer = make(**SHORT | {"batch_size": 4, "max_new_tokens": 5}, min_new_tokens=2)
    for number in range(10):
        trainer.update(number, [0])
    passes = [sorted(drawn[i : i + 5]) for i in range(0, 40, 5)]
    assert passes == [sorted(map(tuple, trainer.learners[0].task.prompts))] * 8
    assert len({tuple(drawn[i : i + 5]) for i in range(0, 40, 5)}) > 1
    assert set(limits) <= {2, 3, 4, 5} and len(set(limits)) > 1


def test_prompts_are_drawn_from_one_order_per_pass(make, monkeypatch) -> None:
    learner, derived = make(batch_size=12, mini_batch_size=4).learners[0], []
    monkeypatch.setattr("rlphf.train.learner.derive", lambda *names: derived.append(names) or derive(*names))
    found = [number for step in range(3) for number in learner.draw(step)]
    wanted = []
    for number in range(8):
        order = list(range(5))
        Random(derive(learner.task.seed, "pass", number)).shuffle(order)
        wanted += order
    assert found == wanted[:36]
    # Twelve of five prompts are of three passes; the third step ends in the midst of one more.
    assert [number for *_, number in derived] == [0, 1, 2, 2, 3, 4, 4, 5, 6, 7]


def test_the_learning_rate_warms_up_over_updates(make) -> None:
    trainer = make(**SHORT, warmup_updates=4)
    rates = []
    for number in (0, 1, 5):
        trainer.update(number, [0])
        rates.append(trainer.learners[0].optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.005, 0.01, 0.02])


def test_it_trains_in_bfloat16_with_the_adapter_in_float32(make) -> None:
    trainer = make(dtype=torch.bfloat16, **SHORT)
    before = policy_state(trainer)
    metrics, _ = trainer.update(0, [0])[0]
    after = policy_state(trainer)
    assert metrics["kl"] == 0.0 and metrics["score_std"] > 0
    assert next(trainer.model.parameters()).dtype == torch.bfloat16
    for name, value in after.items():
        assert value.dtype == torch.float32 and torch.isfinite(value).all()
        assert not torch.equal(value, before[name])


# Several policies at once.


@pytest.fixture
def rewards(make_reward: Callable[..., Path]) -> list[Path]:
    """Three reward models that differ."""
    return [make_reward(seed=seed) for seed in (0, 8, 9)]


def tasks(tokenizer) -> list:
    """Tasks that differ in their prompts, in how many there are, and in all that is drawn."""
    held = ["Rain?", "What is salt?"]
    return [task(tokenizer, INSTRUCTIONS[i:], 5 + i, held) for i in range(3)]


TOGETHER = PPO(**(SETTINGS.model_dump() | SHORT | {"checkpoint_every": 2, "keep": "best"}))


def train_all(trainer: PPOTrainer, folder: Path) -> list[list[dict]]:
    """Train all policies of a trainer; return the metrics of each."""
    with ExitStack() as stack:
        runs = [stack.enter_context(step("ppo", folder / str(i))) for i in range(len(trainer.learners))]
        trainer.train(runs, folder / "checkpoints")
    return [[line["metrics"] for line in read_metrics(folder / str(i) / "metrics.jsonl")] for i in range(len(trainer.learners))]


@pytest.mark.parametrize("settings", [{}, {"early_stop_kl": 0.02}, {"min_new_tokens": 2}, {"max_kl": 0.05}])
def test_each_policy_learns_what_it_would_learn_alone(tiny_backbone, rewards, tmp_path: Path, settings: dict) -> None:
    chosen = TOGETHER.model_copy(update=settings)
    wanted = tasks(load_backbone(tiny_backbone)[1])
    trainer = make_trainer(tiny_backbone, rewards, chosen, wanted)
    found = train_all(trainer, tmp_path / "together")
    for i in range(3):
        alone = make_trainer(tiny_backbone, [rewards[i]], chosen, [wanted[i]])
        (metrics,) = train_all(alone, tmp_path / str(i))
        assert len(metrics) == len(found[i])
        for one, other in zip(metrics, found[i], strict=True):
            assert one == pytest.approx(other, abs=1e-3, rel=1e-3)
        assert alone.learners[0].stopped == trainer.learners[i].stopped
        for name, value in policy_state(alone).items():
            assert torch.allclose(value, policy_state(trainer, i)[name], atol=1e-3), name
    states = [list(policy_state(trainer, i).values()) for i in (0, 1)]
    # Within a budget of KL this small, each keeps the policy that it started with.
    assert "max_kl" in settings or any(not torch.allclose(a, b, atol=1e-2) for a, b in zip(*states, strict=True))


def test_policies_that_train_together_resume_to_the_bit(tiny_backbone, rewards, tmp_path: Path) -> None:
    wanted = tasks(load_backbone(tiny_backbone)[1])
    chosen = TOGETHER.model_copy(update={"max_kl": 0.05})
    whole = make_trainer(tiny_backbone, rewards, chosen, wanted)
    train_all(whole, tmp_path / "whole")
    train_all(make_trainer(tiny_backbone, rewards, chosen.model_copy(update={"updates": 2}), wanted), tmp_path / "parts")
    resumed = make_trainer(tiny_backbone, rewards, chosen, wanted)
    train_all(resumed, tmp_path / "parts")
    assert_equal(whole, resumed)
    assert {learner.stopped for learner in whole.learners} == {learner.stopped for learner in resumed.learners}


@pytest.mark.parametrize("budget", [1, 40, 10_000])
def test_micro_batches_change_rounding_alone(make, budget: int) -> None:
    whole, parts = make(moved=True, **SHORT), make(moved=True, **SHORT, micro_batch_tokens=budget)
    found = [trainer.update(0, [0])[0][0] for trainer in (whole, parts)]
    assert found[0] == pytest.approx(found[1], abs=1e-4)
    for name, value in policy_state(whole).items():
        assert torch.allclose(value, policy_state(parts)[name], atol=1e-4), name


def test_micro_batches_hold_every_row_once_within_the_budget(make) -> None:
    trainer = make(**SHORT, micro_batch_tokens=60)
    rollout = evaluate(trainer, responses=RESPONSES)
    parts = [part[0].tolist() for part in trainer._micro_batches({0: rollout}, {0: torch.arange(5)})]
    lengths = rollout.batch.attention.sum(1).tolist()
    assert sorted(row for part in parts for row in part) == [0, 1, 2, 3, 4] and len(parts) > 1
    assert all(len(part) == 1 or len(part) * max(lengths[row] for row in part) <= 60 for part in parts)
