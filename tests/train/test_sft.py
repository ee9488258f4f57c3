"""MT: the loss is on the response alone, and imitation makes the imitated likelier."""

from pathlib import Path

import pyarrow as pa
import pytest
import torch
from peft import PeftModel

from rlphf.data.records import PAIRS
from rlphf.errors import InputError
from rlphf.files import read_json, read_parquet, sha256, write_parquet
from rlphf.lm.backbone import load_backbone
from rlphf.preferences import instruction
from rlphf.train.sft import IGNORED, examples, sft_step

CONFIG = """
experiment: test
mt: {epochs: 4, batch_size: 4, learning_rate: 0.01, warmup_steps: 1, lora: {rank: 4, dropout: 0.0}}
"""


def pair(number: int, preference: str, split: str) -> dict:
    chosen, rejected = ("Honey is sweet.", "Bees make it.") if preference == "P1A" else ("Rain falls.", "Clouds are grey.")
    return {"id": f"{preference}-{number}", "prompt": f"Question {number}?", "chosen": chosen, "rejected": rejected} | {
        "preference": preference,
        "user": None,
        "probability": None,
        "source": "testbed",
        "split": split,
    }


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Pairs of two preferences: eight for training each, and one for testing."""
    made = []
    for preference in ("P1A", "P2A"):
        rows = [pair(i, preference, "train") for i in range(8)] + [pair(9, preference, "test")]
        made.append(tmp_path / preference / "pairs.parquet")
        write_parquet(made[-1], pa.Table.from_pylist(rows, PAIRS))
    (tmp_path / "config.yaml").write_text(CONFIG)
    return made


def likelihood(model, data) -> float:
    """Mean log-probability per labelled token."""
    total, count = 0.0, 0
    with torch.no_grad():
        for row in data:
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
            logprobs = model(ids).logits[0, :-1].log_softmax(-1)
            kept = labels[1:] != IGNORED
            total += float(logprobs[kept].gather(1, labels[1:][kept][:, None]).sum())
            count += int(kept.sum())
    return total / count


def test_prompts_carry_no_loss_and_ask_for_the_pairs_own_preference(tiny_backbone: Path) -> None:
    _, tokenizer = load_backbone(tiny_backbone)
    (row,) = examples(tokenizer, [pair(1, "P2A", "train")], 512)
    prompt = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label == IGNORED]
    answer = [label for label in row["labels"] if label != IGNORED]
    assert row["input_ids"] == prompt + answer
    assert instruction("Question 1?", ["P2A"]) in tokenizer.decode(prompt)
    assert tokenizer.decode(answer, skip_special_tokens=True).strip() == "Rain falls." and answer[-1] == tokenizer.eos_token_id


def test_it_imitates_the_chosen_and_not_the_rejected(tiny_backbone: Path, files: list[Path], tmp_path: Path) -> None:
    sft_step(tmp_path / "config.yaml", tiny_backbone, files, tmp_path / "mt")
    base, tokenizer = load_backbone(tiny_backbone)
    rows = [row for path in files for row in read_parquet(path, PAIRS).to_pylist()]
    chosen = examples(tokenizer, rows, 512)
    rejected = examples(tokenizer, [row | {"chosen": row["rejected"]} for row in rows], 512)
    before = likelihood(base, chosen), likelihood(base, rejected)
    policy = PeftModel.from_pretrained(base, tmp_path / "mt" / "adapter").eval()
    gains = likelihood(policy, chosen) - before[0], likelihood(policy, rejected) - before[1]
    assert gains[0] > 0.5 and gains[0] > gains[1] + 0.2
    record = read_json(tmp_path / "mt" / "record.json")
    assert record["status"] == "finished" and record["tags"]["responses"] == "16" and record["tags"]["updates"] == "16"
    assert read_json(tmp_path / "mt" / "adapter" / "adapter.json")["kind"] == "policy"
    assert "| `loss` |" in (tmp_path / "mt" / "adapter" / "README.md").read_text()


def test_the_same_step_gives_the_same_bytes(tiny_backbone: Path, files: list[Path], tmp_path: Path) -> None:
    for name in ("one", "two"):
        sft_step(tmp_path / "config.yaml", tiny_backbone, files, tmp_path / name)
    assert sha256(tmp_path / "one" / "adapter") == sha256(tmp_path / "two" / "adapter")


@pytest.mark.parametrize("step", [6, 8, 16])
def test_a_killed_step_goes_on_and_gives_the_bytes_of_an_undisturbed_one(
    tiny_backbone: Path, files: list[Path], killed_at, tmp_path: Path, step: int
) -> None:
    """Killed within a pass over the pairs, between two, and when all was trained and nothing written."""
    (tmp_path / "config.yaml").write_text(CONFIG.replace("dropout: 0.0", "dropout: 0.1"))
    sft_step(tmp_path / "config.yaml", tiny_backbone, files, tmp_path / "whole")
    with killed_at(step):
        sft_step(tmp_path / "config.yaml", tiny_backbone, files, tmp_path / "killed")
    assert not (tmp_path / "killed" / "adapter").exists()
    sft_step(tmp_path / "config.yaml", tiny_backbone, files, tmp_path / "killed")
    assert read_json(tmp_path / "killed" / "record.json")["resumed_from"] == step + 1
    assert sha256(tmp_path / "killed" / "adapter") == sha256(tmp_path / "whole" / "adapter")
    assert not (tmp_path / "killed" / "checkpoints").exists()


def test_no_training_pairs_is_an_error_in_one_line(tiny_backbone: Path, files: list[Path], tmp_path: Path) -> None:
    write_parquet(files[0], pa.Table.from_pylist([pair(1, "P1A", "test")], PAIRS))
    with pytest.raises(InputError, match="the split 'train' is empty; nothing to imitate"):
        sft_step(tmp_path / "config.yaml", tiny_backbone, files[:1], tmp_path / "mt")


def test_a_text_beyond_the_context_is_an_error_in_one_line(tiny_backbone: Path, files: list[Path], tmp_path: Path) -> None:
    rows = [pair(1, "P1A", "train"), pair(2, "P1A", "train") | {"prompt": "Tell me of bees. " * 200}]
    write_parquet(files[0], pa.Table.from_pylist(rows, PAIRS))
    with pytest.raises(
        InputError, match=r"^'Tell me of bees\. .*\.\.\.': has \d+ tokens with its response, and the context holds 512"
    ):
        sft_step(tmp_path / "config.yaml", tiny_backbone, files, tmp_path / "mt")
    assert not (tmp_path / "mt" / "adapter").exists()
