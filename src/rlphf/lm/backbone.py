"""Loading a backbone: the one frozen base language model that every adapter sits on."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from rlphf.errors import InputError
from rlphf.files import read_json, sha256, write_json
from rlphf.processes import local_rank
from rlphf.settings import Backbone

# In the backbone's folder: how its weights are to be loaded. A file of the backbone and no option of a step, so that no step can
# load it in another precision than the others.
LOADING = "loading.json"

# From which speed-up on bfloat16 is worth its rounding.
FASTER = 1.25

# The library's bar, and its report of weights that are missing, would stand before our one line that says what is wrong.
disable_progress_bar()
logging.getLogger("transformers.modeling_utils").addFilter(lambda record: "LOAD REPORT" not in record.getMessage())


def write_loading(folder: Path, settings: Backbone) -> None:
    """Note in a backbone's folder in which precision steps load it; nothing is noted where all is as usual."""
    noted: dict[str, str] = {"quantization": settings.quantization} if settings.quantization != "none" else {}
    asked = settings.training_dtype
    if asked == "bfloat16" or (asked == "fastest" and bfloat16_speedup() > FASTER):
        noted["training_dtype"] = "bfloat16"
    if noted:
        write_json(folder / LOADING, noted)


def bfloat16_speedup(size: int = 512, tries: int = 5) -> float:
    """Return how many times as fast this CPU multiplies matrices (size, size) in bfloat16 as in float32, at the best of `tries`.

    A CPU without instructions for it converts each number first: 0.1 was measured on one, and 2 on one that has them.
    """
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.ones(2, size, size, dtype=dtype)
        times = []
        for _ in range(tries):
            start = time.perf_counter()
            torch.nn.functional.linear(a, b)
            times.append(time.perf_counter() - start)
        seconds[dtype] = min(times)
    return seconds[torch.float32] / seconds[torch.bfloat16]


def _noted(folder: Path | str) -> dict[str, str]:
    path = Path(folder) / LOADING
    noted = read_json(path) if path.exists() else {}
    if not isinstance(noted, dict):
        raise InputError(f"{path}: expected an object, got {type(noted).__name__}; make the backbone again")
    return noted


def training_dtype(folder: Path | str, on_cuda: torch.dtype = torch.bfloat16) -> torch.dtype:
    """Return the type of a backbone's frozen weights where adapters are trained and texts scored; with CUDA, `on_cuda`."""
    if torch.cuda.is_available():
        return on_cuda
    return torch.bfloat16 if _noted(folder).get("training_dtype") == "bfloat16" else torch.float32


def loading(folder: Path | str, dtype: torch.dtype) -> dict[str, Any]:
    """Return the arguments of `from_pretrained` for a backbone: `dtype`, or what its 4-bit weights need.

    Raises InputError for a folder that holds no backbone, and for 4 bits without CUDA or without bitsandbytes. Source of the
    format: Dettmers et al. 2023, QLoRA.
    """
    if not (Path(folder) / "config.json").exists():
        raise InputError(f"{folder}: holds no backbone (config.json is missing)")
    shared = {"local_files_only": True}
    asked = _noted(folder).get("quantization")
    if asked is None:
        return {"dtype": dtype, **shared}
    if not torch.cuda.is_available():
        raise InputError(f"backbone.quantization: {asked} needs a CUDA device, and there is none here; run on one, or set none")
    if find_spec("bitsandbytes") is None:
        raise InputError(f"backbone.quantization: {asked} needs bitsandbytes; pip install it (extra gpu), or set none")
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        # The output head and a reward model's keep their precision.
        llm_int8_skip_modules=["lm_head", "score"],
    )
    return {"dtype": torch.bfloat16, "quantization_config": config, "device_map": {"": local_rank()}, **shared}


def load_backbone(folder: Path | str, dtype: torch.dtype = torch.float32) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a backbone, frozen and in evaluation mode, and its tokenizer; on CUDA where there is one.

    A backbone that is made for 4 bits is loaded in 4 bits whatever `dtype` says, and computes in bfloat16. Raises InputError for
    a folder that holds none, or none that needs no code of its own; nothing is unpickled.
    """
    model, tokenizer = read_model(AutoModelForCausalLM, folder, arguments := loading(folder, dtype))
    model.requires_grad_(False)
    if "quantization_config" not in arguments:
        model.to(f"cuda:{local_rank()}" if torch.cuda.is_available() else "cpu")
    return model.eval(), tokenizer


def read_model(
    kind: Any, folder: Path | str, arguments: dict[str, Any], new: str | None = None
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Read a backbone as a model of a `kind` of transformers' and its tokenizer; `new` names weights that no backbone has.

    `arguments` are those of `from_pretrained`. Raises InputError as `load_backbone` does.
    """
    try:
        found: Any = kind.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, output_loading_info=True, **arguments
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # The library passes on whatever a broken file leads its many parts to.
        raise InputError(f"{folder}: cannot be loaded as a backbone ({error or type(error).__name__})") from None
    model, loaded = found
    if missing := set(loaded["missing_keys"]) - {new}:
        raise InputError(f"{folder}: lacks the weights {min(missing)}; make the backbone again")
    if tokenizer.eos_token_id is None:
        raise InputError(f"{folder}: the tokenizer needs an end token, by which responses end")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise InputError(f"{folder}: the tokenizer needs a padding token that is not its end token")
    return model, tokenizer


@contextmanager
def sampled_in_float32(model: nn.Module) -> Iterator[None]:
    """Hold the weights of `model` in float32 on a CPU, which decodes faster so: a product with one token per row has to
    rearrange bfloat16 weights first. They keep their rounding, and are put back to the bit.
    """
    before = {p: p.data for p in model.parameters() if p.dtype == torch.bfloat16 and p.device.type == "cpu"}
    try:
        for parameter in before:
            parameter.data = parameter.data.float()
        yield
    finally:
        for parameter, data in before.items():
            parameter.data = data


def backbone_sha256(folder: Path | str) -> str:
    """Return the digest by which adapters name their backbone: that of its weights."""
    return sha256(Path(folder) / "model.safetensors")
