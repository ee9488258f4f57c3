from pathlib import Path

import pytest

from rlphf.tracking.record import METRICS, read_metrics, step

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


class Line(torch.nn.Module):
    """y = a x, with the loss that a Trainer expects."""

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor(0.0))

    def forward(self, x, labels):
        return {"loss": ((self.a * x - labels) ** 2).mean()}


def train(folder: Path, run, steps: int, resume: bool) -> None:
    from rlphf.tracking.callback import TrainerLog

    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "checkpoints"),
        max_steps=steps,
        logging_steps=1,
        save_steps=2,
        per_device_train_batch_size=2,
        lr_scheduler_type="constant",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    data = [{"x": float(i), "labels": 2.0 * i} for i in range(20)]
    transformers.Trainer(Line(), arguments, train_dataset=data, callbacks=[TrainerLog(run)]).train(resume_from_checkpoint=resume)


def test_a_trainer_that_is_killed_and_resumed_logs_every_step_once(tmp_path: Path) -> None:
    folder = tmp_path / "reward"
    with pytest.raises(KeyboardInterrupt):
        with step("reward", folder) as run:
            train(folder, run, steps=3, resume=False)
            raise KeyboardInterrupt
    first = [line for line in read_metrics(folder / METRICS) if "loss" in line["metrics"]]
    assert [line["step"] for line in first] == [1, 2, 3]
    with step("reward", folder) as run:
        # Only the checkpoint of step 2 is left, as after a kill in step 3.
        for late in folder.glob("checkpoints/checkpoint-3"):
            late.rename(folder / "late")
        train(folder, run, steps=5, resume=True)
    lines = [line for line in read_metrics(folder / METRICS) if "loss" in line["metrics"]]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert lines[:2] == first[:2]
    assert lines[2]["metrics"]["loss"] == pytest.approx(first[2]["metrics"]["loss"])
