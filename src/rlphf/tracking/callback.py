"""Writes what a transformers Trainer logs into a step's record."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlphf.tracking.record import Run


class TrainerLog(TrainerCallback):
    """Logs every number that the Trainer logs at its global step; goes on in an earlier attempt's metrics when it resumes."""

    def __init__(self, run: Run):
        self.run = run

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take over the metrics up to the checkpoint that the Trainer starts from."""
        if state.is_world_process_zero:
            self.run.resume(state.global_step + 1 if state.global_step else 0)

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
