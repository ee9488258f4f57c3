import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlphf.config import Experiment, config_hash
from rlphf.errors import InputError
from rlphf.files import sha256, write_text
from rlphf.tracking.provenance import described, is_alive, process_start
from rlphf.tracking.record import EARLIER, METRICS, RECORD, SAMPLES, SENT, read_metrics, step
from rlphf.tracking.steps import end_workflow, start_workflow

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def python(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )


def record(folder: Path) -> dict:
    # parse_constant is called for NaN and Infinity, which are no JSON.
    return json.loads((folder / RECORD).read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def steps_of(folder: Path) -> list[int]:
    return [line["step"] for line in read_metrics(folder / METRICS)]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


RUN_UNTIL_STOPPED = """
import sys, time
from rlphf.files import atomic_file
from rlphf.tracking.record import step
with step("ppo", sys.argv[1]) as run:
    for i in range(5):
        run.log({"kl": i}, step=i)
    with atomic_file(run.folder / "adapter.bin"):
        print("ready", flush=True)
        time.sleep(60)
"""


def test_record_says_what_made_the_outputs_and_from_what(tmp_path: Path) -> None:
    Path("pairs.parquet").write_bytes(b"pairs")
    Path("backbone").mkdir()
    Path("backbone/model.bin").write_bytes(b"weights")
    experiment = Experiment(experiment="demo", seed=7)
    inputs = {"pairs": "pairs.parquet", "backbone": Path("backbone")}
    with step("reward", "results/P2B", experiment, experiment.reward, inputs, {"preference": "P2B", "fold": 3}) as run:
        assert record(run.folder)["status"] == "running"
        (run.folder / "scores.csv").write_text("1\n")
        run.output(run.folder / "scores.csv")
        run.artifact(run.folder / "scores.csv", "backbone")
        run.tag(rule="delta")
    made = record(Path("results/P2B"))
    assert (made["status"], made["step"], made["seed"]) == ("finished", "reward", 7)
    assert made["config_hash"] == config_hash(experiment)
    assert made["params"] == experiment.reward.model_dump(mode="json")
    assert made["tags"] == {"preference": "P2B", "fold": "3", "rule": "delta"}
    assert made["inputs"]["pairs"] == {"path": "pairs.parquet", "sha256": sha256("pairs.parquet"), "bytes": 5}
    assert made["inputs"]["backbone"] == {"path": "backbone", "sha256": sha256("backbone"), "bytes": 7}
    assert made["outputs"] == {"results/P2B/scores.csv": {"sha256": sha256("results/P2B/scores.csv"), "bytes": 2}}
    assert made["artifacts"] == ["scores.csv", "../../backbone"]
    assert made["versions"]["python"] and made["versions"]["torch"]
    assert made["start"] <= made["end"] and made["seconds"] >= 0 and made["peak_mb"] > 1
    assert "git_commit" not in made


def test_commit_and_changes_are_recorded_inside_a_repository() -> None:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    Path("code.py").write_text("a = 1\n")
    for command in (("init", "-q"), ("add", "code.py"), (*identity, "commit", "-qm", "first")):
        subprocess.run(["git", *command], check=True)
    with step("tables", "clean"):
        pass
    Path("code.py").write_text("a = 2\n")
    with step("tables", "changed"):
        pass
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    assert (record(Path("clean"))["git_commit"], record(Path("clean"))["git_dirty"]) == (head, False)
    assert (record(Path("changed"))["git_commit"], record(Path("changed"))["git_dirty"]) == (head, True)


def test_a_record_names_the_job_of_slurm_that_its_step_ran_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with step("tables", "here"):
        pass
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    with step("tables", "there"):
        pass
    assert "slurm_job_id" not in record(Path("here"))
    assert record(Path("there"))["slurm_job_id"] == "4711"


def test_nan_and_infinity_survive_in_metrics() -> None:
    with step("ppo", "out") as run:
        run.log({"nan": float("nan"), "up": float("inf"), "down": float("-inf"), "flag": True, "kl": 0.1}, step=3)
    line = json.loads(Path("out", METRICS).read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))
    assert line["step"] == 3 and line["metrics"]["nan"] == "nan"
    (back,) = read_metrics(Path("out", METRICS))
    assert back["metrics"]["nan"] != back["metrics"]["nan"]
    assert (back["metrics"]["up"], back["metrics"]["down"]) == (float("inf"), float("-inf"))
    assert (back["metrics"]["flag"], back["metrics"]["kl"]) == (1.0, 0.1)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("pairs.jsonl: line 3: field chosen is missing"), "failed", "pairs.jsonl: line 3: field chosen is missing"),
        (ValueError("two\nlines"), "failed", "ValueError: two lines"),
        (KeyboardInterrupt(), "killed", "KeyboardInterrupt:"),
    ],
)
def test_a_step_that_stops_early_says_how_in_one_line(error: BaseException, status: str, line: str) -> None:
    with pytest.raises(type(error)):
        with step("ppo", "out") as run:
            run.output("never written")
            raise error
    ended = record(Path("out"))
    assert (ended["status"], ended["error"], ended["outputs"]) == (status, line, {})
    assert ended["end"]


