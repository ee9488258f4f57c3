"""Writes what a transformers Trainer logs into a step's record, and shows on a terminal how far it is."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlphf.progress import bar
from rlphf.tracking.record import Run


class TrainerLog(TrainerCallback):
    """Logs every number that the Trainer logs at its global step; goes on in an earlier attempt's metrics when it resumes."""

    def __init__(self, run: Run):
        self.run = run
        self.shown = ExitStack()
        self.done: Callable[[int], object] = lambda more: None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take over the metrics up to the checkpoint that the Trainer starts from."""
        if state.is_world_process_zero:
            self.run.resume(state.global_step + 1 if state.global_step else 0)
            self.done = self.shown.enter_context(bar(state.max_steps, "steps", state.global_step))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Show that another step is done."""
        self.done(1)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take the bar away."""
        self.shown.close()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Append the numbers of `logs`."""
        numbers = {name: value for name, value in (logs or {}).items() if isinstance(value, (int, float))}
        if state.is_world_process_zero and numbers:
            self.run.log(numbers, step=state.global_step)
