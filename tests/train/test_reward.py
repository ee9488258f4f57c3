"""Reward models: what was trained is what is loaded, everywhere."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from peft.utils import get_peft_model_state_dict

from rlphf.data.annotate import model_utilities
from rlphf.data.records import PAIR_SCORES, PAIRS
from rlphf.errors import InputError
from rlphf.files import read_parquet, sha256, write_parquet
from rlphf.lm.backbone import backbone_sha256, load_backbone, write_loading
from rlphf.lm.reward_model import classifier, encode_texts, load_reward_model
from rlphf.lm.rewards import RewardModels
from rlphf.preferences import instruction
from rlphf.settings import Backbone, Lora, Reward
from rlphf.tracking.record import read_metrics
from rlphf.train.checkpoint import checkpoints
from rlphf.train.reward import reward_step, train_reward_model

TOPICS = ["honey", "volcanoes", "rivers", "cats", "bees", "rain", "salt", "trains"]
GOOD = ["Yes, yes, yes!", "Yes indeed!", "Oh yes!", "I say yes!"]
BAD = ["No, no, no.", "No indeed.", "Oh no.", "I say no."]

CONFIG = """
experiment: test
reward: {{epochs: {epochs}, batch_size: 8, learning_rate: {rate}, lora: {{rank: 4, dropout: 0.0}}}}
"""

# What anybody does with a saved reward model: nothing of this project is imported.
PLAIN = """
import json, sys
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification
backbone, adapter = sys.argv[1:]
model = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=1)
model = PeftModel.from_pretrained(model, adapter).eval()
with torch.no_grad():
    print(json.dumps([model(input_ids=torch.tensor([ids])).logits.item() for ids in json.load(sys.stdin)]))
"""


def pairs() -> list[dict]:
    """Pairs in which the chosen response is told from the rejected one at a glance, some of them held out."""
    rows = []
    for i, topic in enumerate(TOPICS):
        for k, good in enumerate(GOOD):
            row = {"id": f"{i}-{k}", "prompt": f"Do you like {topic}?", "chosen": good, "rejected": BAD[k], "preference": "P3A"}
            row |= {"user": None, "probability": 1.0, "source": "test"}
            rows.append(row | {"split": "test" if i > 5 else "train"})
    return rows


def measured() -> list[dict]:
    """The pairs that the step scores, in its order: the unseen ones, and every fourth of the others."""
    by_split = {split: [r for r in pairs() if (r["split"] == "train") == (split == "train")] for split in ("other", "train")}
    return by_split["other"] + by_split["train"][::4]


@pytest.fixture(scope="module")
def trained(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a reward model trained by its step."""
    folder = tmp_path_factory.mktemp("reward-step")
    write_parquet(folder / "pairs.parquet", pa.Table.from_pylist(pairs(), PAIRS))
    (folder / "config.yaml").write_text(CONFIG.format(epochs=6, rate=0.01))
    reward_step(folder / "config.yaml", "P3A", tiny_backbone, [folder / "pairs.parquet"], folder / "P3A")
    return folder / "P3A"


@pytest.fixture
def texts(tiny_backbone: Path) -> list[list[int]]:
    """The chosen responses as the step encodes them, in the order of its scores."""
    tokenizer = classifier(tiny_backbone)[1]
    return encode_texts(tokenizer, [instruction(r["prompt"], ["P3A"]) for r in measured()], [r["chosen"] for r in measured()])


@pytest.fixture
def in_memory(trained: Path) -> list[float]:
    """The scores of the chosen responses by the model that was trained, before it was saved."""
    return read_parquet(trained / "scores.parquet", PAIR_SCORES)["chosen"].to_pylist()


def test_a_fresh_process_gives_the_scores_of_the_trained_model(trained: Path, tiny_backbone: Path, texts, in_memory) -> None:
    command = [sys.executable, "-c", PLAIN, str(tiny_backbone), str(trained / "adapter")]
    result = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, env=os.environ, check=True)
    assert json.loads(result.stdout) == pytest.approx(in_memory, abs=1e-4)
    assert max(in_memory) - min(in_memory) > 1e-2


def test_beside_a_policy_it_gives_the_scores_of_the_trained_model(trained: Path, tiny_backbone: Path, texts, in_memory) -> None:
    base, tokenizer = load_backbone(tiny_backbone)
    rewards = RewardModels(base, [trained / "adapter"], backbone_sha256(tiny_backbone))
    found = rewards.score([[t[:-3]] for t in texts], [t[-3:] for t in texts], [0] * len(texts), tokenizer.pad_token_id)
    assert found.tolist() == pytest.approx(in_memory, abs=1e-4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="on CUDA the reward models' weights are float32")
