"""Model cards: read by the hub's own library, the same bytes for the same step, and silent about what is measured later."""

import os
from pathlib import Path

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from safetensors.torch import save_file

from rlphf.cards import CARD, adapter_card, card_data, joined_card, relative, soup_card, split_card
from rlphf.config import parse
from rlphf.files import sha256, write_json
from rlphf.preferences import preference
from rlphf.soup.merge import save_soup
from rlphf.soup.recipe import make_recipe
from rlphf.tracking.record import step

BACKBONE = "results/demo/seed-1/backbone/model"
WEIGHTS = "adapter_model.safetensors"
MODULE = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(folder: str, kind: str = "reward", name: str = "P1A", **settings: object) -> str:
    """Return the card of an adapter that a step in `folder` writes, and leave it there."""
    experiment = parse({"experiment": "demo", "seed": 1, **settings})
    Path("pairs.txt").write_text("pairs")
    with step("reward", folder, experiment, experiment.reward, {"P1A/pairs.parquet": Path("pairs.txt").absolute()}) as run:
        run.log({"train_accuracy": 0.9, "other": 5.0, "kl": 2.0})
        run.log({"train_accuracy": 0.95, "test_accuracy": 0.75})
        about = {"kind": kind, "preference": name, "backbone_sha256": "b" * 64}
        text = adapter_card(run, experiment, about, BACKBONE)
    Path(folder, CARD).write_text(text)
    return text


def adapter(folder: str, name: str, **settings: object) -> str:
    """Write a policy with its card; return its folder."""
    written(folder, "policy", name, **settings)
    save_file({f"{MODULE}.lora_A.weight": torch.ones(2, 4), f"{MODULE}.lora_B.weight": torch.ones(4, 2)}, f"{folder}/{WEIGHTS}")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "base_model_name_or_path": BACKBONE, "target_modules": ["q_proj"]}
    write_json(f"{folder}/adapter_config.json", config)
    write_json(f"{folder}/adapter.json", {"kind": "policy", "backbone_sha256": "b" * 64})
    return folder


@pytest.mark.parametrize("kind", ["policy", "reward"])
@pytest.mark.parametrize("name", ["P1A", "general", "pmorl", "mt", "gold", "selector", "users", "raw-helpful"])
def test_the_hubs_library_reads_the_card(kind, name):
    written("here", kind, name)
    card = ModelCard.load(f"here/{CARD}")
    assert card.data.base_model == BACKBONE and card.data.library_name == "peft" and card.data.license == "apache-2.0"
    assert card.data.tags == ["lora", "rlphf", kind, name]
    assert card.data.pipeline_tag == {"policy": "text-generation", "reward": "text-classification"}[kind]
    assert f"# {name} ({kind})" in card.text


def test_a_card_says_what_it_is_what_from_and_how_well():
    text = written("here")
    assert "easily understood by an elementary school student" in text and "b" * 64 in text
    assert f"| `P1A/pairs.parquet` | `{sha256('pairs.txt')}` |" in text
    assert "| `train_accuracy` | 0.95 |" in text and "| `test_accuracy` | 0.75 |" in text
    assert "| `test_accuracy` | 0.75 | share of test pairs" in text and "other" not in text and "`kl`" not in text
    settings = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    assert settings["epochs"] == 1 and settings["lora"]["rank"] == 8


def test_a_card_warns_of_what_loading_it_leaves_out():
    assert "generated language" in written("here") and "soft tokens" not in written("here")
    assert "## Limits" not in written("other", backbone={"source": "path", "name": "x"})
    experiment = parse({"experiment": "demo", "seed": 1})
    params = {"users": {"model": "individual"}}
    with step("dpo", "users", experiment, params, {}, {"model": "both"}) as run:
        text = adapter_card(run, experiment, {"preference": "users"}, BACKBONE)
    assert "# users (policy, both)\n" in text and "soft tokens of its users" in text


