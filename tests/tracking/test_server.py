"""Records on their way to a real MLflow server that is killed and comes back: nothing lost, nothing doubled."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from benchmarks.server import Server

from rlphf.cli import main
from rlphf.tracking.record import METRICS, RECORD, step
from rlphf.tracking.steps import end_workflow, start_workflow

pytest.importorskip("mlflow")
# Starting a server takes ten seconds and more.
pytestmark = pytest.mark.slow

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
LIMIT = 180.0

# A step that logs until it is told to end; its first argument is the experiment's folder.
STEP = """
import sys, time
from pathlib import Path
from rlphf.tracking.record import step
results, name, count, pause = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
with step("ppo", results / "seed-7/ppo" / name, tags={"preference": name}) as run:
    for i in range(count):
        run.log({"kl": i, "reward": -i}, step=i)
        time.sleep(pause)
    run.log_samples([{"response": name}], step=count)
"""


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> Path:
    """An experiment's folder of the test's own name, whose records go to the server."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    folder = Path("results") / tmp_path.name
    folder.mkdir(parents=True)
    return folder


def python(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=ENVIRONMENT)


def sync_process(results: Path, *options: object) -> subprocess.Popen:
    """`rlphf track sync` in a process of its own."""
    command = [sys.executable, "-m", "rlphf.cli", "track", "sync", "--results", results, *options]
    return subprocess.Popen(
        list(map(str, command)), env={**ENVIRONMENT, "MLFLOW_TRACKING_URI": os.environ["MLFLOW_TRACKING_URI"]}
    )


def rows(server: Server, results: Path, query: str) -> list[tuple]:
    """What the server's database has of an experiment; `query` is about `runs` r and goes on with more conditions."""
    with closing(sqlite3.connect(f"file:{server.database}?mode=ro", uri=True, timeout=20)) as connection:
        wanted = f"r.experiment_id = (select experiment_id from experiments where name = '{results.name}')"
        return connection.execute(query.replace("THIS", wanted)).fetchall()


def points(server: Server, results: Path) -> list[tuple]:
    return rows(
        server,
        results,
        "select name, key, step, value from metrics m join runs r on m.run_uuid = r.run_uuid where THIS order by name, key, step",
    )


def statuses(server: Server, results: Path) -> dict[str, str]:
    """{run: status}; the workflow's run, whose name has its time, is "workflow"."""
    found = rows(server, results, "select name, status from runs r where THIS")
    named = {"workflow" if " · " in name else name: status for name, status in found}
    assert len(named) == len(found)
    return named


def logged(names: list[str], count: int) -> list[tuple]:
    values = [("kl", 1.0), ("reward", -1.0)]
    return [(f"ppo {name}", key, i, sign * i) for name in names for key, sign in values for i in range(count)]


def until(true: Callable[[], object], what: str) -> None:
    end = time.monotonic() + LIMIT
    while not true():
        assert time.monotonic() < end, f"{what}: not within {LIMIT} s"
        time.sleep(0.2)


def test_a_server_that_is_killed_during_a_run_and_comes_back_has_everything_once(server: Server, results: Path) -> None:
    workflow = python("import time; time.sleep(600)")
    try:
        start_workflow(results, "small", "abc", pid=workflow.pid)
        steps = [python(STEP, results, f"P{n}", 300, 0.1) for n in range(2)]
        follower = sync_process(results, "--follow", "--parent-pid", workflow.pid)
        # 1. The server is killed in the middle of it, and is back while the steps go on.
        until(lambda: len(points(server, results)) > 50, "metrics on the server")
        server.kill()
        before = len(points(server, results))
        assert 50 < before < 1200 and all(process.poll() is None for process in steps)
        server.start()
        until(lambda: len(points(server, results)) > before, "metrics after the server came back")
        # 2. It is killed once more, and is away when steps, workflow and follower end.
        server.kill()
        assert [process.wait(LIMIT) for process in steps] == [0, 0]
        end_workflow(results, "finished")
        assert follower.wait(LIMIT) == 0
        assert len(points(server, results)) < 1200
    finally:
        workflow.kill()
        workflow.wait()
        server.start()
    # 3. What is missing is sent when someone asks for it, and then nothing more.
    for _ in range(2):
        assert main(["track", "sync", "--results", str(results)]) == 0
        assert points(server, results) == logged(["P0", "P1"], 300)
        assert statuses(server, results) == dict.fromkeys(("workflow", "ppo P0", "ppo P1"), "FINISHED")
    artifacts = sorted(path.read_text() for path in (server.folder / "mlartifacts").rglob("samples.jsonl"))
    assert [json.loads(text)["response"] for text in artifacts] == ["P0", "P1"]
    assert rows(
        server,
        results,
        "select count(distinct t.value), count(*) from tags t join runs r on t.run_uuid = r.run_uuid"
        " where THIS and t.key = 'rlphf.record'",
    ) == [(3, 3)]