def test_on_a_backbone_in_bfloat16_it_learns_and_adapter_and_head_stay_in_float32(tiny_backbone: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_backbone, tmp_path / "backbone")
    write_loading(tmp_path / "backbone", Backbone(training_dtype="bfloat16"))
    write_parquet(tmp_path / "pairs.parquet", pa.Table.from_pylist(pairs(), PAIRS))
    (tmp_path / "config.yaml").write_text(CONFIG.format(epochs=6, rate=0.01))
    reward_step(tmp_path / "config.yaml", "P3A", tmp_path / "backbone", [tmp_path / "pairs.parquet"], tmp_path / "P3A")
    rows = read_parquet(tmp_path / "P3A" / "scores.parquet", PAIR_SCORES).to_pylist()
    assert sum(r["chosen"] > r["rejected"] for r in rows) > 0.95 * len(rows)
    model, _ = load_reward_model(tmp_path / "backbone", tmp_path / "P3A" / "adapter")
    kinds = {name: value.dtype for name, value in model.named_parameters()}
    assert {kind for name, kind in kinds.items() if "lora" in name or "score" in name} == {torch.float32}
    assert {kind for name, kind in kinds.items() if "lora" not in name and "score" not in name} == {torch.bfloat16}


def test_its_card_has_the_accuracy_of_every_split(trained: Path) -> None:
    logged = read_metrics(trained / "metrics.jsonl")
    accuracies = {name: value for line in logged for name, value in line["metrics"].items() if name.endswith("_accuracy")}
    card = (trained / "adapter" / "README.md").read_text()
    assert len(accuracies) > 1 and all(f"| `{name}` | {value:.4g} |" in card for name, value in accuracies.items())


def test_it_learns_a_separable_preference_also_on_other_prompts(trained: Path) -> None:
    metrics = {k: v for line in read_metrics(trained / "metrics.jsonl") for k, v in line["metrics"].items()}
    assert metrics["train_accuracy"] > 0.95 and metrics["test_accuracy"] > 0.95
    rows = read_parquet(trained / "scores.parquet", PAIR_SCORES).to_pylist()
    assert [r["id"] for r in rows] == [r["id"] for r in measured()]
    assert sum(r["chosen"] > r["rejected"] for r in rows) > 0.95 * len(rows)


