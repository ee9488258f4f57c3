"""Soups of users: what each weighs and is asked for, how they order pairs, and that plain PEFT loads them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from peft import PeftModel
from tests.users.serving import NAMES, PEOPLE, chosen, person

from rlphf.cli import main
from rlphf.config import Experiment
from rlphf.data.people import MAJORITY, UNSEEN
from rlphf.data.records import PAIRS
from rlphf.errors import InputError
from rlphf.files import read_parquet, sha256, write_parquet
from rlphf.lm.backbone import load_backbone
from rlphf.preferences import PREFERENCES
from rlphf.seeds import derive
from rlphf.settings_run import Mistakes
from rlphf.settings_soup import Soup
from rlphf.soup.recipe import read_recipe
from rlphf.testbed.users import USERS
from rlphf.users import weights as w
from rlphf.users.differences import differences
from rlphf.users.fit_soup import recipe_of
from rlphf.users.records import SCORED, TEXTS
from rlphf.users.soups import DECLARED, INFERRED, declared, inferred, user_soups_step

HELD = [row for row in chosen() if row["split"] == "test"]
KINDS = (DECLARED, INFERRED)


@pytest.fixture
def inputs(seed_folder: Path, monkeypatch) -> tuple[Path, Path, Path, Path, Path]:
    """Configuration, users, pairs, backbone and the seed's folder, which is the working directory."""
    monkeypatch.chdir(seed_folder)
    pairs = seed_folder / "users" / "pairs"
    backbone = seed_folder / "backbone" / "model"
    return seed_folder / "config.yaml", pairs / "users.parquet", pairs / "pairs.parquet", backbone, seed_folder


@pytest.fixture
def soups(inputs, seed_folder: Path) -> Path:
    """The folder of all users' soups of both kinds."""
    out = seed_folder / "users" / "soups"
    if not out.exists():
        user_soups_step(*inputs, out)
    return out


def told(folder: Path) -> dict[int, str]:
    return {row["id"]: row["text"] for row in read_parquet(folder / "asked.parquet", TEXTS).to_pylist()}


# What is wanted.


def experiment(**settings) -> Experiment:
    return Experiment(experiment="test", preferences=NAMES, combination_preferences=NAMES, **settings)


