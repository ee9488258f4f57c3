import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from rlphf.cli import main
from rlphf.config import Experiment, save
from rlphf.errors import InputError
from rlphf.tracking import sync as syncing
from rlphf.tracking.record import EARLIER, METRICS, RECORD, SENT, step
from rlphf.tracking.steps import end_workflow, start_step, start_workflow, sync_step
from rlphf.tracking.store import Store
from rlphf.tracking.sync import follow, sync

pytest.importorskip("mlflow")

URI = "sqlite:///mlflow.db"
AWAY = "http://127.0.0.1:9"
RESULTS = Path("results/demo")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_store: Path) -> None:
    # MLflow keeps what it knows of a store by its address, so that each test has its own.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules[__name__], "URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    shutil.copy(empty_store, "mlflow.db")


def rows(query: str) -> list[tuple]:
    with closing(sqlite3.connect("mlflow.db")) as connection:
        return connection.execute(query).fetchall()


def points(name: str = "%") -> list[tuple]:
    """All (run's name, key, step, value) in the store, double ones included."""
    return rows(
        "select name, key, step, value from metrics m join runs r on m.run_uuid = r.run_uuid "
        f"where name like '{name}' order by name, key, step, timestamp"
    )


def statuses() -> dict[str, str]:
    return dict(rows("select name, status from runs"))


def tags(name: str) -> dict[str, str]:
    return dict(rows(f"select key, value from tags t join runs r on t.run_uuid = r.run_uuid where name = '{name}'"))


def ppo(preference: str, count: int = 3, start: int = 0, resume: bool = False, **more: object) -> Path:
    folder = RESULTS / "seed-7/ppo" / preference
    with step("ppo", folder, tags={"preference": preference, "rule": "delta"}, **more) as run:
        run.resume(start if resume else 0)
        for i in range(start, count):
            run.log({"kl": i / 10}, step=i)
    return folder


def python(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], env=ENVIRONMENT, stdout=subprocess.PIPE, text=True
    )


def test_everything_of_a_record_arrives_once_however_often_it_is_sent() -> None:
    Path("pairs.parquet").write_bytes(b"pairs")
    start_workflow(RESULTS, "demo", "abc", ["all"], params={"seed": 7, "ppo": {"lora": {"targets": ["q", "v"]}}})
    folder = RESULTS / "seed-7/ppo/P1A"
    with step(
        "ppo", folder, params={"kl": {"target": 6.0}}, inputs={"pairs": "pairs.parquet"}, tags={"preference": "P1A"}
    ) as run:
        for i in range(1200):
            run.log({"kl": i, "share of <eos>": 0.5}, step=i)
        run.log({"nan": float("nan"), "inf": float("inf")})
        (folder / "tables").mkdir()
        (folder / "tables/scores.csv").write_text("1\n")
        (folder / "tables/weights.bin").write_bytes(bytes(6 * 2**20))
        run.artifact(folder / "tables")
        run.log_samples([{"prompt": "why", "response": "so"}])
    end_workflow(RESULTS, "finished")
    counts = sync(RESULTS, URI, "demo")
    assert (counts.runs, counts.metrics, counts.waiting, counts.broken, counts.problems) == (2, 2402, 0, 0, [])
    again = sync(RESULTS, URI, "demo")
    assert (again.runs, again.metrics, again.artifacts, again.waiting) == (0, 0, 0, 0)
    # Even with all knowledge of what was sent gone, the store gets nothing twice.
    for path in RESULTS.rglob(SENT):
        path.unlink()
    assert sync(RESULTS, URI, "demo").runs == 0

    parent, child = sorted(statuses())
    assert parent.startswith("demo · 20") and child == "ppo P1A"
    assert set(statuses().values()) == {"FINISHED"}
    assert len(points()) == 2402
    assert [p[2:] for p in points() if p[1] == "kl"] == [(i, float(i)) for i in range(1200)]
    assert rows("select key, is_nan, value from metrics where key in ('nan', 'inf') order by key") == [
        ("inf", 0, sys.float_info.max),
        ("nan", 1, 0.0),
    ]
    assert rows("select name, digest, dataset_source from datasets") == [
        ("pairs", json.loads((folder / RECORD).read_text())["inputs"]["pairs"]["sha256"][:36], '{"uri": "pairs.parquet"}')
    ]
    assert len(rows("select * from inputs")) == 1
    assert set(rows("select key, value from params")) == {("seed", "7"), ("ppo.lora.targets", '["q", "v"]'), ("kl.target", "6.0")}
    (run_id,) = rows("select run_uuid from runs where name like 'demo%'")[0]
    assert tags(child)["mlflow.parentRunId"] == run_id
    assert (tags(child)["preference"], tags(child)["config_hash"]) == ("P1A", "abc")
    assert (tags(child)["rlphf.record"], tags(child)["attempt"]) == (json.loads((folder / RECORD).read_text())["id"], "1")
    (artifacts,) = rows("select artifact_uri from runs where name = 'ppo P1A'")[0]
    assert Path(artifacts).is_relative_to(Path.cwd() / "mlartifacts")
    sent = sorted(p.relative_to(artifacts).as_posix() for p in Path(artifacts).rglob("*") if p.is_file())
    assert sent == ["record.json", "samples.jsonl", "tables/scores.csv"]


