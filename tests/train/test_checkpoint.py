"""Checkpoints: whole or not at all, the two newest, and of this run alone."""

from pathlib import Path

import pytest
import torch

from rlphf.config import parse
from rlphf.errors import InputError
from rlphf.tracking.record import Run, step
from rlphf.train.checkpoint import (
    check_room,
    checkpoints,
    newest_checkpoint,
    optimizer_tensors,
    own_checkpoints,
    restore_optimizer,
    save_checkpoint,
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


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "digests.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "changed"])
def test_a_damaged_one_falls_back_to_the_one_before_and_says_so(tmp_path: Path, capsys, name: str, damage: str) -> None:
    save(tmp_path, 4)
    save(tmp_path, 6)
    path = tmp_path / "step-000006" / name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        # Of the last number of the tensors, or a digit or a letter of the others, a bit is another one.
        path.write_bytes(content[:-5] if damage == "cut" else content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])
    found = newest_checkpoint(tmp_path)
    assert found is not None and found[1]["step"] == 4 and found[0]["x"].tolist() == [4.0] * 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"checkpoint: {tmp_path / 'step-000006'} is damaged and passed over: ")


def test_an_empty_folder_is_no_checkpoint_and_where_none_is_whole_there_is_none(tmp_path: Path, capsys) -> None:
    save(tmp_path, 4)
    (tmp_path / "step-000006").mkdir()
    found = newest_checkpoint(tmp_path)
    assert found is not None and found[1]["step"] == 4
    (tmp_path / "step-000004" / "state.json").unlink()
    assert newest_checkpoint(tmp_path) is None
    assert len(capsys.readouterr().err.splitlines()) == 3


def test_the_newest_is_that_of_the_largest_number(tmp_path: Path) -> None:
    for number in (999_999, 1_000_000):
        save(tmp_path, number)
    found = newest_checkpoint(tmp_path)
    assert found is not None and found[1]["step"] == 1_000_000


def test_a_checkpoint_that_is_cut_short_while_it_is_written_leaves_the_ones_before(tmp_path: Path, monkeypatch) -> None:
    save(tmp_path, 4)

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rlphf.train.checkpoint.seal", killed)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000004"]


def test_too_little_room_for_checkpoints_is_an_error_in_one_line(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: type("Usage", (), {"free": 47_999}))
    check_room(tmp_path / "new", [torch.zeros(900), torch.zeros(99)])
    with pytest.raises(InputError, match=r"need about 0 MB, and 0 MB are free; make room \(`rlphf gc`"):
        check_room(tmp_path / "new", [torch.zeros(1000)])


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "nowhere") is None


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


def test_an_interrupted_run_goes_on_and_another_one_does_not(tmp_path: Path, monkeypatch) -> None:
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
    # Every process has random numbers of its own in a checkpoint.
    assert attempt(seed=2, preference="P1B")
    monkeypatch.setattr("rlphf.train.checkpoint.count", lambda: 2)
    assert not attempt(seed=2, preference="P1B")
    monkeypatch.undo()
    (folder / "owner.json").write_text("{")
    assert not attempt(seed=2, preference="P1B")


def test_a_run_that_is_through_leaves_no_checkpoints(tmp_path: Path, run: Run) -> None:
    with own_checkpoints(tmp_path / "checkpoints", run) as folder:
        save(folder, 1)
    assert not folder.exists()