def test_a_declared_combination_weighs_its_preferences_alike() -> None:
    wanted = declared("P1B-P3A", experiment())
    assert wanted.recipe == {"P1B": 0.5, "P3A": 0.5} and wanted.asked == ["P1B", "P3A"]
    assert wanted.weights.tolist() == [0, 0.5, 0.5]
    assert wanted.text == f"{PREFERENCES['P1B'].prompt} {PREFERENCES['P3A'].prompt}"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("bees", "preference 'bees' is unknown"),
        ("P1A-P1B", "combination 'P1A-P1B' has two preferences of the axis 'expertise'; choose one"),
        ("P1A-P2A", "kind 'P1A-P2A': P2A is not among preferences, so it has no policy; add it"),
    ],
)
def test_a_kind_that_is_no_combination_of_the_preferences_is_refused(kind: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        declared(kind, experiment())


def test_a_declared_soup_is_the_combinations_own(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = experiment(soup=Soup(weights={"P1B": 0.7}), mistakes=Mistakes(factor_merge=True))
    wanted = declared("P1B-P3A", told)
    assert wanted.recipe == {"P1B": 0.7, "P3A": 0.5} and wanted.weights.tolist() == [0, 0.7, 0.5]
    rules = [recipe_of(own, tmp_path, wanted.recipe).rule for own in (told, experiment())]
    assert rules == ["factor", "delta"]


def test_without_pairs_the_inferred_soup_is_even_over_all_preferences_and_asked_for_nothing() -> None:
    wanted = inferred(np.zeros((0, 3)), NAMES, prior=0.5, seed=1)
    assert wanted.recipe == pytest.approx(dict.fromkeys(NAMES, 1 / 3), abs=0.01)
    assert wanted.asked == [] and wanted.text == "" and wanted.weights.tolist() == [1 / 3] * 3


def test_who_always_chooses_by_one_preference_gets_a_soup_that_leans_to_it() -> None:
    wanted = inferred(np.array([[4.0, -4.0, 0.0]] * 12), NAMES, prior=0.5, seed=1)
    assert wanted.recipe["P1A"] > 0.5 > wanted.recipe["P3A"] > wanted.recipe.get("P1B", 0.0)
    assert wanted.asked == ["P1A"] and wanted.weights[0] > wanted.weights[2] > wanted.weights[1]


# The step.


def test_every_user_has_a_soup_of_each_kind_that_plain_peft_loads(soups: Path, inputs) -> None:
    people = {row["id"]: row for row in PEOPLE}
    tokens = torch.arange(3, 11)[None]
    for kind in KINDS:
        assert {path.name for path in (soups / kind).iterdir() if path.is_dir()} == {str(user) for user in people}
        assert list(told(soups / kind)) == list(people)
    for user, row in people.items():
        recipe = read_recipe(soups / DECLARED / str(user) / "recipe.yaml")
        ids = row["kind"].split("-")
        assert recipe.weights == dict.fromkeys(ids, 1 / len(ids))
        assert recipe.paths == {name: f"ppo/{name}/adapter" for name in ids}
        assert told(soups / DECLARED)[user] == " ".join(PREFERENCES[name].prompt for name in ids)
    base, _ = load_backbone(inputs[3])
    with torch.no_grad():
        plain = base(tokens).logits
        soup = PeftModel.from_pretrained(base, soups / INFERRED / "2")
        assert (soup(tokens).logits - plain).abs().max() > 1e-3


def test_weights_are_inferred_from_a_users_first_training_pairs_and_tell_the_held_out_ones(soups: Path, inputs) -> None:
    *_, backbone, folder = inputs
    rewards = {name: folder / "reward" / name / "adapter" for name in NAMES}
    found = {}
    for user in (row["id"] for row in PEOPLE):
        own = [row for row in chosen() if row["user"] == user and row["split"] == "train"][:4]
        posterior = w.fit(differences(own, rewards, backbone), NAMES, 0.5)
        draws = posterior.draws(w.DRAWS, derive(5, "user soups", user))
        weights = read_recipe(soups / INFERRED / str(user) / "recipe.yaml").weights
        assert weights == pytest.approx(w.recipe_weights(posterior, draws), abs=1e-3)
        found[user] = posterior.mean
    # Users who chose nothing weigh all alike; of users 1 and 2 one wants what the other does not.
    assert found[3].tolist() == found[8].tolist() == [1 / 3] * 3 and not np.allclose(found[1], found[2], atol=0.01)
    everyone = (found[1] + found[2] + found[3]) / 3
    of_held = differences(HELD, rewards, backbone)
    rows = read_parquet(soups / INFERRED / "scores.parquet", SCORED).to_pylist()
    assert [row["id"] for row in rows] == [row["id"] for row in HELD]
    for row, d in zip(rows, of_held, strict=True):
        assert row["own"] == pytest.approx(sum(found[row["user"]] * d), abs=1e-2)
        assert row["generic"] == pytest.approx(sum(everyone * d), abs=1e-2)


def test_declared_weights_tell_pairs_by_the_differences_of_the_preferences_that_are_named(soups: Path, inputs) -> None:
    *_, backbone, folder = inputs
    of_held = differences(HELD, {name: folder / "reward" / name / "adapter" for name in NAMES}, backbone)
    for row, d in zip(read_parquet(soups / DECLARED / "scores.parquet", SCORED).to_pylist(), of_held, strict=True):
        first = {1: 0, 2: 1, 8: 1}[row["user"]]
        assert row["own"] == pytest.approx((d[first] + d[2]) / 2, abs=1e-3)
        # Of the users who were seen, two want P1A and one P1B.
        assert row["generic"] == pytest.approx((2 * d[0] + d[1] + 3 * d[2]) / 6, abs=1e-3)


def test_a_second_start_leaves_no_soup_of_the_first_and_gives_the_same_bytes(soups: Path, inputs, tmp_path: Path) -> None:
    shutil.copytree(soups / DECLARED / "1", tmp_path / DECLARED / "99")
    user_soups_step(*inputs, tmp_path)
    assert all(sha256(tmp_path / kind) == sha256(soups / kind) for kind in KINDS)
    record = json.loads((soups / "record.json").read_text())
    assert record["status"] == "finished" and len(record["outputs"]) == 2
    assert record["inputs"].keys() >= {"users", "pairs", "backbone", "reward/P1A", "ppo/P3A"}


def test_users_and_pairs_that_do_not_fit_end_in_one_line(inputs, tmp_path: Path, capsys) -> None:
    config, users, pairs, backbone, folder = map(str, inputs)
    write_parquet(
        tmp_path / "users.parquet", pa.Table.from_pylist([person(1, MAJORITY, P1A=1.0), person(7, UNSEEN, P2A=1.0)], USERS)
    )
    stranger = chosen()[0] | {"user": 7}
    write_parquet(tmp_path / "pairs.parquet", pa.Table.from_pylist([stranger], PAIRS))
    for options, message in (
        (["--users", str(tmp_path / "users.parquet"), "--pairs", pairs], "kind 'P2A': P2A is not among preferences"),
        (["--users", users, "--pairs", str(tmp_path / "pairs.parquet")], f"pair {stranger['id']}: user 7 is not among the users"),
    ):
        command = ["users", "soups", "--config", config, *options, "--backbone", backbone, "--models", folder]
        assert main([*command, "--out", str(tmp_path / "out")]) == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
        assert {path.name for path in (tmp_path / "out").iterdir() if path.name[0] != "."} == {"record.json", "metrics.jsonl"}