def test_missing_input_is_an_input_error_and_a_failed_record() -> None:
    with pytest.raises(InputError, match="input pairs: pairs.parquet does not exist; run the step that makes it"):
        with step("reward", "out", inputs={"pairs": "pairs.parquet"}):
            pytest.fail("the step must not begin")
    assert record(Path("out"))["status"] == "failed"


def test_missing_output_fails_the_step() -> None:
    with pytest.raises(FileNotFoundError):
        with step("reward", "out") as run:
            run.output("out/adapter")
    assert record(Path("out"))["status"] == "failed"


def test_the_folder_of_the_record_is_no_output() -> None:
    with pytest.raises(ValueError, match="holds the record"):
        with step("reward", "out") as run:
            run.output("out")


def test_sigterm_ends_a_step_as_killed_and_leaves_no_temporary_file() -> None:
    process = python(RUN_UNTIL_STOPPED, "out")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM
    assert record(Path("out"))["status"] == "killed"
    assert sorted(p.name for p in Path("out").iterdir()) == [METRICS, RECORD]


def test_the_handler_of_sigterm_is_put_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with step("ppo", "out"):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_fresh_start_begins_new_metrics_and_sets_the_earlier_record_aside() -> None:
    for start in (0, 100):
        with step("ppo", "out") as run:
            for i in range(start, start + 3):
                run.log({"kl": i}, step=i)
            run.log_samples([{"response": "yes"}], step=start)
    assert steps_of(Path("out")) == [100, 101, 102]
    (earlier,) = Path("out", EARLIER).iterdir()
    assert steps_of(earlier) == [0, 1, 2]
    assert record(earlier)["id"] == earlier.name != record(Path("out"))["id"]
    assert record(Path("out"))["attempts"] == []


def test_a_resumed_step_goes_on_with_nothing_lost_and_nothing_doubled() -> None:
    with pytest.raises(KeyboardInterrupt):
        with step("ppo", "out") as run:
            for i in range(58):
                run.log({"kl": i}, step=i)
                run.log_samples([{"response": "first"}], step=i)
            raise KeyboardInterrupt
    with Path("out", METRICS).open("a") as stream:
        stream.write('{"step": 58, "ti')
    with pytest.raises(KeyboardInterrupt):
        with step("ppo", "out"):
            raise KeyboardInterrupt
    with step("ppo", "out") as run:
        run.resume(50)
        for i in range(50, 60):
            run.log({"kl": -i}, step=i)
            run.log_samples([{"response": "second"}], step=i)
    lines = read_metrics(Path("out", METRICS))
    assert [(line["step"], line["metrics"]["kl"]) for line in lines] == [(i, float(i if i < 50 else -i)) for i in range(60)]
    samples = [json.loads(line) for line in Path("out", SAMPLES).read_text().splitlines()]
    assert [(s["step"], s["response"]) for s in samples] == [(i, "first" if i < 50 else "second") for i in range(60)]
    ended = record(Path("out"))
    assert ended["resumed_from"] == 50
    assert [attempt["status"] for attempt in ended["attempts"]] == ["killed", "killed"]