def test_runs_have_names_for_people() -> None:
    for name, about in (
        ("ppo", {"preference": "P1A"}),
        ("generate vb", {"method": "vb"}),
        ("backbone", {}),
        ("general", {"fold": 3}),
        ("dpo", {"model": "individual"}),
        ("dpo per user", {"model": "per_user"}),
        ("answers pdpo_both", {"method": "pdpo_both"}),
        ("prm", {"model": "prm"}),
    ):
        with step(name, RESULTS / name, tags=about):
            pass
    sync(RESULTS, URI, "demo")
    named = ["answers pdpo_both", "backbone", "dpo individual", "dpo per user", "general", "generate vb", "ppo P1A", "prm"]
    assert sorted(statuses()) == named


def test_a_run_is_found_by_its_job_of_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    ppo("P1A")
    monkeypatch.delenv("SLURM_JOB_ID")
    ppo("P1B")
    sync(RESULTS, URI, "demo")
    assert rows("select r.name, t.value from tags t join runs r on t.run_uuid = r.run_uuid where key = 'slurm_job_id'") == [
        ("ppo P1A", "4711")
    ]


def test_times_are_those_of_the_step_and_not_of_its_sending() -> None:
    folder = ppo("P1A")
    sync(RESULTS, URI, "demo")
    record = json.loads((folder / RECORD).read_text())
    first = json.loads((folder / METRICS).read_text().splitlines()[0])["time"]
    ((start, end),) = rows("select start_time, end_time from runs")
    assert [syncing.milliseconds(record["start"]), syncing.milliseconds(record["end"])] == [start, end]
    assert rows("select min(timestamp) from metrics") == [(first,)]


def test_a_running_step_is_seen_as_it_grows() -> None:
    with step("ppo", RESULTS / "P1A", tags={"preference": "P1A"}) as run:
        run.log({"kl": 0.0}, step=0)
        assert sync(RESULTS, URI, "demo").metrics == 1
        assert statuses() == {"ppo P1A": "RUNNING"}
        run.log({"kl": 0.1}, step=1)
        with (run.folder / METRICS).open("a") as stream:
            stream.write('{"step": 2, ')
            stream.flush()
            assert sync(RESULTS, URI, "demo").metrics == 1
            stream.write(f'"time": 1, "metrics": {{"kl": 0.2}}}}\n{"no metrics"}\n')
        counts = sync(RESULTS, URI, "demo")
        assert counts.metrics == 1 and "is no metrics line" in counts.problems[0]
    sync(RESULTS, URI, "demo")
    assert points() == [("ppo P1A", "kl", i, i / 10) for i in range(3)]
    assert statuses() == {"ppo P1A": "FINISHED"}


