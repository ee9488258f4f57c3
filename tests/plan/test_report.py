"""The command: its table, its advice, how it ends, and what it refuses."""

from pathlib import Path

import pytest
from transformers import Gemma3Config, Gemma3TextConfig, GPT2Config, LlamaConfig, MambaConfig, T5Config, ViTConfig

from rlphf.cli import main

ROOT = Path(__file__).parent.parent.parent
BASE = str(ROOT / "config" / "config.yaml")


@pytest.fixture
def seven(tmp_path: Path) -> str:
    """config.json of a Llama of the size of Tulu-2-7B."""
    LlamaConfig(vocab_size=32001, max_position_embeddings=8192).save_pretrained(tmp_path)
    return str(tmp_path / "config.json")


def experiment(name: str) -> str:
    return str(ROOT / "config" / "experiments" / f"{name}.yaml")


def test_the_demo_fits_a_small_gpu_and_says_so(capsys: pytest.CaptureFixture) -> None:
    assert main(["plan", "--config", BASE, "--gpu-gb", "8"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("demo on a GPU of 8.0 GB: 1,147,888 parameters") and said.endswith("All steps fit.\n")
    assert "does not fit" not in said


def test_what_does_not_fit_is_said_with_what_is_missing_and_ends_with_0_or_strictly_with_2(
    seven: str, capsys: pytest.CaptureFixture
) -> None:
    command = ["plan", "--config", BASE, experiment("psoups-7b"), "--model-config", seven, "--gpu-gb", "24"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "psoups-7b on a GPU of 24.0 GB: 6,738,423,808 parameters" in said
    (line,) = [line for line in said.splitlines() if line.startswith("ppo per preference: ")]
    assert line.endswith("24.0 are there: lower ppo.micro_batch_tokens from 8192 to 2048 and ppo.batch_size from 64 to 32")
    assert main([*command, "--strict"]) == 2
    assert capsys.readouterr().err.startswith(f"rlphf: error: {experiment('psoups-7b')}: 4 of 7 steps do not fit")


def test_a_profile_names_the_gpu(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    profile = tmp_path / "profile"
    profile.mkdir()
    (profile / "config.yaml").write_text("default-resources:\n  - mem_mb=1000\n  - gpu_gb=16\n")
    for given in (profile, profile / "config.yaml"):
        assert main(["plan", "--config", BASE, "--profile", str(given)]) == 0
        assert "demo on a GPU of 16.0 GB" in capsys.readouterr().out
    resources = ("[mem_mb=1000]", "[gpu_gb=big]", "{gpu_gb: [80]}")
    for text in (*(f"default-resources: {named}" for named in resources), "cores: all", ""):
        (profile / "config.yaml").write_text(text)
        assert main(["plan", "--config", BASE, "--profile", str(profile)]) == 2
        assert "default-resources names no gpu_gb as a number; add it, or give --gpu-gb" in capsys.readouterr().err
    for size in ("0", "-80", "nan", "inf"):
        (profile / "config.yaml").write_text(f"default-resources: [gpu_gb={size}]")
        assert main(["plan", "--config", BASE, "--profile", str(profile)]) == 2
        assert f"gpu_gb: {size} is no number above zero; correct it, or give --gpu-gb" in capsys.readouterr().err


def test_a_model_of_the_hub_that_is_not_here_is_one_line(capsys: pytest.CaptureFixture) -> None:
    assert main(["plan", "--config", BASE, experiment("psoups-7b"), "--gpu-gb", "80"]) == 2
    assert capsys.readouterr().err == (
        "rlphf: error: backbone.name: allenai/tulu-2-7b is not in the local cache of the hub;"
        " give --model-config path/to/config.json\n"
    )


def test_a_file_that_is_no_configuration_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for text in ("{", '{"model_type": "unheard-of"}', "[]"):
        (tmp_path / "config.json").write_text(text)
        assert main(["plan", "--config", BASE, "--model-config", str(tmp_path / "config.json"), "--gpu-gb", "8"]) == 2
        said = capsys.readouterr().err
        assert said.startswith("rlphf: error: --model-config: ") and said.count("\n") == 1


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (T5Config(), "Unrecognized configuration class"),
        (ViTConfig(), "Unrecognized configuration class"),
        (MambaConfig(num_hidden_layers=1), "no attribute 'num_attention_heads'"),
        (GPT2Config(n_layer=1), "its layers have no linear modules"),
        (LlamaConfig(num_hidden_layers=-1), "its layers have no linear modules"),
        (LlamaConfig(num_hidden_layers=1, vocab_size=-5), "negative"),
    ],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_a_model_that_no_plan_can_be_made_for_is_one_line(config, reason: str, tmp_path: Path, capsys) -> None:
    config.save_pretrained(tmp_path)
    assert main(["plan", "--config", BASE, "--model-config", str(tmp_path), "--gpu-gb", "8"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"rlphf: error: --model-config: {tmp_path}: no plan can be made for it; name a causal language model")
    assert reason in said and said.count("\n") == 1


def test_sizes_that_no_model_of_our_own_can_have_are_one_line_that_names_no_other(tmp_path: Path, capsys) -> None:
    (tmp_path / "mine.yaml").write_text("backbone: {hidden: 2147483640}")
    assert main(["plan", "--config", BASE, str(tmp_path / "mine.yaml"), "--gpu-gb", "8"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("rlphf: error: backbone.source: train: no plan can be made for it") and said.count("\n") == 1


def test_of_a_model_that_also_sees_the_part_for_texts_is_planned(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    text = Gemma3TextConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, vocab_size=500)
    said = []
    for name, config in (("text", text), ("both", Gemma3Config(text_config=text))):
        config.save_pretrained(tmp_path / name)
        assert main(["plan", "--config", BASE, "--model-config", str(tmp_path / name), "--gpu-gb", "80"]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]


def test_a_backbone_in_a_folder_is_planned_from_its_configuration_alone(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    LlamaConfig(vocab_size=500, hidden_size=64, num_hidden_layers=2, num_attention_heads=4).save_pretrained(tmp_path / "model")
    (tmp_path / "mine.yaml").write_text(f"backbone: {{source: path, name: {tmp_path / 'model'}}}")
    assert main(["plan", "--config", BASE, str(tmp_path / "mine.yaml"), "--cpu"]) == 0
    assert "demo on a CPU with " in capsys.readouterr().out


def test_a_cpu_is_no_gpu_of_some_size(capsys: pytest.CaptureFixture) -> None:
    assert main(["plan", "--config", BASE, "--cpu", "--gpu-gb", "8"]) == 2
    assert "--cpu: leaves no GPU to plan for" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("gpu-gb", "nan"), ("gpu-gb", "-3"), ("gpus", "-1"), ("prompt-tokens", "0")])
def test_numbers_that_cannot_be_are_refused(option: str, value: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["plan", "--config", BASE, f"--{option}", value]) == 2
    assert capsys.readouterr().err == f"rlphf: error: --{option}: {value} is no number above zero\n"
