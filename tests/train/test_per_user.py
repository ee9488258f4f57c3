"""An adapter per user is plain DPO on the user's own pairs; the pooled policy is imitation of what all users chose."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from peft import PeftModel
from safetensors.torch import load_file
from tests.users.serving import SETTINGS, chosen, gap
from torch import Tensor

from rlphf.config import parse
from rlphf.data.records import PAIRS
from rlphf.errors import InputError
from rlphf.files import read_json, read_parquet, sha256, write_parquet
from rlphf.lm.adapters import add_policy, write_policy
from rlphf.lm.backbone import load_backbone
from rlphf.preferences import GENERAL
from rlphf.seeds import derive
from rlphf.settings_users import DPO
from rlphf.tracking.record import Run, read_metrics
from rlphf.train.dpo import dpo_step
from rlphf.train.per_user import per_user_step, pooled_step, warmed_up
from rlphf.train.sft import IGNORED, examples, train_sft
from rlphf.users.records import SCORED

HELD = [row for row in chosen() if row["split"] == "test"]
WEIGHTS = "adapter_model.safetensors"


def inputs(folder: Path) -> tuple[list[Path], Path]:
    """The pairs and the backbone of a seed's folder."""
    return [folder / "users" / "pairs" / "pairs.parquet"], folder / "backbone" / "model"


def scores(folder: Path) -> dict[str, float]:
    return {row["id"]: row["own"] for row in read_parquet(folder / "scores.parquet", SCORED).to_pylist()}


@pytest.mark.parametrize("user", [1, 2])
def test_a_users_adapter_is_that_of_dpo_on_the_users_pairs_alone(seed_folder, user_models, tmp_path: Path, user: int) -> None:
    own = [row for row in chosen() if row["user"] == user]
    write_parquet(tmp_path / "pairs.parquet", pa.Table.from_pylist(own, PAIRS))
    _, backbone = inputs(seed_folder)
    dpo_step(seed_folder / "config.yaml", "dpo", [tmp_path / "pairs.parquet"], backbone, None, tmp_path / "alone")
    folder = user_models("per_user")
    assert sha256(folder / "adapters" / str(user) / WEIGHTS) == sha256(tmp_path / "alone" / "adapter" / WEIGHTS)
    alone, found = scores(tmp_path / "alone"), scores(folder)
    assert alone == {row["id"]: found[row["id"]] for row in own if row["split"] == "test"}
    assert max(map(abs, alone.values())) > 0.1


def test_who_was_not_trained_has_no_adapter_and_margins_of_0(user_models) -> None:
    folder = user_models("per_user")
    assert {path.name for path in (folder / "adapters").iterdir()} == {"1", "2"}
    assert all((folder / "adapters" / user / "README.md").exists() for user in ("1", "2"))
    found = scores(folder)
    assert list(found) == [row["id"] for row in HELD]
    assert [found[row["id"]] for row in HELD if row["user"] == 8] == [0.0, 0.0]
    assert {row["generic"] for row in read_parquet(folder / "scores.parquet", SCORED).to_pylist()} == {0.0}
    record = read_json(folder / "record.json")
    assert record["status"] == "finished" and record["tags"]["updates"] == "4" and record["tags"]["pairs"] == "12"


def test_a_second_training_leaves_no_adapter_of_the_first_and_gives_the_same_bytes(seed_folder, user_models, tmp_path) -> None:
    pairs, backbone = inputs(seed_folder)
    out = tmp_path / "out"
    shutil.copytree(user_models("per_user") / "adapters" / "1", out / "adapters" / "9")
    per_user_step(seed_folder / "config.yaml", "per_user", pairs, backbone, None, out)
    for part in ("adapters", "scores.parquet"):
        assert sha256(out / part) == sha256(user_models("per_user") / part)


