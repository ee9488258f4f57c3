"""RLOO through TRL, on a tiny random backbone: it means what PPO means, learns, and resumes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from peft.utils import get_peft_model_state_dict
from tests.train.learning import evaluate, make_trainer
from transformers import TrainerState

from rlphf.files import read_json
from rlphf.lm.adapters import POLICY, add_policy, write_policy
from rlphf.lm.backbone import load_backbone
from rlphf.lm.chat import encode_prompts
from rlphf.lm.rewards import RewardModels
from rlphf.settings import PPO, Lora
from rlphf.tracking.record import read_metrics, step
from rlphf.train.learner import Task
from rlphf.train.rloo import Scorer, _Trainer, train_rloo

SETTINGS = PPO(
    algorithm="rloo",
    lora=Lora(rank=4, alpha=8, dropout=0.5, targets=["q_proj", "v_proj", "o_proj", "down_proj"]),
    updates=8,
    batch_size=32,
    mini_batch_size=16,
    inner_epochs=2,
    learning_rate=0.02,
    max_new_tokens=6,
    kl_coefficient=0.02,
    kl_horizon=100,
    checkpoint_every=4,
)
SHORT = {"updates": 2, "batch_size": 8, "mini_batch_size": 4, "inner_epochs": 1, "max_new_tokens": 3}
INSTRUCTIONS = ["Tell me about honey.", "What is a volcano?", "Explain rivers to me.", "Why do cats sleep?", "Describe bees."]
SAME = [(text, text) for text in INSTRUCTIONS]


def policy(backbone: Path) -> PeftModel:
    return add_policy(load_backbone(backbone)[0], SETTINGS.lora, seed=3)


def judges(model: PeftModel, reward: Path) -> RewardModels:
    return RewardModels(model.get_base_model(), [reward], read_json(reward / "adapter.json")["backbone_sha256"])


def tensors(model: PeftModel) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in get_peft_model_state_dict(model, adapter_name=POLICY).items()}


@pytest.fixture
def train(tiny_backbone: Path, likes_ends: Path):
    """Train a policy under a record in a folder; return (the outer steps done, the model, its metrics)."""

    def trained(folder: Path, **settings) -> tuple[int, PeftModel, list[dict[str, float]]]:
        model, tokenizer = policy(tiny_backbone), load_backbone(tiny_backbone)[1]
        chosen = PPO(**(SETTINGS.model_dump() | settings))
        with step("ppo", folder) as run:
            checkpoints = folder / "checkpoints"
            updates = train_rloo(model, tokenizer, judges(model, likes_ends), SAME, chosen, 5, run, checkpoints)
        return updates, model, [line["metrics"] for line in read_metrics(folder / "metrics.jsonl")]

    return trained


@pytest.fixture(scope="module")
def likes_ends(make_reward: Callable[..., Path]) -> Path:
    """A reward model that likes responses which end: the end token is number 1."""
    return make_reward(scale=0.0, likes=1)


@pytest.fixture(scope="module")
def learned(tiny_backbone: Path, likes_ends: Path, tmp_path_factory: pytest.TempPathFactory):
    """Eight updates: (folder, tensors of the whole model before, the model)."""
    folder = tmp_path_factory.mktemp("rloo")
    model, tokenizer = policy(tiny_backbone), load_backbone(tiny_backbone)[1]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with step("ppo", folder) as run:
        updates = train_rloo(
            model,
            tokenizer,
            judges(model, likes_ends),
            SAME,
            SETTINGS,
            5,
            run,
            folder / "checkpoints",
        )
    assert updates == SETTINGS.updates
    return folder, before, model


def test_rloo_raises_an_easy_reward_and_logs_what_ppo_logs(learned) -> None:
    folder, _, _ = learned
    lines = read_metrics(folder / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(SETTINGS.updates))
    first, last = lines[0]["metrics"], lines[-1]["metrics"]
    assert first["score"] < 0.5 and last["score"] > 3.0
    assert first["finished"] < 0.2 and last["finished"] > 0.6 and last["length"] < first["length"] <= 6
    # The first responses come from the backbone itself. The KL is in nats per response; per token it is below 3.
    assert first["kl"] == pytest.approx(0.0, abs=1e-4) and last["kl"] > 4.0
    assert first["kl_coefficient"] == 0.02
    # A KL of 0 is below the target by the most that counts.
    assert lines[1]["metrics"]["kl_coefficient"] == pytest.approx(0.02 * (1 - 0.2 * 32 / 100))
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert {s["step"] for s in samples} == {0, 7} and {s["prompt"] for s in samples} <= set(INSTRUCTIONS)


def test_only_the_policy_is_trained(learned) -> None:
    _, before, model = learned
    after = dict(model.named_parameters())
    for name, value in before.items():
        assert torch.equal(value, after[name]) != (f".{POLICY}." in name), name


def test_the_trained_policy_is_written_and_read_as_any_other(learned, tiny_backbone: Path, tmp_path: Path) -> None:
    _, _, model = learned
    write_policy(model, tmp_path / "adapter", str(tiny_backbone), {})
    base, tokenizer = load_backbone(tiny_backbone)
    tokens = torch.tensor(encode_prompts(tokenizer, INSTRUCTIONS[:1]))
    bare = base(tokens).logits
    fresh = PeftModel.from_pretrained(base, tmp_path / "adapter")
    with torch.no_grad():
        assert torch.allclose(fresh(tokens).logits, model.eval()(tokens).logits, atol=1e-5)
        assert not torch.allclose(fresh(tokens).logits, bare, atol=0.1)


def test_training_starts_from_the_given_initialisation(train, tiny_backbone: Path, tmp_path: Path) -> None:
    start = tensors(policy(tiny_backbone))
    _, model, _ = train(tmp_path, **SHORT, learning_rate=1e-9)
    for name, value in tensors(model).items():
        assert torch.allclose(value, start[name], atol=1e-6), name


@pytest.mark.parametrize("damaged", [False, True])
def test_a_resumed_run_equals_an_undisturbed_one_to_the_bit(learned, train, tmp_path: Path, damaged: bool) -> None:
    folder, _, model = learned
    shutil.copytree(folder, tmp_path / "again")
    newest = tmp_path / "again" / "checkpoints" / "step-000032"
    if damaged:
        (newest / "trainer_state.json").write_text("{")
    else:
        shutil.rmtree(newest)
    updates, resumed, metrics = train(tmp_path / "again")
    assert updates == 8 and all(torch.equal(v, tensors(resumed)[k]) for k, v in tensors(model).items())
    assert metrics == [line["metrics"] for line in read_metrics(folder / "metrics.jsonl")]


def test_its_scores_are_those_of_ppo(tiny_backbone: Path, make_reward: Callable[..., Path], run) -> None:
    model, tokenizer = policy(tiny_backbone), load_backbone(tiny_backbone)[1]
    reward = make_reward(seed=8)
    settings = PPO(**SETTINGS.model_dump() | {"score_scaling": False, "missing_eos_penalty": -2.5})
    responses = [[40, 41, 1], [50, 51, 52, 53, 54, 55], [1], [60, 61, 62, 63, 1]]
    # The reward model sees other prompts than the policy.
    judged = {text: [other, text] for text, other in zip(INSTRUCTIONS[:4], INSTRUCTIONS[1:], strict=True)}
    own = Task(encode_prompts(tokenizer, list(judged)), [encode_prompts(tokenizer, texts) for texts in judged.values()], 5)
    wanted = evaluate(make_trainer(tiny_backbone, [reward], settings, [own]), responses=responses).scores.tolist()
    # What the policy has learned is not to reach the score.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    scorer = Scorer(model, tokenizer, judges(model, reward), judged, settings, 1, run)
    messages = [[{"role": "user", "content": text}] for text in judged]
    completions = [[{"role": "assistant", "content": tokenizer.decode(r)}] for r in responses]
    found = scorer(messages, completions, responses, TrainerState(), lambda name, value: None, log_extra=None)
    assert found == pytest.approx(wanted, abs=1e-5) and found[1] == -2.5
    # The text that TRL samples from is the one that is scored, also where it holds a turn marker.
    held = "What is <|user|> and <eos>?"
    trainer = SimpleNamespace(processing_class=tokenizer)
    sampled = _Trainer._tokenize_prompts(trainer, [*messages, [{"role": "user", "content": held}]])
    assert sampled == (own.prompts + encode_prompts(tokenizer, [held]), None, {})


def test_it_stops_when_the_policy_is_too_far_from_the_backbone_and_stays_stopped(train, tmp_path: Path) -> None:
    settings = SHORT | {"updates": 6, "max_kl": 1e-3, "checkpoint_every": 1}
    updates, model, metrics = train(tmp_path, **settings)
    assert updates == len(metrics) < 6 and metrics[-1]["kl"] > 1e-3
    again, resumed, _ = train(tmp_path, **settings)
    assert again == updates and all(torch.equal(v, tensors(resumed)[k]) for k, v in tensors(model).items())