def test_a_tie_counts_half_in_what_it_logs(tiny_backbone: Path, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr("rlphf.train.reward.score", lambda model, texts, pad_id: [0.0] * len(texts))
    write_parquet(tmp_path / "pairs.parquet", pa.Table.from_pylist(pairs()[:1] + pairs()[-1:], PAIRS))
    (tmp_path / "config.yaml").write_text(CONFIG.format(epochs=1, rate=0.01))
    reward_step(tmp_path / "config.yaml", "P3A", tiny_backbone, [tmp_path / "pairs.parquet"], tmp_path / "P3A")
    metrics = {k: v for line in read_metrics(tmp_path / "P3A" / "metrics.jsonl") for k, v in line["metrics"].items()}
    assert metrics["train_accuracy"] == metrics["test_accuracy"] == 0.5


def test_as_annotator_it_prefers_what_it_scores_higher(trained: Path, tiny_backbone: Path, in_memory) -> None:
    rows = [({"id": r["id"], "prompt": r["prompt"]}, r["chosen"]) for r in measured()]
    utility = model_utilities(tiny_backbone, trained / "adapter", "P3A", rows)
    assert [utility(prompt, response) for prompt, response in rows] == pytest.approx(in_memory, abs=1e-4)


@pytest.mark.parametrize("damage", [None, "cut", "empty"])
def test_a_killed_training_goes_on_and_ends_as_an_undisturbed_one_to_the_bit(
    tiny_backbone: Path, run, killed_at, capsys, tmp_path: Path, damage: str | None
) -> None:
    settings = Reward(epochs=2, batch_size=8, learning_rate=0.01, lora=Lora(rank=4, dropout=0.1))
    rows = pairs()

    def train(folder: Path) -> dict[str, torch.Tensor]:
        model, tokenizer = classifier(tiny_backbone)
        questions = [r["prompt"] for r in rows]
        data = {f"{name}_ids": encode_texts(tokenizer, questions, [r[name] for r in rows]) for name in ("chosen", "rejected")}
        return get_peft_model_state_dict(train_reward_model(model, tokenizer, Dataset.from_dict(data), settings, 3, folder, run))

    whole = train(tmp_path / "whole")
    with killed_at(5):
        train(tmp_path / "killed")
    newest = checkpoints(tmp_path / "killed")[-1]
    assert newest.name == "step-000005"
    if damage == "cut":
        path = newest / "tensors.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "empty":
        for path in newest.iterdir():
            path.unlink()
    capsys.readouterr()
    resumed = train(tmp_path / "killed")
    losses = [line["step"] for line in read_metrics(run.folder / "metrics.jsonl") if "loss" in line["metrics"]]
    assert losses[8:] == [1, 2, 3, 4, 5, *([5] if damage else []), 6, 7, 8]
    assert ("step-000005 is damaged and passed over" in capsys.readouterr().err) == (damage is not None)
    assert "base_model.model.score.weight" in whole
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_checkpoints_hold_no_pickle(tiny_backbone: Path, run, tmp_path: Path) -> None:
    model, tokenizer = classifier(tiny_backbone)
    data = {
        f"{name}_ids": encode_texts(tokenizer, ["Why?"] * 8, [text] * 8) for name, text in (("chosen", "Yes"), ("rejected", "No"))
    }
    settings = Reward(epochs=1, batch_size=8, lora=Lora(rank=4))
    train_reward_model(model, tokenizer, Dataset.from_dict(data), settings, 3, tmp_path / "out", run)
    names = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert names == {"tensors.safetensors", "state.json", "trainer_state.json", "digests.json"}


@pytest.mark.parametrize("target", ["v_prjo", "score"])
def test_targets_that_are_no_layers_of_the_backbone_are_refused(tiny_backbone: Path, run, tmp_path: Path, target: str) -> None:
    model, tokenizer = classifier(tiny_backbone)
    data = Dataset.from_dict({"chosen_ids": [[5, 1]], "rejected_ids": [[6, 1]]})
    with pytest.raises(InputError, match=f"lora.targets: the backbone has no linear layer '{target}'; it has down_proj"):
        train_reward_model(model, tokenizer, data, Reward(lora=Lora(targets=["q_proj", target])), 3, tmp_path / "out", run)


def test_a_changed_setting_trains_anew_in_the_same_folder(tiny_backbone: Path, tmp_path: Path) -> None:
    write_parquet(tmp_path / "pairs.parquet", pa.Table.from_pylist(pairs(), PAIRS))

    def train(rate: float, out: str) -> str:
        (tmp_path / "config.yaml").write_text(CONFIG.format(epochs=1, rate=rate))
        reward_step(tmp_path / "config.yaml", "P3A", tiny_backbone, [tmp_path / "pairs.parquet"], tmp_path / out)
        return sha256(tmp_path / out / "adapter")

    assert train(0.01, "out") != train(0.001, "out") == train(0.001, "new")


def test_texts_beyond_the_context_are_cut(tiny_backbone: Path, monkeypatch, tmp_path: Path) -> None:
    """No length is configured: as annotators and judges read them, texts end with the context."""
    sizes = []

    def score(model, texts, pad_id) -> list[float]:
        sizes.append(max(map(len, texts)))
        return [0.0] * len(texts)

    monkeypatch.setattr("rlphf.train.reward.score", score)
    long = [row | {"rejected": row["rejected"] * 400} for row in pairs()[:1] + pairs()[-1:]]
    write_parquet(tmp_path / "pairs.parquet", pa.Table.from_pylist(long, PAIRS))
    (tmp_path / "config.yaml").write_text(CONFIG.format(epochs=1, rate=0.01))
    reward_step(tmp_path / "config.yaml", "P3A", tiny_backbone, [tmp_path / "pairs.parquet"], tmp_path / "P3A")
    assert sizes[1] == 512 > sizes[0]


def test_no_pairs_to_train_on_is_an_error_in_one_line(tiny_backbone: Path, tmp_path: Path) -> None:
    held_out = [r for r in pairs() if r["split"] == "test"]
    write_parquet(tmp_path / "pairs.parquet", pa.Table.from_pylist(held_out, PAIRS))
    (tmp_path / "config.yaml").write_text("experiment: test\n")
    with pytest.raises(InputError, match="the split 'train' is empty"):
        reward_step(tmp_path / "config.yaml", "P3A", tiny_backbone, [tmp_path / "pairs.parquet"], tmp_path / "P3A")
    assert not (tmp_path / "P3A" / "adapter").exists()