def test_pairs_of_nobody_are_refused_and_leave_no_adapters(seed_folder, tmp_path: Path) -> None:
    write_parquet(tmp_path / "pairs.parquet", pa.Table.from_pylist([row | {"user": None} for row in chosen()], PAIRS))
    pairs, backbone = [tmp_path / "pairs.parquet"], inputs(seed_folder)[1]
    with pytest.raises(InputError, match="^.*pairs.parquet: no training pair names its user; fill the column user"):
        per_user_step(seed_folder / "config.yaml", "per_user", pairs, backbone, None, tmp_path / "out")
    assert not {"adapters", "scores.parquet", "checkpoints"} & {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize("damaged", [False, True])
def test_a_killed_training_goes_on_with_the_user_it_was_at(seed_folder, user_models, monkeypatch, tmp_path, damaged) -> None:
    pairs, backbone = inputs(seed_folder)
    out = tmp_path / "out"
    trained = []

    def write(policy, folder, *rest) -> None:
        if len(trained) == 1:
            raise KeyboardInterrupt
        trained.append(folder)
        write_policy(policy, folder, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("rlphf.train.per_user.write_policy", write)
        per_user_step(seed_folder / "config.yaml", "per_user", pairs, backbone, None, out)
    assert not (out / "adapters").exists()
    if damaged:
        (out / "checkpoints" / "1" / "adapter" / WEIGHTS).write_bytes(b"")
    per_user_step(seed_folder / "config.yaml", "per_user", pairs, backbone, None, out)
    for part in ("adapters", "scores.parquet"):
        assert sha256(out / part) == sha256(user_models("per_user") / part)
    assert [line["step"] for line in read_metrics(out / "metrics.jsonl")][:4] == [0, 1, 2, 3]
    assert read_json(out / "record.json").get("resumed_from") == (None if damaged else 2)
    assert not (out / "checkpoints").exists()


def test_the_pooled_policy_imitates_what_all_users_chose_told_of_no_one(seed_folder, user_models, run: Run, tmp_path) -> None:
    _, backbone = inputs(seed_folder)
    settings = parse(SETTINGS).mt
    base, tokenizer = load_backbone(backbone)
    policy = add_policy(base, settings.lora, derive(5, "lora"))
    data = examples(tokenizer, [row | {"preference": GENERAL} for row in chosen() if row["split"] == "train"], 512)
    assert train_sft(policy, tokenizer, data, settings, derive(5, "pooled"), tmp_path / "checkpoints", run) == 2
    wanted: dict[str, Tensor] = {name: p for name, p in policy.named_parameters() if p.requires_grad}
    found = load_file(user_models("pooled") / "adapter" / WEIGHTS)
    assert len(found) == len(wanted)
    for name, parameter in wanted.items():
        assert (found[name.replace(".default", "")] == parameter.detach()).all(), name


def test_the_pooled_policys_margins_are_log_ratios_to_the_backbone(seed_folder, user_models) -> None:
    folder = user_models("pooled")
    base, tokenizer = load_backbone(inputs(seed_folder)[1])
    before = [gap(base, tokenizer, row["prompt"], row) for row in HELD]
    policy = PeftModel.from_pretrained(base, folder / "adapter").eval()
    ratios = [gap(policy, tokenizer, row["prompt"], row) - gone for row, gone in zip(HELD, before, strict=True)]
    assert list(scores(folder).values()) == pytest.approx(ratios, abs=1e-3)
    assert max(map(abs, ratios)) > 0.05


def test_the_pooled_step_gives_the_same_bytes(seed_folder, user_models, tmp_path: Path) -> None:
    pairs, backbone = inputs(seed_folder)
    pooled_step(seed_folder / "config.yaml", "pooled", pairs, backbone, None, tmp_path / "out")
    for part in ("adapter", "scores.parquet"):
        assert sha256(tmp_path / "out" / part) == sha256(user_models("pooled") / part)


def test_the_pooled_policy_reads_long_texts_as_dpo_does(seed_folder, monkeypatch, tmp_path: Path) -> None:
    """A chosen response of three times the context, cut to half of dpo's length as its question is."""
    long = [row | {"prompt": row["prompt"] * 50, "chosen": "Honey is sweet. " * 400} for row in chosen() if row["user"] == 1]
    write_parquet(tmp_path / "pairs.parquet", pa.Table.from_pylist(long, PAIRS))
    (tmp_path / "config.yaml").write_text(json.dumps(SETTINGS | {"dpo": SETTINGS["dpo"] | {"max_length": 64}}))
    read = []
    monkeypatch.setattr("rlphf.train.per_user.train_sft", lambda model, tokenizer, data, *rest: read.extend(data) or 1)
    pooled_step(tmp_path / "config.yaml", "pooled", [tmp_path / "pairs.parquet"], inputs(seed_folder)[1], None, tmp_path / "out")
    assert read and {(len(row["input_ids"]), row["labels"].count(IGNORED)) for row in read} == {(64, 32)}


def test_a_warm_up_takes_half_of_a_users_own_steps_at_most() -> None:
    settings = DPO(batch_size=4, epochs=2, warmup_steps=10)
    assert warmed_up(settings, 100).warmup_steps == 10
    assert warmed_up(settings, 10).warmup_steps == 3
