"""Loading a backbone: frozen, safetensors alone, and with a padding token of its own."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from rlphf.errors import InputError
from rlphf.lm import backbone
from rlphf.lm.backbone import (
    LOADING,
    backbone_sha256,
    bfloat16_speedup,
    load_backbone,
    loading,
    sampled_in_float32,
    training_dtype,
    write_loading,
)
from rlphf.lm.reward_model import classifier
from rlphf.settings import Backbone


def test_a_loaded_backbone_is_frozen_and_in_evaluation_mode(tiny_backbone: Path) -> None:
    model, tokenizer = load_backbone(tiny_backbone)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    assert model.dtype == torch.float32 and tokenizer.pad_token_id != tokenizer.eos_token_id
    assert load_backbone(tiny_backbone, torch.bfloat16)[0].dtype == torch.bfloat16


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no backbone"):
        load_backbone(tmp_path)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [({"pad_token": "<eos>"}, "padding token that is not its end token"), ({"eos_token": None}, "needs an end token")],
)
def test_a_tokenizer_that_pads_with_its_end_token_or_has_none_is_refused(
    tiny_backbone: Path, tmp_path: Path, tokens: dict, message: str
) -> None:
    shutil.copytree(tiny_backbone, tmp_path / "backbone")
    tokenizer = AutoTokenizer.from_pretrained(tiny_backbone)
    for name, token in tokens.items():
        setattr(tokenizer, name, token)
    tokenizer.save_pretrained(tmp_path / "backbone")
    with pytest.raises(InputError, match=message):
        load_backbone(tmp_path / "backbone")


def test_a_pickled_backbone_is_not_loaded(tiny_backbone: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_backbone, tmp_path / "backbone")
    (tmp_path / "backbone" / "model.safetensors").unlink()
    torch.save(load_backbone(tiny_backbone)[0].state_dict(), tmp_path / "backbone" / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be loaded as a backbone .*safetensors"):
        load_backbone(tmp_path / "backbone")


def test_a_backbone_without_all_its_weights_is_refused_and_nothing_else_is_said(
    tiny_backbone: Path, tmp_path: Path, capfd: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(tiny_backbone, tmp_path / "backbone")
    path = tmp_path / "backbone" / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.norm.weight"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(InputError, match="lacks the weights model.norm.weight; make the backbone again"):
        load_backbone(tmp_path / "backbone")
    assert capfd.readouterr() == ("", "") and not caplog.records


def test_code_of_a_backbone_is_not_run_and_nobody_is_asked_to_run_it(tiny_backbone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backbone"
    shutil.copytree(tiny_backbone, folder)
    (folder / "code.py").write_text(f"open({str(tmp_path / 'owned')!r}, 'w')\nclass Own: pass\n")
    config = json.loads((folder / "config.json").read_text())
    changed = {"model_type": "own", "auto_map": {"AutoConfig": "code.Own", "AutoModelForCausalLM": "code.Own"}}
    (folder / "config.json").write_text(json.dumps(config | changed))
    with pytest.raises(InputError, match="cannot be loaded as a backbone"):
        load_backbone(folder)
    assert not (tmp_path / "owned").exists()


def test_a_backbone_is_named_by_its_weights(tiny_backbone: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_backbone, tmp_path / "backbone")
    assert backbone_sha256(tmp_path / "backbone") == backbone_sha256(tiny_backbone)
    model = load_backbone(tiny_backbone)[0]
    model.get_input_embeddings().weight[0, 0] += 1
    model.save_pretrained(tmp_path / "backbone")
    assert backbone_sha256(tmp_path / "backbone") != backbone_sha256(tiny_backbone)


@pytest.fixture
def four_bits(tiny_backbone: Path, tmp_path: Path) -> Path:
    """A copy of the tiny backbone that is to be loaded in 4 bits."""
    shutil.copytree(tiny_backbone, tmp_path / "backbone")
    write_loading(tmp_path / "backbone", Backbone(quantization="4bit"))
    return tmp_path / "backbone"


@pytest.mark.parametrize("load", [load_backbone, classifier])
def test_four_bits_without_cuda_are_refused_whoever_loads(load, four_bits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="backbone.quantization: 4bit needs a CUDA device, and there is none here"):
        load(four_bits)


def test_four_bits_without_bitsandbytes_are_refused(four_bits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(backbone, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="backbone.quantization: 4bit needs bitsandbytes; pip install"):
        load_backbone(four_bits)


def test_four_bits_are_the_backbones_own_and_leave_heads_as_they_are(
    four_bits: Path, tiny_backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(backbone, "find_spec", lambda name: name)
    monkeypatch.setenv("LOCAL_RANK", "3")
    arguments = loading(four_bits, torch.float32)
    config = arguments["quantization_config"]
    assert config.load_in_4bit and config.bnb_4bit_quant_type == "nf4" and config.bnb_4bit_compute_dtype == torch.bfloat16
    assert config.llm_int8_skip_modules == ["lm_head", "score"] and arguments["device_map"] == {"": 3}
    assert "quantization_config" not in loading(tiny_backbone, torch.float32)


def test_nothing_is_noted_for_a_backbone_that_is_not_quantized(tmp_path: Path) -> None:
    write_loading(tmp_path, Backbone())
    assert not list(tmp_path.iterdir())


def test_a_note_of_the_precision_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / LOADING).write_text("[]")
    with pytest.raises(InputError, match=r"loading\.json: expected an object, got list"):
        training_dtype(tmp_path)


def test_a_backbone_says_in_what_it_trains_on_a_cpu(tiny_backbone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "backbone"
    shutil.copytree(tiny_backbone, folder)
    write_loading(folder, Backbone(training_dtype="bfloat16"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert training_dtype(tiny_backbone) == torch.float32 and training_dtype(folder) == torch.bfloat16
    assert load_backbone(folder)[0].dtype == torch.float32 and classifier(folder)[0].dtype == torch.bfloat16
    assert classifier(folder)[0].score.weight.dtype == torch.float32
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert training_dtype(tiny_backbone) == torch.bfloat16 and training_dtype(folder, torch.float32) == torch.float32


@pytest.mark.parametrize(("speedup", "noted"), [(0.1, False), (1.0, False), (2.0, True)])
def test_the_fastest_type_is_bfloat16_where_it_is_measured_to_be(
    tmp_path: Path, monkeypatch, speedup: float, noted: bool
) -> None:
    monkeypatch.setattr(backbone, "bfloat16_speedup", lambda: speedup)
    write_loading(tmp_path, Backbone(training_dtype="fastest"))
    assert [path.name for path in tmp_path.iterdir()] == [LOADING] * noted
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert training_dtype(tmp_path) == (torch.bfloat16 if noted else torch.float32)


def test_the_speedup_of_bfloat16_is_that_of_products(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0.01 < bfloat16_speedup(size=64) < 100
    clock = iter([0.0, 1.0, 10.0, 11.5, 20.0, 20.5, 30.0, 30.25])
    with monkeypatch.context() as patched:
        patched.setattr(backbone.time, "perf_counter", lambda: next(clock))
        found = bfloat16_speedup(size=2, tries=2)
    assert found == 1.0 / 0.25


def test_weights_are_in_float32_while_a_cpu_samples_and_as_they_were_afterwards(tiny_backbone: Path) -> None:
    model = load_backbone(tiny_backbone, torch.bfloat16)[0].to("cpu")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(KeyError), sampled_in_float32(model):
        assert all(torch.equal(value, before[name].float()) for name, value in model.state_dict().items())
        assert model.dtype == torch.float32 and model.lm_head.weight is model.get_input_embeddings().weight
        raise KeyError
    assert all(torch.equal(value, before[name]) and value.dtype == torch.bfloat16 for name, value in model.state_dict().items())
