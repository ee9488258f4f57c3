"""Claims about the steps that write soups, down to loading one as a user would."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from rlphf.errors import InputError
from rlphf.files import read_json, read_parquet, sha256
from rlphf.soup.merge import save_soup, soups_step
from rlphf.soup.recipe import make_recipe, read_recipe

SMALL = ["P1A", "P1B", "P2A", "P3B"]


@pytest.fixture
def trained(make_adapter, workplace):
    """Adapters of four preferences, and the configuration of an experiment over their two combinations."""
    for seed, name in enumerate(SMALL):
        make_adapter(f"policies/{name}/adapter", seed=seed, about={"kind": "policy", "preference": name, "backbone_sha256": "x"})

    def configure(mistakes: dict | None = None, **soup) -> Path:
        path = workplace / "config.yaml"
        raw = {"experiment": "tiny", "preferences": SMALL, "combination_preferences": SMALL, "soup": soup}
        raw["mistakes"] = mistakes or {}
        path.write_text(yaml.safe_dump(raw))
        return path

    return configure


def test_every_combination_gets_its_soup_and_its_rows(trained):
    soups_step(trained(), Path("policies"), Path("soups"))
    recipe = read_recipe("soups/P1B-P2A-P3B/recipe.yaml")
    assert recipe.weights == pytest.approx({"P1B": 1 / 3, "P2A": 1 / 3, "P3B": 1 / 3})
    assert recipe.paths["P1B"] == "policies/P1B/adapter"
    table = read_parquet("soups/merges.parquet")
    assert table.column_names == ["combination", "rule", "relative_error"]
    rows = [(r["combination"], r["rule"]) for r in table.to_pylist()]
    assert rows == [(c, r) for c in ("P1A-P2A-P3B", "P1B-P2A-P3B") for r in ("delta", "factor", "svd4")]
    errors = table.column("relative_error").to_pylist()
    assert errors[0] == 0 and all(error > 0.1 for error in errors[1:3])


def test_configured_rule_rank_and_weights_reach_the_soup(trained):
    soups_step(trained(svd_rank=2, weights={"P1A": -0.5}), Path("policies").absolute(), Path("soups"))
    recipe = read_recipe("soups/P1A-P2A-P3B/recipe.yaml")
    assert (recipe.svd_rank, recipe.weights["P1A"]) == (2, -0.5)
    assert recipe.paths["P1A"] == "policies/P1A/adapter"
    rows = read_parquet("soups/merges.parquet").to_pylist()
    assert recipe.results.relative_error == next(r["relative_error"] for r in rows if r["rule"] == "svd2")


def test_further_ways_to_merge_are_merged_by_settings_of_their_own(trained):
    ways = {"thin": {"rule": "ties", "density": 0.3}, "large": {"scale": 1.5}}
    config = trained({"factor_merge": True}, compared=ways, svd_rank=2, weights={"P2A": 0.2})
    soups_step(config, Path("policies"), Path("soups/thin"), "thin")
    soups_step(config, Path("policies"), Path("soups/large"), "large")
    thin, large = (read_recipe(f"soups/{name}/P1A-P2A-P3B/recipe.yaml") for name in ways)
    assert (thin.rule, thin.density, thin.svd_rank) == ("ties", 0.3, None)
    assert thin.weights == pytest.approx({"P1A": 1 / 3, "P2A": 0.2, "P3B": 1 / 3})
    assert (large.rule, large.svd_rank) == ("delta", None)
    assert large.weights == pytest.approx({"P1A": 0.5, "P2A": 0.3, "P3B": 0.5})
    assert not Path("soups/thin/front").exists()
    rows = read_parquet("soups/thin/merges.parquet").to_pylist()
    assert thin.results.relative_error == next(r["relative_error"] for r in rows if r["rule"] == "ties")


def test_a_way_to_merge_that_is_not_in_the_settings_is_refused(trained):
    with pytest.raises(InputError, match="--compared: 'thin' is not in soup.compared, which names nothing"):
        soups_step(trained(), Path("policies"), Path("soups/thin"), "thin")
    assert not Path("soups").exists()


@pytest.mark.parametrize("mistake", ["factor_merge", "other_starts"])
def test_the_releases_merge_is_rule_factor_whatever_is_configured(trained, mistake):
    soups_step(trained({mistake: True}, svd_rank=3), Path("policies"), Path("mistaken"))
    soups_step(trained(rule="factor"), Path("policies"), Path("wanted"))
    found, wanted = (load_file(f"{name}/P1A-P2A-P3B/adapter_model.safetensors") for name in ("mistaken", "wanted"))
    assert all(torch.equal(value, wanted[name]) for name, value in found.items())


def test_step_gives_the_same_bytes_again(trained):
    soups_step(trained(svd_rank=3), Path("policies"), Path("one"))
    soups_step(trained(svd_rank=3), Path("policies"), Path("two"))
    for name in ("P1A-P2A-P3B", "P1B-P2A-P3B", "merges.parquet"):
        assert sha256(Path("one", name)) == sha256(Path("two", name))
    assert read_json("one/record.json")["outputs"]["one/merges.parquet"]["sha256"] == sha256("two/merges.parquet")


def test_nothing_is_written_when_one_adapter_does_not_fit(trained, make_adapter):
    make_adapter("policies/P1B/adapter", rank=3)
    with pytest.raises(InputError, match="P1B"):
        soups_step(trained(rule="factor"), Path("policies"), Path("soups"))
    assert not Path("soups").exists()


def test_nothing_is_written_when_one_folder_is_taken(trained):
    Path("soups/P1B-P2A-P3B").mkdir(parents=True)
    Path("soups/P1B-P2A-P3B/notes.txt").write_text("mine")
    with pytest.raises(InputError, match="exists and is no soup"):
        soups_step(trained(), Path("policies"), Path("soups"))
    assert [path.name for path in Path("soups").rglob("*")] == ["P1B-P2A-P3B", "notes.txt"]


def test_adapters_outside_the_working_directory_are_refused(trained, monkeypatch, workplace):
    config = trained()
    (workplace / "inner").mkdir()
    monkeypatch.chdir(workplace / "inner")
    with pytest.raises(InputError, match="leaves the working directory"):
        soups_step(config, workplace / "policies", Path("soups"))


LOADER = """
import sys, torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("backbone"), "soup").eval()
with torch.no_grad():
    save_file({"logits": model(torch.arange(3, 15).view(2, 6)).logits}, "logits.safetensors")
