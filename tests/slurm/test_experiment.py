"""Claims about an experiment of the smallest size whose steps run as jobs of a real cluster."""

import json
import re
import shutil
import sqlite3
from datetime import datetime
from pathlib import Path

import pytest
from tests.workflow.conftest import copy_to, run_snakemake
from tests.workflow.test_results import outputs

from rlphf.files import sha256

pytestmark = [pytest.mark.slurm, pytest.mark.workflow, pytest.mark.slow]

# Few jobs, and still each kind: several at once, GPUs and none, groups.
SMALL = """\
preferences: [P1A, P3A]
combination_preferences: [P1A, P3A]
ppo: {together: 1}
user_evaluation: {methods: []}
evaluation: {methods: [pp, psoups], judges: [oracle], front: [], bootstrap: 50}
"""
SEED = Path("results/ci/seed-1103")
ARGUMENTS = ("--configfile", "config/experiments/ci.yaml", "small.yaml")


def records(folder: Path) -> dict[str, dict]:
    """Return {folder of a step below the seed's or the experiment's: its record}."""
    root = (folder / "results").resolve()
    return {path.parent.relative_to(root).as_posix(): json.loads(path.read_text()) for path in root.rglob("record.json")}


@pytest.fixture(scope="module")
def fanned(tmp_path_factory, snakemake):
    """A copy of the repository in which the experiment has run on the cluster; its results lie elsewhere, behind a link."""
    folder = copy_to(tmp_path_factory.mktemp("slurm") / "rlphf")
    (folder / "small.yaml").write_text(SMALL)
    scratch = tmp_path_factory.mktemp("scratch")
    (folder / "results").symlink_to(scratch)
    start = snakemake(folder, *ARGUMENTS)
    status = start.ends(2400)
    logs = "\n".join(path.read_text() for path in sorted(scratch.rglob("*.log")))
    assert status == 0, f"{start.said}\n{logs}"
    return folder, start.said


def test_every_step_ran_in_a_job_of_slurm_and_says_in_which(fanned, cluster):
    folder, said = fanned
    submitted = set(re.findall(r"SLURM jobid (\d+)", said))
    assert {record["slurm_job_id"] for record in records(folder).values()} == submitted
    assert {cluster.finished()[job]["JobState"] for job in submitted} == {"COMPLETED"}
    assert {record["status"] for record in records(folder).values()} == {"finished"}
    assert (folder / "results" / "ci" / "summary.txt").stat().st_size > 0


def test_steps_that_can_run_at_once_do(fanned):
    found = records(fanned[0])
    spans = sorted(
        [datetime.fromisoformat(found[f"ci/seed-1103/rollouts/{name}"][key]) for key in ("start", "end")]
        for name in ("P1A", "P3A")
    )
    assert any(later[0] < earlier[1] for earlier, later in zip(spans, spans[1:], strict=False))


def test_what_trains_or_samples_has_a_gpu_and_what_reads_tables_has_none(fanned, cluster):
    finished, gpus, found = cluster.finished(), cluster.gpus(), records(fanned[0])
    assert found
    for name, record in found.items():
        job = record["slurm_job_id"]
        model = re.search(r"/(backbone|rollouts|pairs|reward|ppo|responses)(/|$)", name)
        assert (finished[job]["Partition"], gpus[job]) == (("gpu", "gres:gpu:1") if model else ("cpu", "N/A")), name


def test_small_steps_share_a_job(fanned):
    found = {
        name.removeprefix("ci/").removeprefix("seed-1103/"): record["slurm_job_id"] for name, record in records(fanned[0]).items()
    }
    assert found["data"] == found["prompts"]
    assert found["rollouts/P1A"] == found["pairs/P1A"] != found["rollouts/P3A"]
    assert found["tables"] == found["judge/oracle"] == found["figures/results"] == found["explorer"]
    assert len({found[f"{step}/{name}"] for step in ("reward", "ppo") for name in ("P1A", "P3A")}) == 4


