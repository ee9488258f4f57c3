"""What all of TRL's trainers that read a fixed data set are told alike."""

from pathlib import Path
from typing import Any

import torch


def trainer_arguments(folder: Path, examples: int, batch_size: int, epochs: int, seed: int) -> dict[str, Any]:
    """Return the arguments of a trainer that makes `epochs` passes over `examples` and writes its checkpoints to `folder`.

    Batches are of examples of like length, which pads less; what that does to reward models is in docs/learning.md.
    Twenty lines of metrics and two checkpoints per training.
    """
    steps = -(-examples // batch_size) * epochs
    return {
        "output_dir": str(folder),
        "num_train_epochs": epochs,
        "per_device_train_batch_size": batch_size,
        "train_sampling_strategy": "group_by_length",
        "bf16": torch.cuda.is_available(),
        "gradient_checkpointing": False,
        "max_length": None,
        "logging_steps": max(1, steps // 20),
        "save_steps": max(1, steps // 2),
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
        "seed": seed,
        "use_cpu": not torch.cuda.is_available(),
    }
