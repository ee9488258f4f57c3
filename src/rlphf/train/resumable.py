"""Trainers of transformers and TRL with checkpoints of this project's form: theirs are pickles in part, and written in place."""

import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_pt_utils import LengthGroupedSampler

from rlphf.processes import collected, is_first, local_rank
from rlphf.train.checkpoint import (
    check_room,
    checkpoint_folder,
    newest_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)

TRAINED = "trained/"


class Noted(Sampler[int]):
    """A sampler whose orders are drawn from torch's random numbers: notes in `begun` where the order of a pass began.

    A training that goes on within a pass sets `begun` first, and so sees the order again of which it has done a part.
    """

    def __init__(self, sampler: LengthGroupedSampler):
        self.sampler = sampler
        self.begun: Tensor | None = None
        self.again = False

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[int]:
        if self.again and self.begun is not None:
            torch.set_rng_state(self.begun)
        self.again, self.begun = False, torch.get_rng_state()
        return iter(self.sampler)


class Resumable(Trainer):
    """To be named before another Trainer among the bases of a class, whose checkpoints then are this project's.

    One has what is trained, the optimizer and its schedule, the Trainer's state, and every process's random numbers: a training
    that goes on from it ends, on a CPU, with the bytes of an undisturbed one.
    """

    noted: Noted | None = None

    def resume(self) -> int:
        """Train from the newest whole checkpoint in `output_dir` on; return the optimizer steps that are done then."""
        folder = Path(str(self.args.output_dir))
        check_room(folder, self._trained().values())
        self._tensors, self._state = newest_checkpoint(folder) or ({}, {})
        self.train(resume_from_checkpoint=str(checkpoint_folder(folder, self._state["step"])) if self._state else None)
        return self.state.global_step

    def _get_train_sampler(self, *arguments: Any) -> Any:
        found = super()._get_train_sampler(*arguments)
        if isinstance(found, LengthGroupedSampler):
            found = self.noted = Noted(found)
            if "begun" in self._state:
                found.begun, found.again = _read(self._state["begun"]), True
        return found

    def _trained(self) -> dict[str, nn.Parameter]:
        model: Any = self.model
        return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

    def _names(self) -> list[str]:
        """Return the names of the optimizer's parameters in their order there."""
        names = {id(parameter): name for name, parameter in self._trained().items()}
        return [names[id(parameter)] for group in self._optimizer().param_groups for parameter in group["params"]]

    def _optimizer(self) -> Any:
        return self.optimizer

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        randomness = collected(random_state())
        if not is_first():
            return
        kept: Any = self.state.stateful_callbacks
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, ExportableState):
                kept[type(callback).__name__] = callback.state()
        tensors: dict[str, Tensor] = {f"{TRAINED}{name}": value for name, value in self._trained().items()}
        tensors |= optimizer_tensors(self._optimizer(), self._names())
        schedule: Any = self.lr_scheduler
        state = {"schedule": schedule.state_dict(), "random": randomness}
        if self.noted is not None and self.noted.begun is not None:
            state["begun"] = _written(self.noted.begun)
        others = {TRAINER_STATE_NAME: asdict(self.state)}
        save_checkpoint(Path(str(self.args.output_dir)), self.state.global_step, tensors, state, others)

    @torch.no_grad()
    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        for name, parameter in self._trained().items():
            parameter.copy_(self._tensors[f"{TRAINED}{name}"])

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None:
            return
        restore_optimizer(self._optimizer(), self._names(), self._tensors)
        schedule: Any = self.lr_scheduler
        schedule.load_state_dict(self._state["schedule"])
        for group, rate in zip(self._optimizer().param_groups, schedule.get_last_lr(), strict=True):
            group["lr"] = rate

    def _load_rng_state(self, checkpoint: str | None) -> None:
        # Resuming mid-epoch, the order has already been redrawn here; between epochs it has not, and must be drawn from the
        # restored state.
        if self.noted is not None:
            self.noted.again = False
        if checkpoint is not None:
            restore_random_state(self._state["random"][local_rank()])


def random_state() -> dict[str, Any]:
    """Return the states of all generators that a training may draw from, as JSON knows them."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    found: dict[str, Any] = {"python": [version, list(numbers), gauss], "torch": _written(torch.get_rng_state())}
    found["numpy"] = [name, np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)]
    return found | ({"cuda": _written(torch.cuda.get_rng_state())} if torch.cuda.is_available() else {})


def restore_random_state(state: dict[str, Any]) -> None:
    """Put back what `random_state` returned."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(_read(state["torch"]))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(_read(state["cuda"]))


def _written(state: Tensor) -> str:
    return bytes(state.cpu().numpy()).hex()


def _read(state: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(state), dtype=torch.uint8)
