"""Claims about what happens to jobs of the profile when something goes wrong, on small workflows without models."""

import os
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from tests.slurm.cluster import Cluster
from tests.slurm.conftest import ENDED
from tests.test_limits import RUN

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


def workflow(folder: Path, *rules: str) -> Path:
    """Write a Snakefile of rules into a folder."""
    (folder / "Snakefile").write_text("\n\n".join(rules) + "\n")
    return folder


def rule(name: str, shell: str, resources: str = "gpu=0") -> str:
    """A rule that makes <name>.txt: it notes the id of its job in <name>.started, then does `shell`."""
    return f"""rule {name}:
    output: "{name}.txt"
    resources: {resources}
    shell: '''echo $SLURM_JOB_ID >> {name}.started; {shell}; echo done > {{output}}'''"""


def jobs(folder: Path, name: str) -> list[str]:
    """Return the ids of the jobs that began a rule, in their order."""
    path = folder / f"{name}.started"
    return path.read_text().split() if path.exists() else []


def processes(job: str) -> list[psutil.Process]:
    """Return the processes of a job."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("SLURM_JOB_ID") == job:
                found.append(process)
    return found


def collected(*names: str) -> str:
    return f"rule everything:\n    localrule: True\n    input: {', '.join(repr(f'{name}.txt') for name in names)}"


def at_once(cluster: Cluster, job: str) -> None:
    """Let a job that waits for its time begin."""
    if cluster.states()[job] == "PENDING":
        # It may begin by itself between the two.
        with suppress(subprocess.CalledProcessError):
            cluster.ask("scontrol", "update", f"jobid={job}", "starttime=now")


def test_a_job_that_failed_is_submitted_again_with_more_memory_and_time(tmp_path, cluster, snakemake):
    # `oracle` is a step that the profile knows.
    once = "test $(wc -l < oracle.started) -gt 1"
    start = snakemake(workflow(tmp_path, rule("oracle", once)))
    assert start.ends() == 0, start.said
    first, second = (cluster.finished()[job] for job in jobs(tmp_path, "oracle"))
    assert (first["JobState"], second["JobState"]) == ("FAILED", "COMPLETED")
    assert (first["TimeLimit"], second["TimeLimit"]) == ("20", "40")
    assert "mem=2000M" in first["Tres"] and "mem=4000M" in second["Tres"]
    assert first["Partition"] == "cpu"


def test_a_job_beyond_its_time_is_stopped_and_submitted_again_with_more(tmp_path, cluster, snakemake):
    # A minute is the least that SLURM knows. The second time it is through at once.
    hang = "test $(wc -l < late.started) -gt 1 || sleep 200"
    start = snakemake(workflow(tmp_path, rule("late", hang, "gpu=0, runtime=lambda wildcards, attempt: attempt")))
    assert start.ends() == 0, start.said
    first, second = (cluster.finished()[job] for job in jobs(tmp_path, "late"))
    assert (first["JobState"], first["TimeLimit"]) == ("TIMEOUT", "1")
    assert (second["JobState"], second["TimeLimit"]) == ("COMPLETED", "2")


def test_a_step_that_needs_more_memory_than_its_job_was_granted_says_so_and_is_submitted_again_with_more(
    tmp_path, cluster, snakemake
):
    (tmp_path / "hungry.py").write_text(RUN)
    command = """python hungry.py "" "bytearray(2**30)" 2>> said.txt"""
    memory = "gpu=0, mem_mb=lambda wildcards, attempt: [700, 3000][attempt - 1]"
    first = "from rlphf.limits import hand_on_grant\n\nhand_on_grant()"
    start = snakemake(workflow(tmp_path, first, rule("small", command, memory)))
    assert start.ends() == 0, start.said
    first, second = (cluster.finished()[job] for job in jobs(tmp_path, "small"))
    assert (first["JobState"], second["JobState"]) == ("FAILED", "COMPLETED")
    assert "mem=700M" in first["Tres"] and "mem=3000M" in second["Tres"]
    line = "rlphf: error: needs more than the 500 MB of memory that it may take (under SLURM the profile's mem_mb)"
    assert line in (tmp_path / "said.txt").read_text()


def test_a_job_that_slurm_stops_for_its_memory_is_submitted_again_with_more(tmp_path, cluster, snakemake):
    filled = "python -c 'import time; filled = bytearray(1000 * 2**20); time.sleep(8)'"
    memory = "gpu=0, mem_mb=lambda wildcards, attempt: [600, 3000][attempt - 1]"
    start = snakemake(workflow(tmp_path, rule("large", filled.replace("'", '"'), memory)))
    assert start.ends() == 0, start.said
    first, second = (cluster.finished()[job] for job in jobs(tmp_path, "large"))
    # SLURM with control groups would say OUT_OF_MEMORY.
    assert (first["JobState"], second["JobState"]) == ("FAILED", "COMPLETED")
    said = "\n".join(path.read_text() for path in sorted(cluster.folder.glob("slurmd.*.log")))
    assert re.search(rf"\[{first['JobId']}\.\w+\] error: Exceeded job memory limit", said), said


def test_a_job_that_fails_for_good_stops_what_needs_it_and_nothing_else(tmp_path, cluster, snakemake):
    after = rule("after", "true").replace("output:", 'input: "bad.txt"\n    output:')
    start = snakemake(workflow(tmp_path, collected("after", "good"), rule("bad", "exit 3"), after, rule("good", "sleep 5")))
    assert start.ends() == 1
    # Two retries, as the profile says.
    assert len(jobs(tmp_path, "bad")) == 3 and not jobs(tmp_path, "after")
    assert (tmp_path / "good.txt").exists() and not (tmp_path / "bad.txt").exists()


def test_a_job_leaves_a_drained_node_alone_and_another_that_fails_for_the_next(tmp_path, cluster, snakemake, wait_for):
    # The second time it is through at once.
    wait = "test $(wc -l < moved.started) -gt 1 || sleep 100"
    cluster.ask("scontrol", "update", "nodename=c1", "state=drain", "reason=test")
    try:
        start = snakemake(workflow(tmp_path, rule("moved", wait)))
        wait_for(lambda: jobs(tmp_path, "moved"), what=start.said)
        (job,) = jobs(tmp_path, "moved")
        assert cluster.ask("squeue", "--noheader", f"--jobs={job}", "--format=%N").strip() == "c2"
        cluster.ask("scontrol", "update", "nodename=c1", "state=resume")
        cluster.ask("scontrol", "update", "nodename=c2", "state=down", "reason=test")
        # SLURM would let it wait for two minutes before it begins again.
        wait_for(lambda: len(jobs(tmp_path, "moved")) == 2 or at_once(cluster, job))
        assert start.ends(150) == 0, start.said
        assert jobs(tmp_path, "moved") == [job, job]
        assert cluster.finished()[job]["JobState"] == "COMPLETED" and cluster.finished()[job]["NodeList"] == "c1"
    finally:
        for node in ("c1", "c2"):
            if cluster.ask("sinfo", "--noheader", f"--nodes={node}", "--format=%T").startswith(("down", "drain")):
                cluster.ask("scontrol", "update", f"nodename={node}", "state=resume")
        cluster.until("idle")


def test_ctrl_c_cancels_all_jobs_and_their_processes(tmp_path, cluster, snakemake, wait_for):
    names = ("one", "two", "three")
    sleep = "echo $$ > $SLURM_JOB_ID.pid; sleep 200"
    start = snakemake(workflow(tmp_path, collected(*names), *(rule(name, sleep, "gpu=0, cpus_per_task=2") for name in names)))
    # Two run and one waits for a node.
    wait_for(lambda: len(list(tmp_path.glob("*.pid"))) == 2, what=start.said)
    start.process.send_signal(signal.SIGINT)
    assert start.ends(60) != 0
    mine = [line for line in start.said.splitlines() if "SLURM jobid" in line]
    ids = [line.split("SLURM jobid ")[1].split()[0] for line in mine]
    wait_for(lambda: {cluster.states()[job] for job in ids} <= ENDED)
    assert len(ids) == 3 and {cluster.states()[job] for job in ids} == {"CANCELLED"}
    wait_for(lambda: not any(Path("/proc", path.read_text().strip()).exists() for path in tmp_path.glob("*.pid")))
    assert not list(tmp_path.glob("*.txt"))


def test_after_snakemake_itself_was_killed_its_jobs_are_found_by_name_and_a_start_does_the_rest(
    tmp_path, cluster, snakemake, wait_for
):
    # The second time it is through at once.
    half = "echo half > second.txt; test $(wc -l < second.started) -gt 1 || sleep 200"
    second = rule("second", half).replace("output:", 'input: "first.txt"\n    output:')
    folder = workflow(tmp_path, collected("second"), rule("first", "true"), second)
    start = snakemake(folder)
    wait_for(lambda: (folder / "second.txt").exists(), what=start.said)
    os.kill(start.process.pid, signal.SIGKILL)
    start.process.wait()
    (run,) = {line.split("SLURM run ID: ")[1].strip() for line in start.said.splitlines() if "SLURM run ID: " in line}
    (orphan,) = jobs(folder, "second")
    assert cluster.states()[orphan] == "RUNNING" and run.startswith("rlphf_")
    # As if the node went down with it, so that nobody tidies up; the oldest process, which would, goes first.
    for process in sorted(processes(orphan), key=lambda process: process.create_time()):
        process.kill()
    cluster.ask("scancel", f"--name={run}")
    wait_for(lambda: cluster.states()[orphan] in ENDED)
    assert snakemake(folder, "--unlock").ends(30) == 0
    assert (folder / "second.txt").read_text() == "half\n"
    again = snakemake(folder)
    assert again.ends(60) == 0, again.said
    assert len(jobs(folder, "first")) == 1 and len(jobs(folder, "second")) == 2
    assert (folder / "second.txt").read_text() == "done\n"