def test_a_soup_is_asked_for_one_preference_of_each_axis():
    paths = {name: adapter(name.lower(), name) for name in ("P1A", "P1B", "P2A")}
    save_soup("soup", make_recipe({"P1A": 0.1, "P1B": 0.5, "P2A": 0.4}, paths))
    text = Path("soup", CARD).read_text()
    assert [preference(name).prompt in text for name in paths] == [False, True, True]


def test_equal_steps_write_equal_cards_without_a_path_of_this_machine():
    assert written("one") == written("two")
    assert os.getcwd() not in written("one")


@pytest.mark.parametrize(
    "settings",
    [
        {"backbone": {"source": "path", "name": "x"}},
        {"data": {"sources": [{"kind": "table", "path": "x.csv", "preference": "P1A"}]}},
        {"user_data": {"source": "persona", "path": "x"}, "user_evaluation": {"methods": []}},
    ],
)
def test_what_was_not_made_here_is_not_given_this_projects_licence(settings):
    written("here", **settings)
    assert card_data(Path("here"))["license"] == "other"


def test_a_backbone_of_the_hub_goes_by_its_name():
    people = {"user_data": {"source": "persona", "path": "x"}, "user_evaluation": {"methods": []}}
    written("here", backbone={"source": "hub", "name": "someone/model"}, **people)
    assert card_data(Path("here"))["base_model"] == "someone/model"


def test_the_code_of_a_card_is_valid_python():
    for kind in ("policy", "reward"):
        text = written(kind, kind)
        code = text.partition("```python\n")[2].partition("```")[0]
        compile(code, CARD, "exec")
        assert len(code.strip().splitlines()) <= 5 and BACKBONE in code


def test_a_soups_card_has_its_recipe_and_the_licence_that_its_adapters_share():
    paths = {name: adapter(name.lower(), name) for name in ("P1A", "P2A")}
    save_soup("soup", make_recipe({"P1A": 0.7, "P2A": 0.3}, paths))
    card = ModelCard.load(f"soup/{CARD}")
    assert card.data.license == "apache-2.0" and card.data.tags == ["lora", "rlphf", "soup", "P1A", "P2A"]
    assert card.data.base_model == BACKBONE
    assert (
        "| P1A | 0.7 |" in card.text.replace("`", "") and "Relative error, against the exact merge of the updates: 0" in card.text
    )
    assert all(f"- {preference(name).prompt}\n" in card.text for name in paths)
    adapter("p2a", "P2A", backbone={"source": "path", "name": "x"})
    save_soup("soup", make_recipe({"P1A": 0.7, "P2A": 0.3}, paths))
    assert card_data(Path("soup"))["license"] == "other"


@pytest.mark.parametrize(
    "text", ["", "# A title\n", "---\nlicense: [\n---\n", "---\n- a\n---\n", "---\nlicense: {a: b}\n---\n", "---\n"]
)
def test_what_is_no_card_of_ours_gives_a_soup_no_licence(text):
    paths = {"P1A": adapter("p1a", "P1A")}
    Path("p1a", CARD).write_text(text)
    save_soup("soup", make_recipe({"P1A": 1.0}, paths))
    assert card_data(Path("soup")) | {"tags": None} == {
        "base_model": BACKBONE,
        "library_name": "peft",
        "license": "other",
        "pipeline_tag": "text-generation",
        "tags": None,
    }


def test_a_soup_of_adapters_without_folders_has_a_card():
    about = {"kind": "soup"}
    text = soup_card(make_recipe({"a": 0.5, "b": 0.5}, {"a": "a", "b": "b"}), {"base_model_name_or_path": "/x/y/model"}, about)
    assert yaml.safe_load(split_card(text)[0])["base_model"] == "model"


def test_a_card_is_split_and_joined_without_loss():
    text = written("here")
    head, body = split_card(text)
    assert joined_card(yaml.safe_load(head), body) == text
    assert [relative(p) for p in ("a/b", "/a/b", "C:\\a\\b")] == ["a/b", "b", "b"]
