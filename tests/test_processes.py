"""Several processes for one step: batches are shared, one process writes, and steps that run in one say so."""

import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from accelerate.commands import launch as launcher
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from rlphf import processes
from rlphf.cli import main
from rlphf.commands import COMMANDS
from rlphf.data.records import PAIRS, PROMPTS
from rlphf.errors import InputError
from rlphf.files import read_json, write_parquet
from rlphf.tracking.record import step

SOURCE = Path(__file__).parent.parent / "src"


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process is the second of two."""
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)


def test_a_process_that_is_alone_is_the_first_and_has_the_whole_batch() -> None:
    assert processes.is_first() and processes.count() == 1 and processes.share("batch_size", 7) == 7
    processes.in_one("anything")
    processes.wait()


@pytest.mark.parametrize(("visible", "kept"), [(None, "0"), ("2,3", "2"), ("", "")])
def test_a_process_that_is_alone_sees_one_gpu(visible: str | None, kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible or "")
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    processes.keep_to_one_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == kept


def test_launched_processes_see_all_gpus(second: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    processes.keep_to_one_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_a_batch_is_shared_or_refused(second: None) -> None:
    assert processes.share("reward.batch_size", 8) == 4
    with pytest.raises(InputError, match="reward.batch_size: 7 cannot be divided among 2 processes"):
        processes.share("reward.batch_size", 7)


def test_a_step_of_our_own_loops_refuses_company(second: None) -> None:
    with pytest.raises(InputError, match="ppo.algorithm: ppo runs in one process, and 2 share it"):
        processes.in_one("ppo.algorithm: ppo")


def test_a_further_process_leaves_no_record(second: None, tmp_path: Path) -> None:
    with step("test", tmp_path / "step", inputs={"missing": tmp_path / "none"}) as run:
        run.log({"loss": 1.0})
        run.tag(updates=3)
        run.output(tmp_path / "step" / "adapter")
    assert list(tmp_path.iterdir()) == []


def test_only_steps_of_trainers_of_libraries_can_be_shared(capsys: pytest.CaptureFixture) -> None:
    assert {c.name for c in COMMANDS if c.shared} == {"reward train", "mt train", "policy train", "users train"}
    assert main(["--processes", "2", "data", "prompts", "--config", "a", "--out", "b"]) == 2
    assert capsys.readouterr().err == "rlphf: error: --processes: this step runs in one process; leave it out\n"


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[Namespace]:
    """The options of each launch, which does nothing else."""
    found: list[Namespace] = []
    monkeypatch.setattr(launcher, "launch_command", found.append)
    return found


def test_more_than_one_process_is_accelerates_to_start(launched: list[Namespace], monkeypatch: pytest.MonkeyPatch) -> None:
    assert [processes.launch(count, ["mt", "train"]) for count in (0, 1)] == [None, None] and not launched
    assert processes.launch(4, ["mt", "train"]) == 0
    (options,) = launched
    assert options.multi_gpu and options.num_processes == 4 and options.module
    assert (options.training_script, options.training_script_args) == ("rlphf.cli", ["mt", "train"])
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert processes.launch(4, ["mt", "train"]) is None and len(launched) == 1


@pytest.mark.parametrize("status", [2, 3])
def test_the_status_of_a_process_that_said_why_it_ended_is_the_commands(
    monkeypatch: pytest.MonkeyPatch, capsys, status: int
) -> None:
    ended = {1: failed(1, -15), 0: failed(0, status)}
    monkeypatch.setattr(launcher, "launch_command", lambda options: raised(ChildFailedError("rlphf.cli", ended)))
    assert main(["--processes", "2", "mt", "train", *FILES]) == status
    assert capsys.readouterr().err == ""


def test_a_process_that_crashed_is_reported_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "launch_command", lambda options: raised(ChildFailedError("rlphf.cli", {0: failed(0, 1)})))
    with pytest.raises(ChildFailedError, match="exitcode"):
        main(["--processes", "2", "mt", "train", *FILES])


def test_a_further_process_lets_the_first_one_speak(second: None, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", lambda seconds: waited.append(seconds) or print("the first one's", file=sys.stderr))
    assert main(["mt", "train", *FILES]) == 2
    said = capsys.readouterr().err.splitlines()
    assert waited == [processes.PATIENCE] and said[0] == "the first one's" and said[1].startswith("rlphf: error: nowhere.yaml")


@pytest.mark.slow
def test_two_processes_refuse_bad_input_in_one_line(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", "rlphf.cli", "--processes", "2", "mt", "train", *FILES]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stderr.startswith("rlphf: error: nowhere.yaml: ")


FILES = ["--config", "nowhere.yaml", "--pairs", "p", "--backbone", "b", "--out", "out"]


def failed(rank: int, status: int) -> ProcessFailure:
    return ProcessFailure(local_rank=rank, pid=1, exitcode=status, error_file="")


def raised(error: Exception) -> None:
    raise error


TRAINED = "epochs: 2, batch_size: 8, learning_rate: 0.01, lora: {rank: 4, dropout: 0.0}"
CONFIG = f"""
experiment: test
reward: {{{TRAINED}}}
mt: {{{TRAINED}}}
ppo: {{algorithm: rloo, updates: 4, batch_size: 8, mini_batch_size: 4, inner_epochs: 1, max_new_tokens: 4, sample_every: 1}}
"""


def write_inputs(folder: Path) -> None:
    """Write a configuration, pairs and prompts."""
    (folder / "config.yaml").write_text(CONFIG)
    rows = [
        {"id": str(i), "prompt": f"Question {i}?", "chosen": "Honey is sweet.", "rejected": "Bees make it.", "preference": "P1A"}
        | {"user": None, "probability": 1.0, "source": "testbed", "split": "train" if i < 16 else "test"}
        for i in range(20)
    ]
    write_parquet(folder / "P1A" / "pairs.parquet", pa.Table.from_pylist(rows, PAIRS))
    prompts = [{"id": row["id"], "prompt": row["prompt"], "topic": None, "source": "own", "split": "train"} for row in rows]
    write_parquet(folder / "prompts.parquet", pa.Table.from_pylist(prompts, PROMPTS))


@pytest.mark.slow
@pytest.mark.parametrize("command", ["reward", "mt", "policy"])
def test_two_processes_take_as_many_steps_as_one_and_write_once(
    command: str, tiny_backbone: Path, make_reward: Callable[..., Path], tmp_path: Path
) -> None:
    """On CPUs, by the same `accelerate launch`; what GPUs do is not tested here."""
    write_inputs(tmp_path)
    inputs = ["--config", tmp_path / "config.yaml", "--backbone", tiny_backbone]
    inputs += ["--pairs", tmp_path / "P1A" / "pairs.parquet"] if command != "policy" else []
    inputs += ["--prompts", tmp_path / "prompts.parquet", "--reward", make_reward()] if command == "policy" else []
    inputs += ["--preference", "P1A"] if command != "mt" else []
    found = {}
    for count in (1, 2):
        out = tmp_path / str(count)
        arguments = ["--processes", count, command, "train", *inputs, "--out", out]
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
        done = subprocess.run(
            [sys.executable, "-m", "rlphf.cli", *map(str, arguments)], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert read_json(out / "record.json")["status"] == "finished" and not (out / "checkpoints").exists()
        assert (out / "adapter" / "adapter_model.safetensors").exists()
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        found[count] = [(line["step"], sorted(line["metrics"])) for line in lines]
    # Sixteen pairs, twice, in batches of eight of all processes together; and four outer steps, counted from 0.
    assert found[1] == found[2] and max(number for number, _ in found[1]) == (3 if command == "policy" else 4)
