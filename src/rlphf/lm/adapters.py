"""LoRA adapters on one shared backbone: made, written, read, and switched, always in PEFT's own file format."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlphf.errors import InputError
from rlphf.files import CARD, atomic_folder, digest, write_json, write_text
from rlphf.settings import Lora
from rlphf.soup.adapter import WEIGHTS, Factors

# The policy goes by PEFT's own default name, the only one under which TRL's trainers find it.
POLICY = "default"


def lora_config(lora: Lora, task_type: str = "CAUSAL_LM") -> LoraConfig:
    """Return PEFT's configuration of a LoRA adapter."""
    return LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=sorted(lora.targets), task_type=task_type
    )


def check_targets(model: PreTrainedModel, lora: Lora) -> None:
    """Raise InputError unless each target of the LoRA names linear layers of `model`, its head apart.

    PEFT passes over a target without layers beside others, and adapts a head or embeddings, which nothing here reads back.
    """
    inside = set(model.base_model.modules())
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module in inside]
    for target in lora.targets:
        if not any(name.endswith(f".{target}") for name in layers):
            names = ", ".join(sorted({name.rpartition(".")[2] for name in layers})) or "none"
            raise InputError(f"lora.targets: the backbone has no linear layer {target!r}; it has {names}")


def add_policy(backbone: PreTrainedModel, lora: Lora, seed: int) -> PeftModel:
    """Put a policy, a new adapter, on the backbone.

    B is zero, so the policy starts as the backbone. A depends on `seed` and on nothing else, so that all adapters
    of a soup start from one initialisation. Raises InputError as `check_targets` does.
    """
    check_targets(backbone, lora)
    torch.manual_seed(seed)
    return get_peft_model(backbone, lora_config(lora), adapter_name=POLICY)


@dataclass(frozen=True)
class Fresh:
    """A new policy that no model carries yet: its factors, PEFT's configuration, and the digest of its A factors."""

    factors: Factors
    config: dict[str, Any]
    initial_a_sha256: str


def new_policy(backbone: PreTrainedModel, lora: Lora, seed: int) -> Fresh:
    """Return the policy that `add_policy` puts on the backbone, and leave the backbone as it is."""
    model = add_policy(backbone, lora, seed)
    state = {name: value.clone() for name, value in get_peft_model_state_dict(model, adapter_name=POLICY).items()}
    names = sorted({name.removesuffix(".weight").rpartition(".")[0] for name in state})
    factors = {name: (state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"]) for name in names}
    config, initial = model.peft_config[POLICY].to_dict(), initial_a_digest(model)
    model.unload()
    return Fresh(factors, config, initial)


def initial_a_digest(model: PeftModel) -> str:
    """Return a digest of the policy's A factors, to be taken before training."""
    state = get_peft_model_state_dict(model, adapter_name=POLICY)
    return digest({name: value.flatten().tolist() for name, value in sorted(state.items()) if "lora_A" in name})


@contextmanager
def active(model: PeftModel, name: str | None) -> Iterator[None]:
    """Run with adapter `name`, or with the bare backbone for None; the policy is active again afterwards.

    PEFT takes `requires_grad` from adapters that are switched off, which silently drops their gradients: the flags
    are put back as they were.
    """
    flags = {key: parameter.requires_grad for key, parameter in model.named_parameters()}
    try:
        if name is None:
            with model.disable_adapter():
                yield
        else:
            model.set_adapter(name)
            yield
    finally:
        model.set_adapter(POLICY)
        for key, parameter in model.named_parameters():
            parameter.requires_grad_(flags[key])


def write_policy(model: PeftModel, folder: Path | str, backbone: str, about: dict[str, str], card: str | None = None) -> None:
    """Write the policy as a PEFT adapter, with `about` in adapter.json; `backbone` is the base model's relative path."""
    state = get_peft_model_state_dict(model, adapter_name=POLICY)
    write_adapter(folder, state, model.peft_config[POLICY].to_dict(), backbone, {"kind": "policy", **about}, card)


def write_adapter(
    folder: Path | str,
    state: Mapping[str, Tensor],
    config: dict[str, Any],
    backbone: str,
    about: dict[str, str],
    card: str | None = None,
) -> None:
    """Write an adapter folder atomically: PEFT's two files, adapter.json, and its model card (`rlphf.cards`), if there is one.

    Raises InputError for a training that ended in values that are no finite numbers: nothing could read them.
    """
    for name in sorted(state):
        if not torch.isfinite(state[name]).all():
            raise InputError(f"{folder}: the training ended with no finite numbers in {name}; lower its learning rate")
    plain = {key: _plain(value) for key, value in config.items()}
    plain |= {"base_model_name_or_path": backbone, "inference_mode": True}
    with atomic_folder(folder) as temporary:
        tensors = {name: state[name].detach().float().cpu().contiguous() for name in sorted(state)}
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        write_json(temporary / "adapter_config.json", plain)
        write_json(temporary / "adapter.json", about)
        if card is not None:
            write_text(temporary / CARD, card)


def _plain(value):
    if isinstance(value, set):
        return sorted(value)
    return getattr(value, "value", value)