def test_a_sender_that_is_killed_again_and_again_loses_and_doubles_nothing(server: Server, results: Path) -> None:
    for name in ("P0", "P1", "P2"):
        assert python(STEP, results, name, 4000, 0).wait() == 0
    killed = 0
    for wanted in (1, 6000, 14000):
        sender = sync_process(results)
        until(lambda: len(points(server, results)) >= wanted or sender.poll() is not None, f"{wanted} points")  # noqa: B023
        sender.kill()
        killed += sender.wait() == -signal.SIGKILL
    assert killed >= 1
    assert main(["track", "sync", "--results", str(results)]) == 0
    assert points(server, results) == logged(["P0", "P1", "P2"], 4000)
    assert statuses(server, results) == {f"ppo P{n}": "FINISHED" for n in range(3)}


def test_eight_steps_at_once_arrive_once_while_they_are_followed(server: Server, results: Path) -> None:
    workflow = python("import time; time.sleep(600)")
    try:
        start_workflow(results, "small", "abc", pid=workflow.pid)
        follower = sync_process(results, "--follow", "--parent-pid", workflow.pid)
        steps = [python(STEP, results, f"P{n}", 60, 0.05) for n in range(8)]
        assert [process.wait(LIMIT) for process in steps] == [0] * 8
        end_workflow(results, "finished")
        assert follower.wait(LIMIT) == 0
    finally:
        workflow.kill()
        workflow.wait()
    assert points(server, results) == logged([f"P{n}" for n in range(8)], 60)
    assert statuses(server, results) == {"workflow": "FINISHED", **{f"ppo P{n}": "FINISHED" for n in range(8)}}


def test_a_killed_step_ends_as_killed_while_the_workflow_goes_on(server: Server, results: Path) -> None:
    workflow = python("import time; time.sleep(600)")
    try:
        start_workflow(results, "small", "abc", pid=workflow.pid)
        follower = sync_process(results, "--follow", "--parent-pid", workflow.pid)
        job = python(STEP, results, "P0", 10_000, 0.05)
        until(lambda: statuses(server, results).get("ppo P0") == "RUNNING" and points(server, results), "the step")
        job.kill()
        job.wait()
        until(lambda: statuses(server, results)["ppo P0"] == "KILLED", "the killed step")
        assert statuses(server, results)["workflow"] == "RUNNING" and follower.poll() is None
        assert json.loads((results / "seed-7/ppo/P0" / RECORD).read_text())["status"] == "running"
        # The workflow is killed as well, and can no longer say how it ended.
        workflow.kill()
        workflow.wait()
        assert follower.wait(LIMIT) == 0
    finally:
        workflow.kill()
        workflow.wait()
    assert statuses(server, results) == {"workflow": "KILLED", "ppo P0": "KILLED"}
    lines = (results / "seed-7/ppo/P0" / METRICS).read_text().count("\n")
    assert points(server, results) == logged(["P0"], lines)


def test_artifacts_go_through_the_server(server: Server, results: Path) -> None:
    with step("tables", results / "tables") as run:
        (run.folder / "methods.md").write_text("a table\n")
        run.artifact(run.folder / "methods.md")
    assert main(["track", "sync", "--results", str(results)]) == 0
    ((place, key),) = rows(server, results, "select artifact_uri, run_uuid from runs r where THIS")
    assert place.startswith("mlflow-artifacts:/")
    (stored,) = (server.folder / "mlartifacts").rglob(f"{key}/artifacts/methods.md")
    assert stored.read_text() == "a table\n"


def test_an_experiment_whose_artifacts_lie_on_the_servers_machine_is_not_sent_from_another(
    server: Server, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    MlflowClient(server.uri).create_experiment(results.name, artifact_location="/nowhere/repository/mlartifacts")
    with step("tables", results / "tables"):
        pass
    assert main(["track", "sync", "--results", str(results)]) == 0
    shown = capsys.readouterr().out
    assert "keeps its artifacts in /nowhere/repository/mlartifacts there" in shown and "1 records wait" in shown
    assert rows(server, results, "select * from runs r where THIS") == []
    assert not Path("/nowhere").exists()


def test_adapters_are_registered_at_the_server_and_come_back_from_it(server: Server, results: Path, tmp_path: Path) -> None:
    from mlflow.artifacts import download_artifacts

    folder = results / "seed-7/ppo/P1A"
    with step("ppo", folder) as run:
        (folder / "adapter").mkdir()
        (folder / "adapter/adapter_model.safetensors").write_text(results.name)
        run.output(folder / "adapter")
    assert main(["track", "sync", "--results", str(results)]) == 0
    got = download_artifacts(f"models:/P1A@{results.name}-7", dst_path=str(tmp_path), tracking_uri=server.uri)
    assert (Path(got) / "adapter_model.safetensors").read_text() == results.name
    # As MLflow's pages ask for them.
    place = "/model-versions/get-artifact?path=adapter_model.safetensors&name=P1A&version=1"
    assert server.ask("GET", place).decode() == results.name