def test_a_crash_between_sending_and_noting_it_doubles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    write = syncing.write_json
    Path("pairs.parquet").write_bytes(b"pairs")
    crashes, survived = 0, False
    while not survived:
        name = f"P{crashes}"
        folder = ppo(name, inputs={"pairs": "pairs.parquet"}, params={"lr": 1e-3})
        left = crashes

        def crash(path: Path, value: object, folder: Path = folder) -> None:
            nonlocal left
            if path.parent == folder:
                left -= 1
                if left < 0:
                    raise RuntimeError("killed here")
            write(path, value)

        monkeypatch.setattr(syncing, "write_json", crash)
        survived = sync(RESULTS, URI, "demo").waiting == 0
        monkeypatch.setattr(syncing, "write_json", write)
        counts = sync(RESULTS, URI, "demo")
        assert (counts.waiting, counts.problems) == (0, [])
        crashes += 1
    assert crashes > 5
    assert statuses() == {f"ppo P{i}": "FINISHED" for i in range(crashes)}
    assert len(rows("select * from runs")) == crashes
    assert points() == [(f"ppo P{i}", "kl", s, s / 10) for i in range(crashes) for s in range(3)]
    assert len(rows("select * from inputs")) == crashes


def test_a_record_that_a_new_start_sets_aside_while_it_is_sent_loses_nothing_and_mixes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # 1. The new start has moved the metrics, and not yet the record, when they are to be read.
    folder = ppo("P1A")
    aside = folder / EARLIER / json.loads((folder / RECORD).read_text())["id"]
    aside.mkdir(parents=True)
    os.replace(folder / METRICS, aside / METRICS)
    sync(RESULTS, URI, "demo")
    # 2. It has moved all, and its own metrics lie there instead.
    settled = syncing.settled

    def overtaken(*given: object) -> tuple:
        found = settled(*given)
        monkeypatch.setattr(syncing, "settled", settled)
        ppo("P1A", count=13, start=10)
        return found

    monkeypatch.setattr(syncing, "settled", overtaken)
    sync(RESULTS, URI, "demo")
    sync(RESULTS, URI, "demo")
    by_run = rows("select run_uuid, step from metrics order by step")
    assert [s for _, s in by_run] == [0, 1, 2, 10, 11, 12]
    assert len({run for run, _ in by_run[:3]}) == len({run for run, _ in by_run[3:]}) == 1
    assert len(rows("select * from runs")) == 2
    assert not aside.exists()


def test_a_run_that_was_made_though_no_answer_came_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    create = Store.create

    def lost(self: Store, *arguments: object) -> str:
        create(self, *arguments)
        self.runs.clear()
        raise ConnectionError("no answer")

    ppo("P1A")
    sender = syncing.Sender(RESULTS, URI, "demo")
    monkeypatch.setattr(Store, "create", lost)
    assert sender.send().waiting == 1
    monkeypatch.setattr(Store, "create", create)
    assert sender.send().waiting == 0
    assert statuses() == {"ppo P1A": "FINISHED"} and len(rows("select * from runs")) == 1


def test_what_another_sender_sent_meanwhile_is_not_sent_again() -> None:
    following = syncing.Sender(RESULTS, URI, "demo")
    ppo("P1A")
    following.send()
    ppo("P2A")
    assert sync(RESULTS, URI, "demo").runs == 1
    assert following.send().runs == 0
    assert statuses() == {"ppo P1A": "FINISHED", "ppo P2A": "FINISHED"} and len(rows("select * from runs")) == 2