"""


@pytest.mark.parametrize("rslora", [False, True])
def test_soup_in_a_fresh_process_gives_the_logits_of_the_merge(workplace, rslora):
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=40, num_key_value_heads=2, **sizes)).save_pretrained("backbone")
    weights = {"a": 0.9, "b": -0.6, "c": 0.3}
    targets = ["q_proj", "v_proj", "down_proj"]
    for rank, name in zip((2, 3, 4), weights, strict=True):
        backbone = LlamaForCausalLM.from_pretrained("backbone")
        lora = LoraConfig(r=rank, lora_alpha=7, use_rslora=rslora, target_modules=targets, task_type="CAUSAL_LM")
        model = get_peft_model(backbone, lora)
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(f"adapters/{name}")

    save_soup("soup", make_recipe(weights, {name: f"adapters/{name}" for name in weights}))
    subprocess.run([sys.executable, "-c", LOADER], check=True, capture_output=True)
    got = load_file("logits.safetensors")["logits"]

    merged = LlamaForCausalLM.from_pretrained("backbone").eval()
    plain = merged(torch.arange(3, 15).view(2, 6)).logits.detach()
    for rank, (name, weight) in zip((2, 3, 4), weights.items(), strict=True):
        state = load_file(f"adapters/{name}/adapter_model.safetensors")
        scaling = 7 / rank**0.5 if rslora else 7 / rank
        for key in [key for key in state if "lora_A" in key]:
            layer = merged.get_submodule(key.removeprefix("base_model.model.").removesuffix(".lora_A.weight"))
            layer.weight.data += weight * scaling * state[key.replace("lora_A", "lora_B")] @ state[key]
    expected = merged(torch.arange(3, 15).view(2, 6)).logits.detach()
    assert torch.allclose(got, expected, atol=1e-5)
    assert float((expected - plain).abs().max()) > 0.01