def test_the_runs_in_mlflow_name_their_jobs(fanned, wait_for):
    folder, _ = fanned
    # What follows the records ends by itself once it has sent the last.
    wait_for(lambda: "tracking: sent" in (folder / "results" / "ci" / ".tracking.log").read_text())
    database = sqlite3.connect(f"file:{folder / 'mlflow.db'}?mode=ro", uri=True)
    sent = dict(database.execute("select run_uuid, value from tags where key = 'rlphf.record'"))
    jobs = {sent[run]: job for run, job in database.execute("select run_uuid, value from tags where key = 'slurm_job_id'")}
    assert jobs == {record["id"]: record["slurm_job_id"] for record in records(folder).values()}


def test_a_second_start_has_nothing_to_do(fanned, snakemake):
    again = snakemake(fanned[0], *ARGUMENTS)
    assert again.ends(60) == 0
    assert "Nothing to be done" in again.said


def test_results_are_those_of_one_machine_to_the_byte(fanned, tmp_path):
    folder = copy_to(tmp_path / "rlphf")
    (folder / "small.yaml").write_text(SMALL)
    done = run_snakemake(folder, *ARGUMENTS)
    assert done.returncode == 0, done.stdout + done.stderr
    here, there = outputs(folder), outputs(fanned[0])
    assert len(here) > 40
    assert here == there


def test_a_policy_whose_job_was_cancelled_goes_on_from_its_checkpoint_and_ends_with_the_same_bytes(
    fanned, tmp_path, cluster, snakemake, wait_for
):
    again, undisturbed = (shutil.copytree(fanned[0], tmp_path / name) for name in ("again", "undisturbed"))
    for folder in (again, undisturbed):
        (folder / "longer.yaml").write_text("ppo: {updates: 60}")
    arguments = (*ARGUMENTS, "longer.yaml", "--", str(SEED / "ppo/P1A/adapter"))
    start = snakemake(again, *arguments)
    wait_for(lambda: list((again / SEED / "ppo/P1A/checkpoints").glob("step-00001*")), what="a checkpoint")
    record = json.loads((again / SEED / "ppo/P1A/record.json").read_text())
    first = record["slurm_job_id"]
    cluster.ask("scancel", first)
    assert start.ends() == 0, start.said
    record = json.loads((again / SEED / "ppo/P1A/record.json").read_text())
    (attempt,) = record["attempts"]
    assert record["status"] == "finished" and attempt["status"] == "killed"
    assert record["resumed_from"] >= 10
    assert record["slurm_job_id"] != first and cluster.finished()[first]["JobState"] == "CANCELLED"
    done = run_snakemake(undisturbed, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sha256(again / SEED / "ppo/P1A/adapter") == sha256(undisturbed / SEED / "ppo/P1A/adapter")


def test_two_people_run_different_experiments_in_one_clone(tmp_path, snakemake, wait_for):
    folder = copy_to(tmp_path / "rlphf")
    names = ("mine", "yours")
    for name in names:
        (folder / f"{name}.yaml").write_text(f"experiment: {name}\n")
    starts = [
        snakemake(
            folder,
            *("--configfile", "config/experiments/ci.yaml", f"{name}.yaml", "--"),
            *(f"results/{name}/seed-1103/{output}" for output in ("prompts/prompts.parquet", "backbone/model")),
        )
        for name in names
    ]
    for start in starts:
        assert start.ends() == 0, start.said
    for name in names:
        wait_for(lambda name=name: "tracking: sent" in (folder / f"results/{name}/.tracking.log").read_text())
    database = sqlite3.connect(f"file:{folder / 'mlflow.db'}?mode=ro", uri=True)
    found = database.execute("select e.name, count(*) from runs r join experiments e using (experiment_id) group by e.name")
    assert dict(found) == {name: 3 for name in names}
    assert sha256(folder / "results/mine/seed-1103/backbone/model") == sha256(folder / "results/yours/seed-1103/backbone/model")
