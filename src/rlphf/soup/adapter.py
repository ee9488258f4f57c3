"""Adapters as files: a PEFT LoRA folder is read with safetensors alone, checked, and compared with others.

Neither transformers nor peft is imported: this costs little more than reading the files. Nothing is unpickled.
"""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rlphf.errors import InputError
from rlphf.files import check_file, read_json

CONFIG, WEIGHTS, ABOUT = "adapter_config.json", "adapter_model.safetensors", "adapter.json"
# The scalar head of a reward model, and the setting by which PEFT keeps it beside the factors.
HEAD, KEPT = "base_model.model.score.weight", "modules_to_save"
Factors = dict[str, tuple[Tensor, Tensor]]

# Settings with which an adapter is more than sum of B.A over plain linear layers: each must be unset.
UNSUPPORTED = (
    *("use_dora", "use_qalora", "use_bdlora", "lora_bias", KEPT, "rank_pattern", "alpha_pattern"),
    *("layer_replication", "target_parameters", "trainable_token_indices", "alora_invocation_tokens", "arrow_config"),
    *("kasa_config", "monteclora_config", "megatron_config"),
)
# Initialisations that leave the backbone's weights as they are; the others (PiSSA, OLoRA, ...) change them.
PLAIN_INITS = (True, False, None, "gaussian", "orthogonal", "eva")
NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# Settings that decide which layers of which model an adapter belongs to: alike in all adapters of a soup.
SHARED = (
    *("base_model_name_or_path", "revision", "task_type", "target_modules", "exclude_modules", "fan_in_fan_out"),
    *("layers_to_transform", "layers_pattern"),
)


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter: `modules` maps a module's name to (A of shape r x in, B of shape out x r).

    It changes each module's weight by scaling * B @ A. `about` is adapter.json, empty if there is none.
    """

    name: str
    folder: str
    config: dict[str, Any]
    modules: Factors
    rank: int
    scaling: float
    about: dict[str, Any]

    @property
    def label(self) -> str:
        """Name and folder, for messages."""
        return f"adapter {self.name} ({self.folder})"


def read_about(folder: Path | str, required: bool = False) -> dict[str, Any]:
    """Return what adapter.json says of an adapter, or {} for a folder without one (PEFT itself writes none).

    Raises InputError for one that is broken, and for a folder without where it is `required`.
    """
    path = Path(folder) / ABOUT
    about = read_json(path) if required or path.exists() else {}
    if not isinstance(about, dict):
        raise InputError(f"{path}: expected an object, got {type(about).__name__}")
    for name, value in about.items():
        if not isinstance(value, str):
            raise InputError(f"{path}: {name}: expected text, got {type(value).__name__}; save the adapter again")
    return about


def check_backbone(folder: Path | str, backbone_sha256: str) -> None:
    """Raise InputError unless adapter.json says that the policy, soup or reward model in `folder` is of this backbone."""
    if read_about(folder, required=True).get("backbone_sha256") != backbone_sha256:
        raise InputError(f"{folder}: made for another backbone; train it again on this one, or take the one that it is of")


def read_adapter(folder: Path | str, name: str | None = None) -> Adapter:
    """Read a PEFT LoRA folder; `name` is that of the folder unless given.

    scaling = lora_alpha / r, or lora_alpha / sqrt(r) with use_rslora. Raises InputError for a reward model, a folder
    without safetensors (a pickled .bin beside it is never opened), any setting under which the adapter is more than
    B.A over linear layers (DoRA, biases, modules_to_save, patterns of ranks, ...), and tensors that do not fit.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such adapter folder; train the adapter, or correct the path")
    about = read_about(folder)
    kind = about.get("kind", "policy")
    if kind not in ("policy", "soup"):
        raise InputError(f"{folder / ABOUT}: kind is {kind!r}; only policies and soups of policies can be merged")
    return _adapter(folder, name, about, _read_config(folder / CONFIG, UNSUPPORTED), read_tensors(folder))


def read_reward_model(folder: Path | str) -> tuple[Adapter, Tensor]:
    """Read a reward model's LoRA and its scalar head (1, H); raise InputError as `read_adapter` does, and without a head."""
    folder = Path(folder)
    about = read_about(folder, required=True)
    config = _read_config(folder / CONFIG, [key for key in UNSUPPORTED if key != KEPT])
    tensors = read_tensors(folder)
    head = tensors.pop(HEAD, None)
    if head is None:
        raise InputError(f"{folder}: has no score head, so it is no reward model")
    return _adapter(folder, None, about, config, tensors), head


def read_tensors(folder: Path | str) -> dict[str, Tensor]:
    """Read an adapter's tensors; raise InputError unless they are finite numbers in a sound safetensors file."""
    path = Path(folder) / WEIGHTS
    check_file(path)
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise InputError(f"{path}: is missing; save the adapter as safetensors, pickled ones are not accepted") from None
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error}); pickled adapters are not accepted") from None
    check_numbers(tensors, path)
    return tensors


