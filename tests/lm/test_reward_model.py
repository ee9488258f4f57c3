"""A reward model that is loaded and asked: its head, its batches, what of a long text it reads, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from rlphf.errors import InputError
from rlphf.lm.chat import encode_prompts, encode_responses
from rlphf.lm.reward_model import classifier, encode_texts, fit_text, load_reward_model, score

LONG = "bees and honey and rivers " * 30
QUESTIONS = [
    "Why?",
    "Do you like honey?",
    "What is important about volcanoes?",
    "Cats, please.",
    "Explain rivers to me.",
    "Bees?",
]
RESPONSES = ["Yes, yes, yes!", "No.", "I say yes!", "Oh no.", "Yes indeed!", "I like bees and honey and rain."]


@pytest.fixture(scope="module")
def reward(make_reward: Callable[..., Path]) -> Path:
    return make_reward()


def test_batches_and_their_padding_do_not_change_scores(reward: Path, tiny_backbone: Path) -> None:
    model, tokenizer = load_reward_model(tiny_backbone, reward)
    texts = encode_texts(tokenizer, QUESTIONS, RESPONSES)
    alone = score(model, texts, tokenizer.pad_token_id, batch_size=1)
    assert len({len(text) for text in texts}) > 2 and max(alone) - min(alone) > 1e-2
    for size in (2, 5, 64):
        assert score(model, texts, tokenizer.pad_token_id, batch_size=size) == pytest.approx(alone, abs=1e-4)


def test_a_model_of_another_backbone_and_what_is_none_are_refused(reward: Path, tiny_backbone: Path, tmp_path: Path) -> None:
    shutil.copytree(reward, tmp_path / "other")
    about = json.loads((tmp_path / "other" / "adapter.json").read_text())
    (tmp_path / "other" / "adapter.json").write_text(json.dumps(about | {"backbone_sha256": "another"}))
    with pytest.raises(InputError, match="other: made for another backbone"):
        load_reward_model(tiny_backbone, tmp_path / "other")
    with pytest.raises(InputError, match="nothing"):
        load_reward_model(tiny_backbone, tmp_path / "nothing")


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("config.json", r"holds no backbone \(config.json is missing\)"),
        ("tokenizer.json", "cannot be loaded as a backbone"),
        ("model.safetensors", "lacks the weights model.norm.weight; make the backbone again"),
    ],
)
def test_a_broken_backbone_is_refused_in_one_line(tiny_backbone: Path, tmp_path: Path, broken: str, message: str) -> None:
    folder = tmp_path / "backbone"
    shutil.copytree(tiny_backbone, folder)
    if broken == "model.safetensors":
        # Its place would be taken by numbers that nobody trained.
        tensors = load_file(folder / broken)
        del tensors["model.norm.weight"]
        save_file(tensors, folder / broken, {"format": "pt"})
    else:
        (folder / broken).unlink()
    with pytest.raises(InputError, match=f"^{folder}: {message}"):
        classifier(folder)


def test_its_head_computes_in_float32_under_autocast(tiny_backbone: Path) -> None:
    model, _ = classifier(tiny_backbone)
    states = torch.randn(3, model.score.in_features, generator=torch.Generator().manual_seed(1))
    plain = model.score(states)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model.score(states), plain) and plain.dtype == torch.float32


def test_a_long_text_keeps_the_end_of_its_prompt_and_the_end_token(tiny_backbone: Path) -> None:
    tokenizer = classifier(tiny_backbone)[1]
    (prompt,), (response,) = encode_prompts(tokenizer, [LONG + "Why?"]), encode_responses(tokenizer, [LONG])
    ids, cut = fit_text(tokenizer, LONG + "Why?", LONG, 40)
    assert cut and len(ids) == 40 and ids[:20] == prompt[-20:] and ids[20:] == response[:19] + response[-1:]
    ids, cut = fit_text(tokenizer, LONG + "Why?", "No.", 40)
    (short,) = encode_responses(tokenizer, ["No."])
    assert not cut and ids == prompt[-(40 - len(short)) :] + short
    assert fit_text(tokenizer, "Why?", "No.", 400) == (encode_texts(tokenizer, ["Why?"], ["No."])[0], False)
