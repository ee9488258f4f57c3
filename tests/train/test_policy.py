"""The step that trains a policy, by either algorithm."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from rlphf.data.records import PROMPTS
from rlphf.errors import InputError
from rlphf.files import CARD, read_json, sha256, write_parquet
from rlphf.lm.backbone import backbone_sha256, load_backbone
from rlphf.preferences import instruction
from rlphf.train.policy import joint_instructions, policy_step, training_instructions

CONFIG = """
experiment: test
pmorl: {{updates: 2}}
ppo: {{algorithm: {algorithm}, updates: 4, batch_size: 8, mini_batch_size: 4, inner_epochs: 1, learning_rate: {rate},
  max_new_tokens: 4, checkpoint_every: 2, sample_every: 1, asked: {asked}, lora: {{rank: 4, dropout: 0.0}}}}
"""


@pytest.fixture
def train(tiny_backbone: Path, make_reward: Callable[..., Path], tmp_path: Path) -> Callable[..., Path]:
    """Run the step of a preference; return its folder."""
    for name in ("P1A", "P3B", "pmorl", "selector"):
        shutil.copytree(make_reward(preference=name), tmp_path / "reward" / name)
    rows = [
        {"id": f"{i}", "prompt": f"What is {t}?", "topic": t, "source": "testbed"}
        for i, t in enumerate(["honey", "rain", "salt"])
    ]
    splits = [row | {"split": split} for row, split in zip(rows, ["train", "train", "test"], strict=True)]
    write_parquet(tmp_path / "prompts.parquet", pa.Table.from_pylist(splits, PROMPTS))
    write_parquet(tmp_path / "held_out.parquet", pa.Table.from_pylist(splits[2:], PROMPTS))

    def step(
        preference: str = "P1A",
        algorithm: str = "ppo",
        rate: float = 0.01,
        asked: tuple[int, int, int] = (0, 1, 0),
        prompts: str = "prompts",
        out: str | None = None,
    ) -> Path:
        config = tmp_path / "config.yaml"
        config.write_text(CONFIG.format(algorithm=algorithm, rate=rate, asked=list(asked)))
        folder = tmp_path / (out or f"{preference}-{algorithm}")
        rewards = [tmp_path / "reward" / preference]
        policy_step(config, [preference], tmp_path / f"{prompts}.parquet", tiny_backbone, rewards, [folder])
        return folder

    return step


@pytest.mark.parametrize("algorithm", ["ppo", "rloo"])
def test_it_writes_an_adapter_for_plain_peft_and_the_record_of_it(train, tiny_backbone: Path, algorithm: str) -> None:
    folder = train(algorithm=algorithm)
    base, _ = load_backbone(tiny_backbone)
    tokens = torch.tensor([[2, 40, 41, 3]])
    with torch.no_grad():
        before = base(tokens).logits
        assert not torch.equal(PeftModel.from_pretrained(base, folder / "adapter")(tokens).logits, before)
    about = read_json(folder / "adapter" / "adapter.json")
    assert (
        about["kind"] == "policy" and about["preference"] == "P1A" and about["backbone_sha256"] == backbone_sha256(tiny_backbone)
    )
    card = (folder / "adapter" / CARD).read_text()
    assert "P1A (policy)" in card and "| `score` |" in card and "| `kl` |" in card and str(tiny_backbone.parent) not in card
    record = read_json(folder / "record.json")
    assert record["status"] == "finished" and record["tags"]["updates"] == "4" and record["tags"]["algorithm"] == algorithm


def test_adapters_of_all_preferences_and_algorithms_start_from_one_initialisation_of_a(train) -> None:
    folders = [train("P1A"), train("P3B"), train("P1A", "rloo")]
    assert len({read_json(f / "adapter" / "adapter.json")["lora_a_sha256"] for f in folders}) == 1
    assert len({sha256(f / "adapter" / "adapter_model.safetensors") for f in folders}) == 3


def test_the_same_step_gives_the_same_bytes(train) -> None:
    for algorithm in ("ppo", "rloo"):
        one, other = train(algorithm=algorithm, out="one"), train(algorithm=algorithm, out="other")
        assert sha256(one / "adapter") == sha256(other / "adapter")


def test_only_training_prompts_are_used_with_the_preferences_prompt_if_asked(train) -> None:
    for asked in ((1, 0, 0), (0, 1, 0)):
        folder = train(asked=asked, out=f"asked-{asked[1]}")
        prompts = {json.loads(line)["prompt"] for line in (folder / "samples.jsonl").read_text().splitlines()}
        own = " Generate a response that can be easily understood by an elementary school student." if asked[1] else ""
        assert prompts == {f"What is honey?{own}", f"What is rain?{own}"}


def test_prompts_come_by_the_weights_and_the_reward_model_sees_the_one_preference_it_knows() -> None:
    wanted = training_instructions(["Why?", "How?"], "P2A", (1, 2, 3), seed=1)
    own = {question: instruction(question, ["P2A"]) for question in ("Why?", "How?")}
    assert [judged for _, judged in wanted] == [[own["Why?"]]] * 6 + [[own["How?"]]] * 6
    for question, forms in (("Why?", wanted[:6]), ("How?", wanted[6:])):
        nothing, alone, other_alone, *mixed = (policy for policy, _ in forms)
        assert nothing == question and alone == other_alone == own[question]
        whole = {instruction(question, [a, "P2A", b]) for a in ("P1A", "P1B") for b in ("P3A", "P3B", "P3C", "P3D")}
        assert set(mixed) <= whole and len(set(mixed)) > 1


def test_general_asks_for_nothing() -> None:
    assert training_instructions(["Why?"], "general", (1, 1, 1), seed=1) == [("Why?", ["Why?"])] * 3


def test_pmorl_is_asked_for_every_combination_and_judged_by_each_of_its_preferences() -> None:
    wanted = joint_instructions(["Why?", "How?"], ["P1A-P2A", "P1A-P2B"])
    assert [asked for asked, _ in wanted] == [
        instruction(q, ids) for q in ("Why?", "How?") for ids in (["P1A", "P2A"], ["P1A", "P2B"])
    ]
    assert wanted[1][1] == [instruction("Why?", ["P1A"]), instruction("Why?", ["P2B"])]


def test_pmorl_trains_one_policy_for_its_own_number_of_updates(train) -> None:
    folder = train("pmorl")
    assert read_json(folder / "record.json")["tags"]["updates"] == "2"
    prompts = [json.loads(line)["prompt"] for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert prompts and all(prompt.count("Generate a response") == 3 for prompt in prompts)


@pytest.mark.parametrize(("algorithm", "split"), [("ppo", "train"), ("rloo", "train"), ("ppo", "validation")])
def test_a_prompt_that_leaves_no_room_for_a_response_is_refused_before_anything_is_trained(
    train, tiny_backbone: Path, tmp_path: Path, algorithm: str, split: str
) -> None:
    asked = {"train": "Rain?", "validation": "Rain?"} | {split: "Tell me of bees. " * 200}
    rows = [{"id": name, "prompt": text, "topic": None, "source": "own", "split": name} for name, text in asked.items()]
    write_parquet(tmp_path / "prompts.parquet", pa.Table.from_pylist(rows, PROMPTS))
    config = CONFIG.format(algorithm=algorithm, rate=0.01, asked=[0, 1, 0])
    (tmp_path / "config.yaml").write_text(
        config.replace("updates: 4", "updates: 4, keep: best") if split == "validation" else config
    )
    files = (tmp_path / "prompts.parquet", tiny_backbone)
    with pytest.raises(
        InputError, match=r"^'Tell me of bees\. .*': has \d+ tokens, and beside a response of 4 the context has room for 508"
    ):
        policy_step(tmp_path / "config.yaml", ["P1A"], *files, [tmp_path / "reward" / "P1A"], [tmp_path / "out"])
    assert not (tmp_path / "out" / "adapter").exists()


def test_no_training_prompts_is_an_error_in_one_line(train, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="held_out.parquet: the split 'train' is empty"):
        train(prompts="held_out", out="out")
    assert not (tmp_path / "out" / "adapter").exists()


@pytest.mark.parametrize("algorithm", ["ppo", "rloo"])
def test_a_changed_setting_trains_anew_in_the_same_folder(train, algorithm: str) -> None:
    one = load_file(train(algorithm=algorithm, rate=0.01, out="out") / "adapter" / "adapter_model.safetensors")
    two = load_file(train(algorithm=algorithm, rate=0.001, out="out") / "adapter" / "adapter_model.safetensors")
    new = load_file(train(algorithm=algorithm, rate=0.001, out="new") / "adapter" / "adapter_model.safetensors")
    assert not all(torch.equal(value, two[name]) for name, value in one.items())
    assert all(torch.equal(value, two[name]) for name, value in new.items())


def test_policies_that_train_together_are_what_they_are_alone(train, tiny_backbone: Path, tmp_path: Path) -> None:
    names = ["P1A", "P3B"]
    alone = [train(name) for name in names]
    out = [tmp_path / "together" / name for name in names]
    rewards = [tmp_path / "reward" / name for name in names]
    policy_step(tmp_path / "config.yaml", names, tmp_path / "prompts.parquet", tiny_backbone, rewards, out)
    for one, other in zip(alone, out, strict=True):
        about = [read_json(folder / "adapter" / "adapter.json") for folder in (one, other)]
        assert about[0] == about[1]
        states = [load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, other)]
        assert all(torch.allclose(value, states[1][name], atol=1e-3) for name, value in states[0].items())
        assert read_json(other / "record.json")["tags"]["together"] == "P1A P3B"
    assert not (out[0] / "checkpoints").exists()


def test_what_cannot_train_together_is_refused_in_one_line(train, tiny_backbone: Path, tmp_path: Path) -> None:
    train()
    files = (tmp_path / "prompts.parquet", tiny_backbone)
    both = [tmp_path / "refused" / name for name in ("one", "other")]
    for names, rewards, out, message in (
        (["P1A", "P3B"], ["P1A"], both, "^--preference, --reward, --out: 2, 1, 2 given"),
        (["P1A", "pmorl"], ["P1A", "pmorl"], both, "^--preference P1A pmorl: only policies of single preferences"),
        (["P1A", "P3B"], ["P1A", "P3B"], [both[0], both[1] / ".." / "one"], "^--out: .* names a folder twice"),
    ):
        with pytest.raises(InputError, match=message):
            policy_step(tmp_path / "config.yaml", names, *files, [tmp_path / "reward" / name for name in rewards], out)
        assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize(
    ("reward", "selector", "wanted", "found"), [("P3B", "selector", "P1A", "P3B"), ("P1A", "P1A", "selector", "P1A")]
)
def test_another_preferences_reward_model_is_refused(
    train, tiny_backbone: Path, tmp_path: Path, reward: str, selector: str, wanted: str, found: str
) -> None:
    (tmp_path / "config.yaml").write_text("{experiment: test, ppo: {keep: best, keep_by: gold}}")
    held = [
        {"id": str(i), "prompt": "Rain?", "topic": None, "source": "own", "split": s}
        for i, s in enumerate(("train", "validation"))
    ]
    write_parquet(tmp_path / "prompts.parquet", pa.Table.from_pylist(held, PROMPTS))
    folder, out = tmp_path / "reward", tmp_path / "refused"
    with pytest.raises(InputError, match=f"expected the reward model of {wanted}, got kind 'reward' of '{found}'"):
        files = (tmp_path / "prompts.parquet", tiny_backbone)
        policy_step(tmp_path / "config.yaml", ["P1A"], *files, [folder / reward], [out], folder / selector)
    assert not (out / "adapter").exists()


def ruled(algorithm: str) -> str:
    """The same configuration with text rules in the place of reward models."""
    config = CONFIG.format(algorithm=algorithm, rate=0.01, asked=[0, 1, 0]).replace("ppo: {", "ppo: {reward: rule, ")
    return config + "preferences: [P1A, P1B, P2A, P2B, P3A, P3B]\nuser_evaluation: {methods: []}\n"


@pytest.mark.parametrize("algorithm", ["ppo", "rloo"])
def test_a_text_rule_rewards_a_policy_without_a_reward_model(train, tiny_backbone: Path, tmp_path: Path, algorithm: str) -> None:
    (tmp_path / "ruled.yaml").write_text(ruled(algorithm))
    files = (tmp_path / "prompts.parquet", tiny_backbone)
    policy_step(tmp_path / "ruled.yaml", ["P2A"], *files, None, [tmp_path / "ruled"])
    samples = [json.loads(line) for line in (tmp_path / "ruled" / "samples.jsonl").read_text().splitlines()]
    assert samples and all(sample["score"] == -len(sample["response"].split()) for sample in samples)
    assert set(read_json(tmp_path / "ruled" / "record.json")["inputs"]) == {"prompts", "backbone"}
    with pytest.raises(InputError, match="^--preference, --reward, --out: 1, 1, 1 given; ppo.reward is rule: give no --reward"):
        policy_step(tmp_path / "ruled.yaml", ["P2A"], *files, [tmp_path / "reward" / "P1A"], [tmp_path / "refused"])


def test_a_text_rule_reads_the_response_also_where_reward_models_are_kept_from_it(
    train, tiny_backbone: Path, tmp_path: Path
) -> None:
    out = []
    for name, mistakes in (("without", ""), ("with", "mistakes: {reward_without_response: true}\n")):
        (tmp_path / f"{name}.yaml").write_text(ruled("ppo") + mistakes)
        out.append(tmp_path / name)
        policy_step(tmp_path / f"{name}.yaml", ["P2A"], tmp_path / "prompts.parquet", tiny_backbone, None, [out[-1]])
    assert len({sha256(folder / "adapter" / "adapter_model.safetensors") for folder in out}) == 1
