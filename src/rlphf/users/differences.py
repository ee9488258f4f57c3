"""How far reward models tell the responses of pairs apart: one backbone in memory, an adapter and a head per preference."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlphf.lm.backbone import backbone_sha256
from rlphf.lm.reward_model import encode_texts, load_reward_model, score, text_limit
from rlphf.lm.rewards import check_rewards
from rlphf.preferences import alone, instruction
from rlphf.users.weights import Floats


def differences(
    rows: Sequence[Mapping[str, Any]], rewards: Mapping[str, Path], backbone: Path, max_length: int | None = None
) -> Floats:
    """Return each reward model's score of the chosen response less that of the rejected one, (n, P), one column per preference.

    `rows` have texts prompt, chosen and rejected, as those of PAIRS do; `rewards` is {preference: adapter folder}, and
    `max_length` that of the texts that they were trained on. A model reads the question as it was trained to, asked for its own
    preference and cut alike, and each distinct text once. Raises InputError as `check_rewards` does.
    """
    check_rewards(rewards.items(), backbone_sha256(backbone))
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
