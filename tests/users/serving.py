"""A small run about users, for the tests of what serves them: who they are, what they chose, and models of three preferences."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import torch
import yaml
from tests.train.choosing import BAD, GOOD, TOPICS, opposite, row
from torch import Tensor

from rlphf.data.people import MAJORITY, MINORITY, UNSEEN
from rlphf.data.records import PAIRS, PROMPTS
from rlphf.files import read_json, write_json, write_parquet
from rlphf.lm.adapters import add_policy, write_policy
from rlphf.lm.backbone import backbone_sha256, load_backbone
from rlphf.lm.chat import decode_response, encode_prompts, encode_responses
from rlphf.preferences import PREFERENCES
from rlphf.settings import Lora
from rlphf.settings import Testbed as Language
from rlphf.testbed.prompts import prompts
from rlphf.testbed.users import USERS

NAMES = ["P1A", "P1B", "P3A"]
LENGTH = 6
SETTINGS = {
    "experiment": "test",
    "seed": 5,
    "preferences": NAMES,
    "combination_preferences": NAMES,
    "users": {"tokens": 2, "clusters": 2, "start": "generic", "text_place": "before"},
    "dpo": {
        **{"alpha": 0.5, "beta": 0.5, "epochs": 2, "batch_size": 6, "warmup_steps": 0},
        **{"learning_rate": 0.02, "user_learning_rate": 0.2},
        "lora": {"rank": 4, "targets": ["q_proj", "v_proj", "up_proj", "down_proj"]},
    },
    "prm": {"epochs": 1, "batch_size": 12},
    "mt": {"epochs": 1, "batch_size": 6, "learning_rate": 0.01, "warmup_steps": 0, "lora": {"rank": 4, "dropout": 0.0}},
    "cold_start": {"pairs": [0, 3], "steps": 5, "learning_rate": 0.5},
    "user_evaluation": {"prompts": 2, "history": 2, "inferred_from": 4},
    "evaluation": {"bootstrap": 50, "samples": 2, "decoding": {"temperature": 0.0, "max_new_tokens": LENGTH}},
}


def person(number: int, group: str, text: str = "", **weights: float) -> dict:
    """A row of USERS, whose kind is the combination of the preferences that weigh something."""
    about = {"id": number, "group": group, "kind": "-".join(weights), "text": text, "cluster": 0}
    return about | {name: weights.get(name, 0.0) for name in PREFERENCES}


# Users 1, who says yes to everything, and 2, who says no, were trained on; 3 chose nothing, and 8 and 9 are new.
PEOPLE = [
    person(1, MAJORITY, "Always say yes.", P1A=0.6, P3A=0.4),
    person(2, MINORITY, "Never say yes.", P1B=0.7, P3A=0.3),
    person(3, MAJORITY, "", P1A=0.5, P3A=0.5),
    person(8, UNSEEN, "I am new.", P1B=0.5, P3A=0.5),
    person(9, UNSEEN, "So am I.", P1A=1.0),
]


def chosen() -> list[dict]:
    """What users 1 and 2 chose for training, and what they and user 8 chose among test prompts."""
    once = [r for r in opposite() if int(r["id"]) % 3 != 1]
    rows = [r for r in once if r["split"] == "test" or "??" not in r["prompt"]]
    return [*rows, *(row(900 + k, f"Are you fond of {TOPICS[k]}?", BAD[k], GOOD[k], 8, "test") for k in range(2))]


def new() -> list[dict]:
    """What the new users chose to be known by: user 8 says no four times, and user 9 yes once."""
    rows = [row(800 + k, f"Is it {TOPICS[k]}?", BAD[k % 3], GOOD[k % 3], 8) for k in range(4)]
    return [*rows, row(850, "Is it salt?", GOOD[0], BAD[0], 9)]


def questions() -> list[dict]:
    """Prompts of the testbed: two for training and five to answer."""
    rows = prompts(Language(), seed=1).to_pylist()
    return [row for split, count in (("train", 2), ("test", 5)) for row in [r for r in rows if r["split"] == split][:count]]


def write_run(folder: Path, tiny: Path, make_reward: Callable[..., Path]) -> Path:
    """Write users, pairs, prompts and a backbone, and reward models and policies of three preferences, as a seed's folder.

    The backbone has larger weights than the `tiny` one, whose likeliest token is the one before.
    """
    (folder / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    tables = {"users": (PEOPLE, USERS), "pairs": (chosen(), PAIRS), "new_pairs": (new(), PAIRS)}
    for name, (rows, schema) in tables.items():
        write_parquet(folder / "users" / "pairs" / f"{name}.parquet", pa.Table.from_pylist(rows, schema))
    write_parquet(folder / "prompts" / "prompts.parquet", pa.Table.from_pylist(questions(), PROMPTS))
    backbone = folder / "backbone" / "model"
    base, tokenizer = load_backbone(tiny)
    for name, parameter in base.named_parameters():
        if "_proj" in name:
            parameter.mul_(4)
    base.save_pretrained(backbone)
    tokenizer.save_pretrained(backbone)
    digest = {"backbone_sha256": backbone_sha256(backbone)}
    for seed, name in enumerate(NAMES):
        reward = folder / "reward" / name / "adapter"
        shutil.copytree(make_reward(seed=seed, preference=name), reward)
        write_json(reward / "adapter.json", read_json(reward / "adapter.json") | digest)
        policy = add_policy(load_backbone(backbone)[0], Lora(rank=2, alpha=4), seed=1)
        torch.manual_seed(seed)
        for key, parameter in policy.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.3)
        write_policy(policy, folder / "ppo" / name / "adapter", str(backbone), {"preference": name, **digest})
    return folder


# What models say, by one pass of the whole model on one text after the other.


def gap(model, tokenizer, prompt: str, pair: dict) -> float:
    """Log-probability of the pair's chosen response behind a prompt, less that of the rejected one."""
    (before,), found = encode_prompts(tokenizer, [prompt]), []
    for answer in encode_responses(tokenizer, [pair["chosen"], pair["rejected"]]):
        with torch.no_grad():
            logits = model(torch.tensor([before + answer])).logits[0].log_softmax(-1)
        found.append(sum(float(logits[len(before) - 1 + t, token]) for t, token in enumerate(answer)))
    return found[0] - found[1]


def greedy(model, tokenizer, prompt: str, soft: Tensor | None = None) -> str:
    """The likeliest next token, LENGTH times or up to the end token, behind soft tokens (T, H) and a prompt."""
    table = model.get_input_embeddings().weight
    (ids,) = encode_prompts(tokenizer, [prompt])
    found: list[int] = []
    while len(found) < LENGTH and tokenizer.eos_token_id not in found:
        embedded = table[ids + found] if soft is None else torch.cat([soft, table[ids + found]])
        with torch.no_grad():
            found.append(int(model(inputs_embeds=embedded[None]).logits[0, -1].argmax()))
    return decode_response(tokenizer, found)[0]