def check_alike(adapters: Sequence[Adapter], same_rank: bool = False) -> None:
    """Raise InputError, naming two adapters and the module or setting, unless all can be added up.

    They need one backbone, the same adapted modules and equal shapes; with `same_rank` equal rank and scaling too.
    """
    first = adapters[0]
    # What PEFT itself wrote names no backbone, also where it comes first.
    told = [adapter for adapter in adapters if adapter.about.get("backbone_sha256") is not None]
    for other in told[1:]:
        if told[0].about["backbone_sha256"] != other.about["backbone_sha256"]:
            both = f"{told[0].label} and {other.label}"
            raise InputError(f"{both} were trained on different backbones (backbone_sha256); merge adapters of one backbone")
    for other in adapters[1:]:
        both = f"{first.label} and {other.label}"
        if odd := sorted(first.modules.keys() ^ other.modules.keys()):
            has, lacks = (first, other) if odd[0] in first.modules else (other, first)
            both = f"{has.label} adapts module {odd[0]} and {lacks.label}"
            raise InputError(f"{both} does not; merge adapters of the same targets")
        for key in SHARED:
            values = [_comparable(a.config.get(key)) for a in (first, other)]
            if values[0] != values[1]:
                raise InputError(f"{both} differ in {key} ({values[0]} and {values[1]}); merge adapters of one model and shape")
        for module, (a, b) in first.modules.items():
            a2, b2 = other.modules[module]
            if (a.shape[1], b.shape[0]) != (a2.shape[1], b2.shape[0]):
                sizes = f"{a.shape[1]} to {b.shape[0]} and {a2.shape[1]} to {b2.shape[0]}"
                raise InputError(f"{both} differ in the size of module {module} ({sizes}); merge adapters of one backbone")
        if same_rank and (first.rank, first.scaling) != (other.rank, other.scaling):
            shapes = f"rank {first.rank}, scaling {first.scaling:g}; rank {other.rank}, scaling {other.scaling:g}"
            raise InputError(f"{both} differ in rank or scaling ({shapes}), in every module; use rule delta")


def check_numbers(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raise InputError unless all `tensors` of the file `path` hold finite numbers of 16, 32 or 64 bits."""
    for key, tensor in sorted(tensors.items()):
        if tensor.dtype not in NUMBERS or not torch.isfinite(tensor).all():
            raise InputError(f"{path}: tensor {key} has values that are no finite numbers; train the adapter again")


def _comparable(value: Any) -> Any:
    """Lists of names are sets to PEFT, and an unset setting may be left out of the file."""
    return sorted(map(str, value)) if value and isinstance(value, list) else value or None


def _adapter(
    folder: Path, name: str | None, about: dict[str, Any], config: dict[str, Any], tensors: dict[str, Tensor]
) -> Adapter:
    rank, alpha = config["r"], config["lora_alpha"]
    scaling = alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
    modules = _factors(folder / WEIGHTS, tensors, rank)
    return Adapter(name or folder.resolve().name, str(folder), config, modules, rank, scaling, about)


def _read_config(path: Path, unsupported: Sequence[str]) -> dict[str, Any]:
    config = read_json(path)
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise InputError(f"{path}: is no configuration of a PEFT LoRA adapter (peft_type LORA)")
    for key in unsupported:
        if config.get(key):
            raise InputError(f"{path}: {key} is set ({json.dumps(config[key])}); only plain LoRA adapters can be merged")
    if config.get("bias", "none") != "none":
        raise InputError(f"{path}: bias is {config['bias']!r}; only adapters with bias none can be merged")
    mapping = config.get("auto_mapping") or {}
    # PEFT imports the module that is named here.
    if not isinstance(mapping, dict) or str(mapping.get("parent_library", "transformers")).split(".")[0] != "transformers":
        raise InputError(f"{path}: auto_mapping names code that is not of transformers; remove it, or take another adapter")
    init = config.get("init_lora_weights")
    if init not in PLAIN_INITS:
        raise InputError(f"{path}: init_lora_weights is {init!r}, which changes the backbone; convert it first")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or isinstance(rank, bool) or not 1 <= rank < 2**31:
        raise InputError(f"{path}: r is {rank!r}; expected a positive whole number")
    if not isinstance(alpha, (int, float)) or isinstance(alpha, bool) or not abs(alpha) <= sys.float_info.max:
        raise InputError(f"{path}: lora_alpha is {alpha!r}; expected a number")
    return config


def _factors(path: Path, state: dict[str, Tensor], rank: int) -> Factors:
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in sorted(state.items()):
        module, _, factor = key.removesuffix(".weight").rpartition(".")
        if factor not in ("lora_A", "lora_B") or not key.endswith(".weight") or tensor.ndim != 2:
            raise InputError(f"{path}: tensor {key} is no LoRA factor of a linear layer; only those can be merged")
        found.setdefault(module, {})[factor] = tensor
    if not found:
        raise InputError(f"{path}: holds no tensors; save the adapter again")
    for module, factors in found.items():
        if len(factors) != 2:
            missing = "lora_B" if "lora_A" in factors else "lora_A"
            raise InputError(f"{path}: module {module} has no {missing}; save the adapter again")
        ranks = factors["lora_A"].shape[0], factors["lora_B"].shape[1]
        if ranks != (rank, rank):
            raise InputError(f"{path}: module {module} has rank {ranks[0]} (A) and {ranks[1]} (B), but r is {rank} in {CONFIG}")
    return {module: (factors["lora_A"], factors["lora_B"]) for module, factors in found.items()}
