"""LoRA adapters on one shared backbone: made, written, read, and switched, always in PEFT's own file format."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.utils import get_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlphf.errors import InputError
from rlphf.files import atomic_folder, check_file, digest, read_json, write_json
from rlphf.lm.sampling import hidden_states, join
from rlphf.settings import Lora
from rlphf.soup.adapter import check_numbers, read_about

# The policy goes by PEFT's own default name, the only one under which TRL's trainers find it.
POLICY, REWARD = "default", "reward"
WEIGHTS = "adapter_model.safetensors"


def lora_config(lora: Lora, task_type: str = "CAUSAL_LM") -> LoraConfig:
    """Return PEFT's configuration of a LoRA adapter."""
    return LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=sorted(lora.targets), task_type=task_type
    )


def add_policy(backbone: PreTrainedModel, lora: Lora, seed: int) -> PeftModel:
    """Put a policy, a new adapter, on the backbone.

    B is zero, so the policy starts as the backbone. A depends on `seed` and on nothing else, so that all adapters
    of a soup start from one initialisation. Raises InputError if the backbone has no layer of the targets' names.
    """
    torch.manual_seed(seed)
    try:
        return get_peft_model(backbone, lora_config(lora), adapter_name=POLICY)
    except ValueError as error:
        raise InputError(f"lora.targets: {error}") from None


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


def read_tensors(folder: Path | str) -> dict[str, Tensor]:
    """Read an adapter's tensors; raise InputError unless they are finite numbers in a sound safetensors file."""
    path = Path(folder) / WEIGHTS
    check_file(path)
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: cannot be read as safetensors ({error}); pickled adapters are not accepted") from None
    check_numbers(tensors, path)
    return tensors


def add_reward(model: PeftModel, folder: Path | str, backbone_sha256: str) -> nn.Linear:
    """Load a reward model's LoRA beside the policy, on the same backbone, and return its scalar head.

    The adapter's score of a text is head(last hidden state of the text's last token) with adapter "reward" active:
    exactly what `PeftModel.from_pretrained` on a sequence classifier computes. Raises InputError for an adapter
    of another backbone, without a head, or with other tensors than the model has place for.
    """
    about = read_about(folder, required=True)
    if about.get("backbone_sha256") != backbone_sha256:
        raise InputError(f"{folder}: trained on another backbone; train it again on this one")
    config = read_json(Path(folder) / "adapter_config.json")
    tensors = read_tensors(folder)
    weight = tensors.pop("base_model.model.score.weight", None)
    if weight is None:
        raise InputError(f"{folder}: has no score head, so it is no reward model")
    # PEFT's adapters of a classifier and of a language model name the layers of the backbone alike.
    try:
        lora = LoraConfig(r=config["r"], lora_alpha=config["lora_alpha"], target_modules=sorted(config["target_modules"]))
        model.add_adapter(REWARD, lora)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{folder}/adapter_config.json: is no LoRA adapter's for this backbone ({error}); train it again"
        ) from None
    places = {name: value.shape for name, value in get_peft_model_state_dict(model, adapter_name=REWARD).items()}
    shapes = {name: value.shape for name, value in tensors.items()}
    for name in sorted(places.keys() | shapes.keys()):
        if places.get(name) != shapes.get(name):
            found, wanted = (list(s[name]) if name in s else "none" for s in (shapes, places))
            raise InputError(f"{folder}: tensor {name}: found {found}, the backbone has place for {wanted}; train it again")
    set_peft_model_state_dict(model, tensors, adapter_name=REWARD)
    model.set_adapter(POLICY)
    head = nn.Linear(weight.shape[1], 1, bias=False)
    head.weight = nn.Parameter(weight.float(), requires_grad=False)
    return head.to(model.device)


@torch.no_grad()
def score_responses(
    model: PeftModel, head: nn.Linear, judged: Sequence[Sequence[list[int]]], responses: Sequence[list[int]], pad_id: int
) -> Tensor:
    """Return the reward model's score (B,) of each response: the mean over its encoded prompts in `judged`."""
    sizes = torch.tensor([len(prompts) for prompts in judged], device=head.weight.device)
    owner = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
    prompts = [prompt for group in judged for prompt in group]
    with active(model, REWARD):
        _, last = hidden_states(model, join(prompts, [responses[i] for i in owner.tolist()], pad_id, head.weight.device))
    scores = head(last.float()).squeeze(-1)
    return scores.new_zeros(len(sizes)).index_add(0, owner, scores) / sizes


def write_policy(model: PeftModel, folder: Path | str, backbone: str, about: dict[str, str]) -> None:
    """Write the policy as a PEFT adapter, with `about` in adapter.json; `backbone` is the base model's relative path."""
    state = get_peft_model_state_dict(model, adapter_name=POLICY)
    config = model.peft_config[POLICY].to_dict()
    write_adapter(folder, state, config, backbone, {"kind": "policy", **about})


def write_adapter(folder: Path | str, state: dict[str, Tensor], config: dict, backbone: str, about: dict[str, str]) -> None:
    """Write an adapter folder atomically: PEFT's two files, and adapter.json."""
    plain = {key: _plain(value) for key, value in config.items()}
    plain |= {"base_model_name_or_path": backbone, "inference_mode": True}
    with atomic_folder(folder) as temporary:
        tensors = {name: state[name].detach().float().cpu().contiguous() for name in sorted(state)}
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        write_json(temporary / "adapter_config.json", plain)
        write_json(temporary / "adapter.json", about)


def _plain(value):
    if isinstance(value, set):
        return sorted(value)
    return getattr(value, "value", value)
