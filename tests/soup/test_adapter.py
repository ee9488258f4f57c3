"""Claims about reading adapter folders."""

import math
import subprocess
import sys

import pytest
import torch

from rlphf.errors import InputError
from rlphf.soup.adapter import check_backbone, read_adapter

MODULE = "base_model.model.model.layers.0.q_proj"


def test_scaling_is_alpha_over_rank(make_adapter):
    make_adapter("a", rank=4, lora_alpha=6)
    assert read_adapter("a").scaling == 1.5


def test_scaling_of_rslora_is_alpha_over_root_of_rank(make_adapter):
    make_adapter("a", rank=5, lora_alpha=6, use_rslora=True)
    assert read_adapter("a").scaling == pytest.approx(6 / math.sqrt(5))


def test_factors_are_those_of_the_file(make_adapter):
    state = make_adapter("x/a", seed=3)
    adapter = read_adapter("x/a")
    assert adapter.name == "a" and len(adapter.modules) == 2
    assert torch.equal(adapter.modules[MODULE][0], state[f"{MODULE}.lora_A.weight"])
    assert torch.equal(adapter.modules[MODULE][1], state[f"{MODULE}.lora_B.weight"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "lora_only"}, "bias"),
        ({"modules_to_save": ["score"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 2}}, "alpha_pattern"),
        ({"lora_bias": True}, "lora_bias"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"peft_type": "IA3"}, "LORA"),
        ({"r": 3}, "rank 4"),
        ({"r": "4"}, "r is '4'"),
        ({"lora_alpha": None}, "lora_alpha"),
        ({"about": {"kind": "reward"}}, "reward"),
        ({"about": ["policy"]}, "adapter.json"),
    ],
)
def test_adapter_that_is_more_than_plain_lora_is_refused(make_adapter, settings, words):
    make_adapter("a", **settings)
    with pytest.raises(InputError, match=words) as caught:
        read_adapter("a")
    assert str(caught.value).startswith("a/adapter")


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({}, "no tensors"),
        ({f"{MODULE}.lora_A.weight": torch.ones(4, 3)}, "no lora_B"),
        ({f"{MODULE}.lora_A.weight": torch.ones(4, 3), f"{MODULE}.lora_B.weight": torch.ones(5, 2)}, "4 .* and 2"),
        ({f"{MODULE}.lora_A.weight": torch.full((4, 3), math.nan), f"{MODULE}.lora_B.weight": torch.ones(5, 4)}, "finite"),
        ({f"{MODULE}.lora_embedding_A": torch.ones(4, 3)}, "lora_embedding_A"),
        ({f"{MODULE}.lora_A.weight": torch.ones(4, 3, 1, 1), f"{MODULE}.lora_B.weight": torch.ones(5, 4, 1, 1)}, "linear"),
        ({"base_model.model.score.weight": torch.ones(1, 3)}, "score"),
    ],
)
def test_tensors_that_are_no_lora_factors_are_refused(make_adapter, state, words):
    make_adapter("a", state=state)
    with pytest.raises(InputError, match=words):
        read_adapter("a")


def test_an_adapter_of_another_backbone_or_of_none_that_is_known_is_refused(make_adapter):
    make_adapter("a", about={"backbone_sha256": "own"})
    check_backbone("a", "own")
    with pytest.raises(InputError, match="^a: made for another backbone; train it again on this one, or"):
        check_backbone("a", "other")
    make_adapter("b", about={"kind": "policy"})
    with pytest.raises(InputError, match="^b: made for another backbone"):
        check_backbone("b", "own")
    make_adapter("c")
    with pytest.raises(InputError, match="c/adapter.json"):
        check_backbone("c", "own")


def test_pickle_beside_or_instead_of_safetensors_is_never_opened(make_adapter, workplace):
    make_adapter("a")
    (workplace / "a/adapter_model.bin").write_bytes(b"no pickle at all")
    read_adapter("a")
    (workplace / "a/adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match="safetensors"):
        read_adapter("a")


def test_broken_or_missing_files_are_refused(make_adapter, workplace):
    with pytest.raises(InputError, match="no such adapter folder"):
        read_adapter("nowhere")
    make_adapter("a")
    (workplace / "a/adapter_model.safetensors").write_bytes(b"\x00" * 4)
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        read_adapter("a")
    (workplace / "a/adapter_config.json").unlink()
    with pytest.raises(InputError, match="adapter_config.json"):
        read_adapter("a")


def test_merging_imports_neither_transformers_nor_peft():
    code = "import sys, rlphf.soup.merge; print([m for m in ('transformers', 'peft', 'trl', 'mlflow') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
