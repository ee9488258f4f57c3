"""Checkpoints: whole or not at all, the two newest, and of this run alone."""

from pathlib import Path

import pytest
import torch

from rlphf.config import parse
from rlphf.tracking.record import Run, step
from rlphf.train.checkpoint import (
    checkpoints,
    newest_checkpoint,
    optimizer_tensors,
    own_checkpoints,
    restore_optimizer,
    save_checkpoint,
    trainer_checkpoint,
)


def save(folder: Path, number: int) -> None:
    save_checkpoint(folder, number, {"x": torch.full((3,), float(number))}, {"kappa": number / 10})


def test_the_two_newest_are_kept_and_the_newest_is_read(tmp_path: Path) -> None:
    for number in (2, 4, 10):
        save(tmp_path, number)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-000004", "step-000010"]
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert found[0]["x"].tolist() == [10.0] * 3 and found[1] == {"step": 10, "kappa": 1.0}


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_one_falls_back_to_the_one_before(tmp_path: Path, name: str, damage: str) -> None:
    save(tmp_path, 4)
    save(tmp_path, 6)
    path = tmp_path / "step-000006" / name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        path.unlink()
    found = newest_checkpoint(tmp_path)
    assert found is not None and found[1]["step"] == 4


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "nowhere") is None
    assert trainer_checkpoint(tmp_path / "nowhere") is None


def test_a_restored_optimizer_takes_the_same_steps() -> None:
    def steps(optimizer: torch.optim.Optimizer, weight: torch.Tensor, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            (weight**2).sum().backward()
            optimizer.step()

    one = torch.tensor([1.0, -2.0], requires_grad=True)
    first = torch.optim.Adam([one], lr=0.1)
    steps(first, one, 3)
    other = one.detach().clone().requires_grad_()
    second = torch.optim.Adam([other], lr=0.1)
    restore_optimizer(second, ["weight"], optimizer_tensors(first, ["weight"]))
    steps(first, one, 3)
    steps(second, other, 3)
    assert torch.equal(one, other)


def left_behind(folder: Path, run: Run) -> bool:
    """Whether what an interrupted run left in `folder` is still there for `run`."""
    try:
        with own_checkpoints(folder, run) as own:
            there = (own / "step-000001").exists()
            save(own, 1)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        return there


def test_an_interrupted_run_goes_on_and_another_one_does_not(tmp_path: Path) -> None:
    folder, given = tmp_path / "checkpoints", tmp_path / "input.txt"
    given.write_text("one")

    def attempt(seed: int = 1, preference: str = "P1A") -> bool:
        config = parse({"experiment": "test", "seed": seed})
        with step("ppo", tmp_path / "record", config, inputs={"prompts": given}, tags={"preference": preference}) as run:
            return left_behind(folder, run)

    assert not attempt()
    assert attempt()
    assert not attempt(seed=2)
    assert attempt(seed=2)
    assert not attempt(seed=2, preference="P1B")
    given.write_text("two")
    assert not attempt(seed=2, preference="P1B")
    (folder / "owner.json").write_text("{")
    assert not attempt(seed=2, preference="P1B")


def test_a_run_that_is_through_leaves_no_checkpoints(tmp_path: Path, run: Run) -> None:
    with own_checkpoints(tmp_path / "checkpoints", run) as folder:
        save(folder, 1)
    assert not folder.exists()


def test_a_trainers_half_written_checkpoint_is_passed_over(tmp_path: Path) -> None:
    for number in (5, 10, 20):
        (tmp_path / f"checkpoint-{number}").mkdir()
        (tmp_path / f"checkpoint-{number}" / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-20" / "trainer_state.json").write_text('{"global_step"')
    assert trainer_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    (tmp_path / "checkpoint-10" / "trainer_state.json").unlink()
    assert trainer_checkpoint(tmp_path) == str(tmp_path / "checkpoint-5")
