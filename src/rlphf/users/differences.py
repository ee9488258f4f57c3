"""How far reward models tell the responses of pairs apart: one backbone in memory, an adapter and a head per preference."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlphf.errors import InputError
from rlphf.lm.backbone import backbone_sha256
from rlphf.preferences import alone, instruction
from rlphf.soup.adapter import ABOUT, read_about
from rlphf.train.reward import encode_texts, load_reward_model, score, text_limit
from rlphf.users.weights import Floats


def check_rewards(rewards: Mapping[str, Path], backbone: Path) -> None:
    """Raise InputError unless `rewards`, {preference: adapter folder}, are these preferences' reward models on `backbone`."""
    digest = backbone_sha256(backbone)
    for name, folder in rewards.items():
        if not folder.is_dir():
            raise InputError(f"{folder}: there is no such adapter folder; train the reward model of {name}, or correct the path")
        about = read_about(folder)
        if about.get("kind") != "reward" or about.get("preference") != name:
            found = f"kind {about.get('kind')!r} of {about.get('preference')!r}"
            raise InputError(f"{folder / ABOUT}: expected the reward model of {name}, got {found}; correct the path")
        if about.get("backbone_sha256") != digest:
            raise InputError(f"{folder}: trained on another backbone; train it again on this one")


def differences(
    rows: Sequence[Mapping[str, Any]], rewards: Mapping[str, Path], backbone: Path, max_length: int | None = None
) -> Floats:
    """Return each reward model's score of the chosen response less that of the rejected one, (n, P), one column per preference.

    `rows` have texts prompt, chosen and rejected, as those of PAIRS do; `rewards` is {preference: adapter folder}, and
    `max_length` that of the texts that they were trained on. A model reads the question as it was trained to, asked for its own
    preference and cut alike, and each distinct text once. Raises InputError as `check_rewards` does.
    """
    check_rewards(rewards, backbone)
    found = np.zeros((len(rows), len(rewards)))
    if not len(rows):
        return found
    pairs = [tuple((row["prompt"], row[answer]) for answer in ("chosen", "rejected")) for row in rows]
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    place = {text: i for i, text in enumerate(texts)}
    chosen, rejected = (np.array([place[pair[k]] for pair in pairs]) for k in (0, 1))
    model, tokenizer = load_reward_model(backbone, next(iter(rewards.values())))
    for column, (name, folder) in enumerate(rewards.items()):
        if column:
            model.load_adapter(folder, adapter_name=name, use_safetensors=True)
            model.set_adapter(name)
        questions = [instruction(prompt, alone(name)) for prompt, _ in texts]
        encoded = encode_texts(tokenizer, questions, [response for _, response in texts], text_limit(model, max_length))
        scores = np.array(score(model, encoded, tokenizer.pad_token_id))
        found[:, column] = scores[chosen] - scores[rejected]
    return found
