"""Loading a backbone: the one frozen base language model that every adapter sits on."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rlphf.errors import InputError
from rlphf.files import sha256


def load_backbone(folder: Path | str, dtype: torch.dtype = torch.float32) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a backbone, frozen and in evaluation mode, and its tokenizer; on CUDA where there is one."""
    if not (Path(folder) / "config.json").exists():
        raise InputError(f"{folder}: holds no backbone (config.json is missing)")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, use_safetensors=True, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise InputError(f"{folder}: the tokenizer needs a padding token that is not its end token")
    model.requires_grad_(False)
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def backbone_sha256(folder: Path | str) -> str:
    """Return the digest by which adapters name their backbone: that of its weights."""
    return sha256(Path(folder) / "model.safetensors")
