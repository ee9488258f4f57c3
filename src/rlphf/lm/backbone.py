"""Loading a backbone: the one frozen base language model that every adapter sits on."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from rlphf.errors import InputError
from rlphf.files import sha256


def load_backbone(folder: Path | str, dtype: torch.dtype = torch.float32) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a backbone, frozen and in evaluation mode, and its tokenizer; on CUDA where there is one.

    Raises InputError for a folder that holds none, or none that needs no code of its own; nothing is unpickled.
    """
    if not (Path(folder) / "config.json").exists():
        raise InputError(f"{folder}: holds no backbone (config.json is missing)")
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # The library passes on whatever a broken file leads its many parts to.
        raise InputError(f"{folder}: cannot be loaded as a backbone ({error or type(error).__name__})") from None
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise InputError(f"{folder}: the tokenizer needs a padding token that is not its end token")
    model.requires_grad_(False)
    return model.eval().to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer


def backbone_sha256(folder: Path | str) -> str:
    """Return the digest by which adapters name their backbone: that of its weights."""
    return sha256(Path(folder) / "model.safetensors")