@pytest.mark.parametrize("name", [SAMPLES, METRICS])
def test_an_attempt_that_is_killed_while_it_takes_metrics_over_loses_none(monkeypatch, name: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        with step("ppo", "out") as run:
            for i in range(5):
                run.log({"kl": i}, step=i)
                run.log_samples([{"response": "first"}], step=i)
            raise KeyboardInterrupt

    def killed(path: Path, text: str) -> None:
        if path.name == name:
            raise KeyboardInterrupt
        write_text(path, text)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("rlphf.tracking.record.write_text", killed)
        with step("ppo", "out") as run:
            run.resume(4)
    with step("ppo", "out") as run:
        run.resume(4)
    assert steps_of(Path("out")) == [0, 1, 2, 3]
    assert len(Path("out", SAMPLES).read_text().splitlines()) == 4


def test_resuming_from_nothing_is_a_fresh_start() -> None:
    with step("ppo", "out") as run:
        run.resume(5)
        run.resume(0)
        run.log({"kl": 1}, step=5)
    assert steps_of(Path("out")) == [5] and "resumed_from" not in record(Path("out"))


def test_a_folder_where_a_step_is_at_work_is_refused_until_that_step_is_gone() -> None:
    process = python(RUN_UNTIL_STOPPED, "out")
    try:
        assert process.stdout.readline() == "ready\n"
        with pytest.raises(InputError, match=f"process {process.pid} is at work here"):
            with step("ppo", "out"):
                pass
        assert record(Path("out"))["status"] == "running"
    finally:
        process.kill()
        process.wait()
    with step("ppo", "out") as run:
        run.resume(2)
    assert steps_of(Path("out")) == [0, 1]
    assert record(Path("out"))["attempts"][0]["status"] == "killed"


def test_a_process_is_told_from_another_that_got_its_number() -> None:
    process = python("import time; time.sleep(60)")
    start = process_start(process.pid)
    here = {"host": os.uname().nodename, "pid": process.pid, "process_start": start}
    try:
        assert start is not None and is_alive(here)
        assert not is_alive({**here, "process_start": "1"})
        assert is_alive({**here, "process_start": "1", "host": "another"})
    finally:
        process.kill()
    # Once dead and not waited for, it is a zombie: its number is taken, but it works no more.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(here)
    process.wait()
    assert not is_alive({**here, "process_start": None})


def test_steps_know_their_workflow_while_it_runs() -> None:
    results = Path("results/demo")
    start_workflow(results, "demo", "abc", ["all"])
    parent = json.loads((results / ".workflow.json").read_text())
    with step("ppo", results / "seed-1/ppo/P1A"):
        pass
    end_workflow(results, "finished")
    with step("ppo", results / "seed-1/ppo/P1B"):
        pass
    inside, outside = record(results / "seed-1/ppo/P1A"), record(results / "seed-1/ppo/P1B")
    assert (inside["parent"], inside["config_hash"]) == (parent["id"], "abc")
    assert outside["parent"] is None
    ended = json.loads((results / ".workflow.json").read_text())
    assert (ended["status"], ended["id"], ended["targets"]) == ("finished", parent["id"], ["all"])
    with pytest.raises(InputError, match="use finished, failed or killed"):
        end_workflow(results, "done")


def test_a_broken_workflow_record_does_not_stop_a_step() -> None:
    Path("results/demo").mkdir(parents=True)
    Path("results/demo/.workflow.json").write_text("{")
    with step("ppo", "results/demo/P1A"):
        pass
    assert record(Path("results/demo/P1A"))["parent"] is None


def test_a_broken_earlier_record_does_not_stop_a_step() -> None:
    Path("out").mkdir()
    for text in ("{", "[]", '{"id": "../../etc"}'):
        Path("out", RECORD).write_text(text)
        with step("ppo", "out"):
            pass
        assert record(Path("out"))["status"] == "finished"
        Path("out", RECORD).unlink()
    assert not Path("out", EARLIER).exists()


def test_records_need_no_heavy_import() -> None:
    code = "import sys, rlphf.tracking.record, rlphf.tracking.steps; print(' '.join(sys.modules))"
    loaded = set(python(code).communicate()[0].split())
    assert "rlphf.tracking.record" in loaded
    assert not loaded & {"mlflow", "torch", "transformers", "pyarrow", "numpy", "pydantic", "pandas"}


@pytest.mark.parametrize("left", [None, "{", "[]"])
def test_without_a_readable_record_everything_begins_anew(left: str | None) -> None:
    for text in ("first", "second"):
        with step("ppo", "out") as run:
            run.log({"kl": 1})
            run.log_samples([{"response": text}])
        if text == "first":
            Path("out", SENT).write_text("{}")
            Path("out", RECORD).unlink()
            if left is not None:
                Path("out", RECORD).write_text(left)
    assert [json.loads(line)["response"] for line in Path("out", SAMPLES).read_text().splitlines()] == ["second"]
    assert steps_of(Path("out")) == [0] and not Path("out", SENT).exists()


def test_the_bytes_of_an_input_are_those_of_its_digest() -> None:
    write_text("raw/a.json", "{}")
    before = described(Path("raw"))
    write_text("raw/.git/index", "hidden")
    assert described(Path("raw")) == before == {"sha256": sha256("raw"), "bytes": 2}