KILLED = """
import os, signal, sys
from rlphf.tracking.record import step
with step("ppo", sys.argv[1], tags={"preference": "P1A"}) as run:
    for i in range(6):
        run.log({"kl": i / 10}, step=i)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_step_whose_process_is_gone_was_killed_and_its_next_attempt_is_a_run_of_its_own() -> None:
    folder = RESULTS / "seed-7/ppo/P1A"
    assert python(KILLED, folder).wait() == -signal.SIGKILL
    assert json.loads((folder / RECORD).read_text())["status"] == "running"
    assert sync(RESULTS, URI, "demo").waiting == 0
    assert rows("select status, end_time >= start_time from runs") == [("KILLED", 1)]
    ppo("P1A", count=8, start=4, resume=True)
    assert sync(RESULTS, URI, "demo").runs == 1
    # Nothing of either attempt is missing or double, and a later pass finds nothing more to do.
    by_run = rows("select r.status, step from metrics m join runs r on m.run_uuid = r.run_uuid order by r.start_time, step")
    assert by_run == [("KILLED", i) for i in range(6)] + [("FINISHED", i) for i in range(8)]
    assert not list(folder.glob(f"{EARLIER}/*"))
    assert str(sync(RESULTS, URI, "demo")).startswith("sent 0 runs, 0 metric points, 0 artifacts, 0 models; 0 records wait")


def test_a_start_that_another_followed_runs_no_more() -> None:
    abandoned = step("ppo", RESULTS / "seed-7/ppo/P1A")
    abandoned.__enter__()
    ppo("P1A")
    sync(RESULTS, URI, "demo")
    assert rows("select status from runs order by start_time") == [("KILLED",), ("FINISHED",)]


def test_a_step_on_another_host_was_killed_if_its_workflow_has_ended_without_it() -> None:
    start_workflow(RESULTS, "demo", "abc")
    folder = ppo("P1A")
    record = json.loads((folder / RECORD).read_text())
    (folder / RECORD).write_text(json.dumps({**record, "host": "node17", "status": "running", "end": None}))
    sync(RESULTS, URI, "demo")
    assert statuses()["ppo P1A"] == "RUNNING"
    end_workflow(RESULTS, "failed")
    sync(RESULTS, URI, "demo")
    assert sorted(statuses().values()) == ["FAILED", "KILLED"]
    # It lived after all.
    (folder / RECORD).write_text(json.dumps({**record, "host": "node17"}))
    sync(RESULTS, URI, "demo")
    assert statuses()["ppo P1A"] == "FINISHED"


def elsewhere_unfinished(folder: Path, name: str = RECORD) -> None:
    """Let a record say that its process runs on another host, which cannot be seen from here."""
    record = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**record, "host": "node17", "status": "running", "end": None}))


def test_steps_on_another_host_were_killed_once_another_start_of_the_workflow_began() -> None:
    start_workflow(RESULTS, "demo", "abc")
    elsewhere_unfinished(ppo("P1A"))
    elsewhere_unfinished(RESULTS, ".workflow.json")
    sync(RESULTS, URI, "demo")
    assert set(statuses().values()) == {"RUNNING"}
    start_workflow(RESULTS, "demo", "def")
    sync(RESULTS, URI, "demo")
    assert statuses()["ppo P1A"] == "KILLED"
    assert sorted(rows("select status from runs where name like 'demo%'")) == [("KILLED",), ("RUNNING",)]


def test_a_step_on_another_host_was_killed_if_its_workflow_here_was() -> None:
    workflow = python("import time; time.sleep(60)")
    start_workflow(RESULTS, "demo", "abc", pid=workflow.pid)
    elsewhere_unfinished(ppo("P1A"))
    sync(RESULTS, URI, "demo")
    assert set(statuses().values()) == {"RUNNING"}
    workflow.kill()
    workflow.wait()
    sync(RESULTS, URI, "demo")
    assert set(statuses().values()) == {"KILLED"}


def test_whoever_says_that_nothing_runs_any_more_ends_what_runs_on_other_hosts_and_nothing_here() -> None:
    elsewhere_unfinished(ppo("P1A"))
    with step("ppo", RESULTS / "P1B", tags={"preference": "P1B"}):
        sync(RESULTS, URI, "demo")
        assert set(statuses().values()) == {"RUNNING"}
        assert main(["track", "sync", "--results", str(RESULTS), "--closed"]) == 0
        assert statuses() == {"ppo P1A": "KILLED", "ppo P1B": "RUNNING"}
    assert main(["track", "sync", "--results", str(RESULTS), "--closed", "--follow"]) == 2


def test_a_run_that_a_slow_store_made_twice_is_kept_once() -> None:
    folder = ppo("P1A")
    sync(RESULTS, URI, "demo")
    store = Store(URI, "demo")
    (record,) = store.runs
    late = store.client.create_run(store.experiment, 1, {"rlphf.record": record}, "ppo P1A").info.run_id
    for _ in range(2):
        assert sync(RESULTS, URI, "demo").waiting == 0
        active = rows("select run_uuid, status from runs where lifecycle_stage = 'active'")
        assert active == [(min(late, store.runs[record]), "FINISHED")]
        kept = rows(f"select step from metrics where run_uuid = '{active[0][0]}' order by step")
        assert kept == [(0,), (1,), (2,)]
    # A person deletes the other one, too.
    store.client.delete_run(active[0][0])
    (folder / SENT).unlink()
    assert sync(RESULTS, URI, "demo").runs == 0
    assert rows("select * from runs where lifecycle_stage = 'active'") == []


@pytest.mark.parametrize("kind", ["refused", "no database"])
def test_records_wait_while_the_store_is_away_and_are_sent_later_once(kind: str) -> None:
    Path("text.db").write_text("this is no database, as anyone can see\n" * 100)
    away = AWAY if kind == "refused" else "sqlite:///text.db"
    for start in range(3):
        start_workflow(RESULTS, "demo", str(start))
        ppo("P1A", count=start + 1)
        ppo("P1B", count=2, start=1) if start == 0 else None
        end_workflow(RESULTS, "finished")
        counts = sync(RESULTS, away, "demo")
        assert counts.waiting == 2 * start + 3 and counts.runs == 0
        assert len(counts.problems) == 1 and "records wait to be sent later" in counts.problems[0]
    assert sync(RESULTS, URI, "demo").waiting == 0
    assert sync(RESULTS, URI, "demo").runs == 0
    assert rows("select status, count(*) from runs group by status") == [("FINISHED", 7)]
    # Each start has its parent, and under it the steps that it ran.
    parents = dict(rows("select run_uuid, value from tags where key = 'mlflow.parentRunId'"))
    hashes = dict(rows("select run_uuid, value from tags where key = 'config_hash'"))
    assert len(parents) == 4 and len(set(parents.values())) == 3
    assert all(hashes[child] == hashes[parent] for child, parent in parents.items())
    assert [p[2] for p in points("ppo P1A")] == [0, 0, 0, 1, 1, 2]
    assert [p[2] for p in points("ppo P1B")] == [1]


def test_an_earlier_start_does_not_take_the_files_of_a_later_one() -> None:
    for text in ("first", "second"):
        with step("tables", RESULTS / "tables") as run:
            (run.folder / "methods.csv").write_text(text)
            run.artifact(run.folder / "methods.csv")
    os.utime(RESULTS / "tables/methods.csv", (2e9, 2e9))
    sync(RESULTS, URI, "demo")
    stored = [path.read_text() for path in Path("mlartifacts").rglob("methods.csv")]
    assert stored == ["second"] and len(rows("select * from runs")) == 2


def test_a_broken_record_is_reported_and_the_others_go() -> None:
    for name, text in {"A": "{", "B": "[]", "C": '{"id": "x"}'}.items():
        (RESULTS / name).mkdir(parents=True)
        (RESULTS / name / RECORD).write_text(text)
    ppo("P1A")
    for field, value in {"inputs": None, "outputs": ["a"], "tags": None, "versions": "2", "params": 3}.items():
        path = ppo(field) / RECORD
        path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    counts = sync(RESULTS, URI, "demo")
    assert (counts.broken, counts.runs, counts.waiting) == (8, 1, 0)
    for field in ("inputs", "outputs", "tags", "versions", "params"):
        assert any(f"{field}/record.json: field '{field}' is missing or wrong" in problem for problem in counts.problems)
    assert "A/record.json: cannot be read as JSON" in counts.problems[0]
    assert "C/record.json: field 'id' is missing or wrong; run the step again, or remove the file" in counts.problems[2]
    assert statuses() == {"ppo P1A": "FINISHED"}


def test_a_run_that_a_person_deleted_stays_deleted() -> None:
    folder = ppo("P1A")
    sync(RESULTS, URI, "demo")
    with closing(sqlite3.connect("mlflow.db")) as connection, connection:
        connection.execute("update runs set lifecycle_stage = 'deleted'")
    (folder / SENT).unlink()
    assert (sync(RESULTS, URI, "demo").waiting, len(rows("select * from runs"))) == (0, 1)


def test_a_store_that_was_lost_is_filled_again(tmp_path: Path) -> None:
    ppo("P1A")
    sync(RESULTS, URI, "demo")
    os.replace("mlflow.db", "lost.db")
    shutil.copy("lost.db", "mlflow2.db")
    with closing(sqlite3.connect("mlflow2.db")) as connection, connection:
        for table in ("metrics", "latest_metrics", "tags", "params", "runs"):
            connection.execute(f"delete from {table}")
    assert sync(RESULTS, f"sqlite:///{tmp_path}/mlflow2.db", "demo").runs == 1
    os.replace("mlflow2.db", "mlflow.db")
    assert len(points()) == 3


EIGHT_WRITERS = """
import subprocess, sys
writer = '''
import sys, time
from rlphf.tracking.record import step
with step("ppo", sys.argv[1] + "/seed-7/ppo/P" + sys.argv[2], tags={"preference": "P" + sys.argv[2]}) as run:
    for i in range(40):
        run.log({"kl": i + int(sys.argv[2]) / 10, "reward": -i}, step=i)
        time.sleep(0.02)
'''
started = [subprocess.Popen([sys.executable, "-c", writer, sys.argv[1], str(n)]) for n in range(8)]
sys.exit(any([process.wait() for process in started]))
"""


def test_records_that_one_store_has_are_all_sent_to_another_and_none_is_deleted(empty_store: Path, tmp_path: Path) -> None:
    names = ("P1A", "P1B", "P2A")
    for name in names:
        ppo(name)
    assert sync(RESULTS, URI, "demo").runs == 3
    shutil.move("mlflow.db", "first.db")
    shutil.copy(empty_store, "mlflow.db")
    # MLflow keeps what it knows of a store by its address.
    other = f"sqlite:///{tmp_path}/./mlflow.db"
    assert sync(RESULTS, other, "demo").runs == 3
    assert rows("select name, lifecycle_stage from runs order by name") == [(f"ppo {name}", "active") for name in names]


def test_all_metrics_of_eight_steps_at_once_arrive_once_while_they_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(RESULTS).mkdir(parents=True)
    passes = []
    send = syncing.Sender.send
    monkeypatch.setattr(syncing.Sender, "send", lambda self: passes.append(send(self)) or passes[-1])
    workflow = python(EIGHT_WRITERS, RESULTS)
    handler = signal.getsignal(signal.SIGINT)
    try:
        total = follow(RESULTS, URI, "demo", parent_pid=workflow.pid, interval=0.1)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, handler)
    assert workflow.wait() == 0
    assert (total.runs, total.waiting, total.problems) == (8, 0, [])
    expected = [(f"ppo P{n}", "kl", i, i + n / 10) for n in range(8) for i in range(40)]
    assert [p for p in points() if p[1] == "kl"] == expected
    assert len(points()) == 640
    assert statuses() == {f"ppo P{n}": "FINISHED" for n in range(8)}
    assert sum(counts.metrics > 0 for counts in passes) > 1


def test_following_ends_with_the_workflow_and_not_with_the_one_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    start_workflow(RESULTS, "demo", "abc")
    end_workflow(RESULTS, "finished")
    follow(RESULTS, URI, "demo", interval=0)
    assert len(statuses()) == 1
    waits = iter(
        [
            lambda: start_workflow(RESULTS, "demo", "def"),
            lambda: ppo("P1A"),
            lambda: end_workflow(RESULTS, "failed"),
        ]
    )
    monkeypatch.setattr(syncing.time, "sleep", lambda seconds: next(waits)())
    follow(RESULTS, URI, "demo", parent_pid=os.getppid(), interval=0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert sorted(s for (s,) in rows("select status from runs")) == ["FAILED", "FINISHED", "FINISHED"]


def test_the_commands_start_end_and_send(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = Experiment(experiment="small", seed=7, tracking={"uri": URI})
    save(experiment, "config.yaml")
    start_step(Path("config.yaml"), RESULTS, ["all"], os.getpid())
    ppo("P1A")
    end_workflow(RESULTS, "finished")
    sync_step(Path("config.yaml"), RESULTS)
    assert capsys.readouterr().out.startswith("tracking: sent 2 runs, 3 metric points")
    assert rows("select name from experiments where name = 'small'")
    assert ("ppo.learning_rate", "1.4e-05") in rows("select key, value from params")
    save(Experiment(experiment="small", tracking={"uri": URI, "enabled": False}), "off.yaml")
    sync_step(Path("off.yaml"), RESULTS)
    assert "switched off" in capsys.readouterr().out
    with pytest.raises(InputError, match="nowhere: no such folder"):
        sync_step(None, Path("nowhere"))
    # Without a configuration, the last start's; and before either, what the environment says.
    ppo("P1B")
    sync_step(None, RESULTS)
    assert rows("select e.name from runs r join experiments e on r.experiment_id = e.experiment_id where r.name = 'ppo P1B'") == [
        ("demo",)
    ]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", AWAY)
    ppo("P2A")
    for given in (None, Path("config.yaml")):
        sync_step(given, RESULTS)
        assert "cannot be reached" in capsys.readouterr().out


def test_what_is_no_experiments_own_folder_is_refused_and_nothing_is_sent_under_its_name() -> None:
    start_workflow(RESULTS, "demo", "abc")
    ppo("P1A")
    end_workflow(RESULTS, "finished")
    with pytest.raises(InputError, match=f"results: holds experiments; give the folder of one, such as {RESULTS}"):
        sync_step(None, RESULTS.parent)
    below = RESULTS / "seed-1103"
    below.mkdir(exist_ok=True)
    with pytest.raises(InputError, match=f"{below}: lies in the folder of an experiment; give that one, {RESULTS}"):
        sync_step(None, below)
    assert not statuses()


def test_what_is_said_holds_no_password_of_the_address(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    ppo("P1A")

    def away(self: Store, uri: str, experiment: str) -> None:
        raise ConnectionError(f"API request to {uri}/api/2.0 failed: {uri}\nis away")

    monkeypatch.setattr(Store, "__init__", away)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    sync_step(None, RESULTS)
    said = capsys.readouterr().out
    assert "ConnectionError: API request to http://127.0.0.1:9/api/2.0 failed: http://127.0.0.1:9 is away" in said
    assert "secret" not in said
    # A password is not cut in two, either, where a text is too long.
    assert "cret" not in syncing._line(ValueError("x" * 280 + " http://me:secret@host"))


def test_what_was_switched_off_at_the_last_start_is_not_sent(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    ppo("P1A")
    start_workflow(RESULTS, "demo", "abc", params={"tracking": {"uri": URI, "enabled": False}})
    end_workflow(RESULTS, "finished")
    for variable in (None, URI):
        if variable:
            monkeypatch.setenv("MLFLOW_TRACKING_URI", variable)
        assert main(["track", "sync", "--results", str(RESULTS)]) == 0
        assert capsys.readouterr().out == f"tracking: switched off at the last start of {RESULTS}; the records stay on disk\n"
    assert not statuses() and not list(RESULTS.rglob(SENT))
    start_workflow(RESULTS, "demo", "abc", params={"tracking": {"uri": URI, "enabled": True}})
    sync_step(None, RESULTS)
    assert "ppo P1A" in statuses()
