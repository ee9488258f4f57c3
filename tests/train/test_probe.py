"""A probed head orders pairs as they were chosen: fitted as a plain loop fits it, and what a reward model then starts from."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from scipy.optimize import minimize
from tests.train.test_reward import pairs

from rlphf.data.records import PAIRS
from rlphf.errors import InputError
from rlphf.files import sha256, write_parquet
from rlphf.lm.reward_model import classifier
from rlphf.settings import Reward
from rlphf.soup.adapter import read_reward_model
from rlphf.tracking.record import read_metrics
from rlphf.train.probe import STRENGTHS, fit_head, last_states
from rlphf.train.reward import reward_step

CONFIG = "{{experiment: test, reward: {{head: probe, epochs: {epochs}, learning_rate: 0.01, lora: {{rank: 4, dropout: 0.0}}}}}}"


def chosen_by(weight: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Draw `n` pairs of states that a Bradley-Terry annotator with `weight` chose between, two to a prompt."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(n, 2, len(weight)))
    first = rng.random(n) < 1 / (1 + np.exp(-(states[:, 0] - states[:, 1]) @ weight))
    chosen, rejected = np.where(first[:, None], states[:, 0], states[:, 1]), np.where(first[:, None], states[:, 1], states[:, 0])
    return chosen.astype(np.float32), rejected.astype(np.float32), [f"prompt {i // 2}" for i in range(n)]


WEIGHT = np.array([2.0, -1.0, 0.5, 0.0, 0.0])


def test_the_head_is_the_penalised_maximum_of_the_likelihood_for_one_of_the_strengths():
    chosen, rejected, prompts = chosen_by(WEIGHT, 200, 1)
    scale = np.concatenate([chosen, rejected]).std(axis=0)
    gaps = (chosen - rejected) / scale

    def plain(strength: float) -> np.ndarray:
        # Both ways round, each pair counts twice.
        loss = lambda w: w @ w / 2 + strength * 2 * sum(np.logaddexp(0, -gap @ w) for gap in gaps)  # noqa: E731
        return minimize(loss, np.zeros(5)).x / scale

    found = fit_head(chosen, rejected, prompts)[0].numpy()
    assert min(np.abs(found - plain(strength)).max() for strength in STRENGTHS) < 1e-3
    assert np.abs(found - WEIGHT).max() < 0.7


def test_of_states_that_tell_nothing_the_head_keeps_little():
    rng = np.random.default_rng(3)
    chosen, rejected = rng.normal(size=(2, 60, 40)).astype(np.float32)
    assert fit_head(chosen, rejected, [str(i) for i in range(60)]).norm() < 0.1


def test_pairs_of_one_prompt_are_refused():
    chosen, rejected, _ = chosen_by(WEIGHT, 4, 2)
    with pytest.raises(InputError, match="reward.head: a probe needs pairs of two prompts at least"):
        fit_head(chosen, rejected, ["one"] * 4)


def test_states_are_those_that_a_classifiers_head_reads(tiny_backbone: Path):
    model, tokenizer = classifier(tiny_backbone)
    texts = [[5, 6, 7], [8], [9, 10, 11, 12]]
    states = last_states(model, texts, tokenizer.pad_token_id, batch_size=2)
    with torch.no_grad():
        scores = [model(input_ids=torch.tensor([text])).logits.item() for text in texts]
    assert (states @ model.score.weight.detach().numpy()[0]).tolist() == pytest.approx(scores, abs=1e-5)


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_reward_model_starts_from_the_probe(tiny_backbone: Path, tmp_path: Path, epochs: int):
    write_parquet(tmp_path / "pairs.parquet", pa.Table.from_pylist(pairs(), PAIRS))
    (tmp_path / "config.yaml").write_text(CONFIG.format(epochs=epochs))
    for out in ("a", "b"):
        reward_step(tmp_path / "config.yaml", "P3A", tiny_backbone, [tmp_path / "pairs.parquet"], tmp_path / out)
    assert sha256(tmp_path / "a" / "adapter") == sha256(tmp_path / "b" / "adapter")
    adapter, _ = read_reward_model(tmp_path / "a" / "adapter")
    moved = any(b.abs().max() > 0 for _, b in adapter.modules.values())
    assert moved == (epochs > 0)
    metrics = {name: value for line in read_metrics(tmp_path / "a" / "metrics.jsonl") for name, value in line["metrics"].items()}
    assert metrics["train_accuracy"] > 0.95 and metrics["test_accuracy"] > 0.95


def test_no_pass_over_the_pairs_needs_a_probe():
    assert Reward(head="probe", epochs=0).epochs == 0
    with pytest.raises(ValueError, match="epochs: 0 would leave a drawn head as it is"):
        Reward(epochs=0)
