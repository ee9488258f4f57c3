"""Differences of pairs under several reward models on one backbone: those of each model loaded by itself."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rlphf.errors import InputError
from rlphf.files import read_json, write_json
from rlphf.lm.reward_model import encode_texts, load_reward_model, score
from rlphf.preferences import instruction
from rlphf.users import differences as module
from rlphf.users.differences import differences

ROWS = [
    {"prompt": "Bees?", "chosen": "Yes, bees do it.", "rejected": "No."},
    {"prompt": "Why do cats sleep?", "chosen": "No.", "rejected": "Cats are tired. They sleep."},
    {"prompt": "Bees?", "chosen": "No.", "rejected": "Yes, bees do it."},
    {"prompt": "Bees?", "chosen": "Some bees.", "rejected": "No."},
]
NAMES = ["P1A", "P3B", "P2A"]


@pytest.fixture(scope="module")
def rewards(make_reward: Callable[..., Path]) -> dict[str, Path]:
    """Reward models that differ in LoRA and head."""
    return {name: make_reward(seed=seed, preference=name) for seed, name in enumerate(NAMES)}


def alone(backbone: Path, name: str, folder: Path) -> list[float]:
    """The differences by one model that is loaded as ever, text by text."""
    model, tokenizer = load_reward_model(backbone, folder)
    found = []
    for row in ROWS:
        question = instruction(row["prompt"], [name])
        texts = encode_texts(tokenizer, [question, question], [row["chosen"], row["rejected"]])
        chosen, rejected = (score(model, [text], tokenizer.pad_token_id)[0] for text in texts)
        found.append(chosen - rejected)
    return found


def test_columns_are_those_of_each_model_loaded_by_itself(tiny_backbone: Path, rewards: dict[str, Path]) -> None:
    found = differences(ROWS, rewards, tiny_backbone)
    assert found.shape == (4, 3)
    for column, (name, folder) in enumerate(rewards.items()):
        assert found[:, column] == pytest.approx(alone(tiny_backbone, name, folder), abs=1e-4)
    assert np.abs(found).min() > 1e-3 and np.abs(found[:, 0] - found[:, 1]).max() > 0.1


def test_the_order_of_the_models_changes_nothing(tiny_backbone: Path, rewards: dict[str, Path]) -> None:
    turned = differences(ROWS, dict(reversed(rewards.items())), tiny_backbone)
    assert np.allclose(turned[:, ::-1], differences(ROWS, rewards, tiny_backbone), atol=1e-5)


def test_the_backbone_is_loaded_and_each_distinct_text_scored_once(tiny_backbone: Path, rewards, monkeypatch) -> None:
    loads, scored = [], []
    load = module.load_reward_model
    monkeypatch.setattr(module, "load_reward_model", lambda *args: loads.append(args) or load(*args))
    monkeypatch.setattr(module, "score", lambda model, texts, pad: scored.append(texts) or [0.0] * len(texts))
    differences(ROWS, rewards, tiny_backbone)
    assert len(loads) == 1 and [len(texts) for texts in scored] == [5, 5, 5]
    assert all(len({tuple(text) for text in texts}) == 5 for texts in scored)


def test_no_pairs_have_no_differences(tiny_backbone: Path, rewards: dict[str, Path]) -> None:
    assert differences([], rewards, tiny_backbone).shape == (0, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone_sha256": "other"}, "made for another backbone; train it again on this one"),
        ({"preference": "P1B"}, "expected the reward model of P1A, got kind 'reward' of 'P1B'; correct the path"),
        ({"kind": "policy"}, "expected the reward model of P1A, got kind 'policy'"),
    ],
)
def test_what_is_no_reward_model_of_the_preference_on_this_backbone_is_refused(
    tiny_backbone: Path, make_reward: Callable[..., Path], change: dict, message: str
) -> None:
    folder = make_reward()
    write_json(folder / "adapter.json", read_json(folder / "adapter.json") | change)
    with pytest.raises(InputError, match=message):
        differences(ROWS, {"P1A": folder}, tiny_backbone)


def test_a_reward_model_that_is_not_there_is_named(tiny_backbone: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such adapter folder; train the reward model of P2A, or correct the path"):
        differences(ROWS, {"P2A": tmp_path / "none"}, tiny_backbone)


def test_texts_are_cut_as_those_that_models_were_trained_on(rewards, tiny_backbone: Path) -> None:
    long = [row | {"chosen": f"{row['chosen']} {'And so on. ' * 300}"} for row in ROWS]
    context = int(load_reward_model(tiny_backbone, rewards["P1A"])[0].config.max_position_embeddings)
    whole, cut = differences(long, rewards, tiny_backbone), differences(long, rewards, tiny_backbone, 24)
    assert not np.allclose(whole, cut) and np.array_equal(whole, differences(long, rewards, tiny_backbone, context))
    # Short texts are read as they are.
    assert np.array_equal(differences(ROWS, rewards, tiny_backbone), differences(ROWS, rewards, tiny_backbone, 200))
