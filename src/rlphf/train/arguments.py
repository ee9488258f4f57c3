"""Arguments shared by the trainers of TRL that read a fixed data set, and the type of what they train."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from rlphf.errors import InputError
from rlphf.processes import share
from rlphf.settings import MT, Reward


def trainer_arguments(folder: Path, examples: int, settings: Reward | MT, seed: int) -> dict[str, Any]:
    """Return the arguments of a trainer that makes its passes over `examples` and writes its checkpoints to `folder`.

    Batches are of examples of like length, which pads less; what that does to reward models is in docs/learning.md.
    Twenty lines of metrics per training. A batch is that of all processes together; InputError where it
    cannot be divided among them, or among passes of `micro_batch_size`.
    """
    steps = -(-examples // settings.batch_size) * settings.epochs
    own = share("batch_size", settings.batch_size)
    size = settings.micro_batch_size or own
    if own % size:
        raise InputError(f"micro_batch_size: {size} does not divide the {own} examples of a step; take one that does, or null")
    return {
        "output_dir": str(folder),
        "num_train_epochs": settings.epochs,
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": own // size,
        "train_sampling_strategy": "group_by_length",
        "bf16": torch.cuda.is_available(),
        "gradient_checkpointing": False,
        "max_length": None,
        "logging_steps": max(1, steps // 20),
        "save_steps": save_steps(steps),
        "report_to": "none",
        "disable_tqdm": True,
        "seed": seed,
        "use_cpu": not torch.cuda.is_available(),
    }


def save_steps(steps: int) -> int:
    """Return the steps between checkpoints: a training that is killed loses a tenth of itself at most."""
    return max(1, steps // 10)


def train_in_float32(model: nn.Module) -> None:
    """Put what is trained into float32; on a backbone of 4 bits TRL's trainers put it into bfloat16.

    A step of AdamW is smaller than what bfloat16 resolves at weights such as a new head's, and our own trainers use float32, too.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
