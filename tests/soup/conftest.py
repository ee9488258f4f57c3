"""Small PEFT adapter folders in a working directory of their own, written with safetensors alone."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

MODULES = {"base_model.model.model.layers.0.q_proj": (12, 10), "base_model.model.model.layers.1.v_proj": (6, 10)}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def make_adapter(workplace: Path) -> Callable[..., dict[str, Tensor]]:
    """Write an adapter with random factors (or with `state`) into a folder and return its tensors.

    `about` is adapter.json; other settings go into adapter_config.json.
    """

    def make(
        folder: str, seed: int = 0, rank: int = 4, about: Any = None, state: dict[str, Tensor] | None = None, **settings: Any
    ) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        if state is None:
            state = {}
            for module, (out, width) in MODULES.items():
                state[f"{module}.lora_A.weight"] = torch.randn(rank, width, generator=generator)
                state[f"{module}.lora_B.weight"] = torch.randn(out, rank, generator=generator)
        path = workplace / folder
        path.mkdir(parents=True, exist_ok=True)
        save_file(state, path / "adapter_model.safetensors", metadata={"format": "pt"})
        config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "backbone", "lora_alpha": 8}
        config |= {"r": rank, "target_modules": ["v_proj", "q_proj"], "bias": "none", "lora_dropout": 0.05}
        (path / "adapter_config.json").write_text(json.dumps(config | settings))
        if about is not None:
            (path / "adapter.json").write_text(json.dumps(about))
        return state

    return make


@pytest.fixture
def deltas() -> Callable[[str], dict[str, Tensor]]:
    """Full weight changes {module: scaling * B @ A} of an adapter folder, float64, computed the plain way."""

    def compute(folder: str) -> dict[str, Tensor]:
        config = json.loads(Path(folder, "adapter_config.json").read_text())
        state = load_file(Path(folder, "adapter_model.safetensors"))
        divisor = math.sqrt(config["r"]) if config.get("use_rslora") else config["r"]
        modules = sorted({key.split(".lora_")[0] for key in state})
        factors = {m: [state[f"{m}.lora_{letter}.weight"].double() for letter in "BA"] for m in modules}
        return {m: config["lora_alpha"] / divisor * b @ a for m, (b, a) in factors.items()}

    return compute
