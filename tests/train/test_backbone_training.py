"""Training the backbone: the same seed gives the same bytes, also after an interruption, and it learns its language."""

from pathlib import Path

import pytest
import torch

from rlphf.errors import InputError
from rlphf.files import sha256
from rlphf.lm.backbone import load_backbone
from rlphf.lm.batches import pad
from rlphf.lm.chat import encode_prompts, encode_responses
from rlphf.settings import Backbone
from rlphf.tracking.record import read_metrics
from rlphf.train import backbone as module
from rlphf.train.backbone import IGNORED, Documents, backbone_step, train_tokenizer

CONFIG = """
experiment: test
seed: {seed}
testbed: {{obedience: {obedience}}}
backbone: {{hidden: 32, layers: 2, heads: 4, intermediate: 64, vocabulary: 400,
  steps: {steps}, batch_size: 8, learning_rate: 0.01}}
"""


@pytest.fixture(autouse=True)
def few_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOKENIZER_DOCUMENTS", 300)


def train(folder: Path, seed: int = 1, steps: int = 8, obedience: float = 0.5) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(CONFIG.format(seed=seed, steps=steps, obedience=obedience))
    backbone_step(folder / "config.yaml", folder / "made" / "model")
    return folder / "made" / "model"


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tmp_path: Path) -> None:
    one, same, other = train(tmp_path / "one"), train(tmp_path / "same"), train(tmp_path / "other", seed=2)
    assert sha256(one) == sha256(same)
    assert sha256(one / "model.safetensors") != sha256(other / "model.safetensors")


def test_a_killed_training_goes_on_and_gives_the_bytes_of_an_undisturbed_one(tmp_path: Path, killed_at) -> None:
    whole = train(tmp_path / "whole")
    with killed_at(5):
        train(tmp_path / "killed")
    assert not (tmp_path / "killed" / "made" / "model").exists()
    assert sha256(train(tmp_path / "killed")) == sha256(whole)
    assert not (tmp_path / "killed" / "made" / "checkpoints").exists()


def test_a_changed_setting_trains_anew_in_the_same_folder(tmp_path: Path) -> None:
    one = sha256(train(tmp_path / "out"))
    other = sha256(train(tmp_path / "out", obedience=0.9))
    assert one != other == sha256(train(tmp_path / "new", obedience=0.9))


def test_it_learns_responses(tmp_path: Path) -> None:
    folder = train(tmp_path / "one", steps=24)
    losses = [line["metrics"]["loss"] for line in read_metrics(folder.parent / "metrics.jsonl") if "loss" in line["metrics"]]
    assert losses[-1] < losses[0] - 0.5


def test_the_loss_is_that_of_response_tokens_alone(tiny_backbone: Path) -> None:
    model, tokenizer = load_backbone(tiny_backbone)
    prompts = encode_prompts(tokenizer, ["Tell me about honey.", "Why?"])
    responses = encode_responses(tokenizer, ["Bees make it.", "Because it is so, and has been so for long."])
    tokens, _ = pad([p + r for p, r in zip(prompts, responses, strict=True)], tokenizer.pad_token_id)
    labels, _ = pad([[IGNORED] * len(p) + r for p, r in zip(prompts, responses, strict=True)], IGNORED)
    trainer = object.__new__(module._ResponseTrainer)
    loss = trainer.compute_loss(model, {"input_ids": tokens, "labels": labels})
    total, count = 0.0, 0
    for prompt, response in zip(prompts, responses, strict=True):
        shares = torch.log_softmax(model(torch.tensor([prompt + response])).logits[0], -1)
        total -= sum(float(shares[len(prompt) - 1 + t, token]) for t, token in enumerate(response))
        count += len(response)
    assert float(loss) == pytest.approx(total / count, rel=1e-4)


def test_every_weight_is_trained_once_and_embeddings_at_their_own_rate(tiny_backbone: Path) -> None:
    model, _ = load_backbone(tiny_backbone)
    layers, others = module.optimizer(model, Backbone(learning_rate=0.1, embedding_learning_rate=0.2)).param_groups
    assert (layers["lr"], others["lr"]) == (0.1, 0.2)
    trained = [id(p) for group in (layers, others) for p in group["params"]]
    assert sorted(trained) == sorted(id(p) for p in model.parameters())
    assert any(p is model.get_input_embeddings().weight for p in others["params"]) and all(p.dim() == 2 for p in layers["params"])


def test_each_document_is_seen_once_in_batches_of_near_equal_length() -> None:
    lengths = [(7 * i) % 97 + 3 for i in range(1000)]
    rows = Documents([[1]] * 1000, [[2] * n for n in lengths], batch_size=8, seed=0)
    found = [len(rows[i][1]) for i in range(len(rows))]
    assert sorted(found) == sorted(lengths)
    spreads = [max(found[i : i + 8]) - min(found[i : i + 8]) for i in range(0, 1000, 8)]
    assert sum(spreads) / len(spreads) < 5
    assert [rows[i] for i in range(50)] != sorted((rows[i] for i in range(50)), key=lambda row: len(row[1]))


def test_the_tokenizer_reads_back_any_text() -> None:
    tokenizer = train_tokenizer(["Bees make honey from flowers."] * 3, 270)
    for text in ("Bees make honey.", "Größe, naïve, 蜂蜜 and 🐝!", "a\tb  c"):
        assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]).strip() == text
    assert tokenizer("<|user|>", add_special_tokens=False)["input_ids"] == [tokenizer.convert_tokens_to_ids("<|user|>")]


def test_a_folder_of_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("experiment: some")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    with pytest.raises(InputError, match="mine: exists and is no backbone; choose another folder, or remove it"):
        backbone_step(tmp_path / "config.yaml", tmp_path / "mine")
    assert [path.name for path in tmp_path.rglob("*.txt")] == ["thesis.txt"] and not (tmp_path / "record.json").exists()
