"""What TRL's trainers are told: batches in passes, and trained weights in float32."""

from pathlib import Path

import pytest
import torch
from torch import nn

from rlphf.errors import InputError
from rlphf.settings import MT, Reward
from rlphf.train.arguments import train_in_float32, trainer_arguments


def test_a_batch_is_one_pass_or_several(tmp_path: Path) -> None:
    whole = trainer_arguments(tmp_path, 100, Reward(batch_size=8), seed=0)
    assert (whole["per_device_train_batch_size"], whole["gradient_accumulation_steps"]) == (8, 1)
    parts = trainer_arguments(tmp_path, 100, MT(batch_size=8, micro_batch_size=2), seed=0)
    assert (parts["per_device_train_batch_size"], parts["gradient_accumulation_steps"]) == (2, 4)
    assert parts["save_steps"] == whole["save_steps"] == 1


def test_a_pass_that_does_not_divide_the_batch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="micro_batch_size: 3 does not divide the 8 examples of a step"):
        trainer_arguments(tmp_path, 100, Reward(batch_size=8, micro_batch_size=3), seed=0)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="micro_batch_size: 8 does not divide the 4 examples of a step"):
        trainer_arguments(tmp_path, 100, Reward(batch_size=8, micro_batch_size=8), seed=0)


def test_what_is_trained_is_put_into_float32_and_what_is_frozen_is_left() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).to(torch.bfloat16)
    model[0].requires_grad_(False)
    train_in_float32(model)
    assert model[0].weight.dtype == torch.bfloat16 and model[1].weight.dtype == torch.float32
