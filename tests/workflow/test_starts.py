"""Claims about how a workflow starts: what it writes first, and that it leaves alone what another one is at work on."""

import os

import pytest

from rlphf.files import read_json
from rlphf.tracking.steps import start_workflow

pytestmark = pytest.mark.workflow

CI = ("--configfile", "config/experiments/ci.yaml", "--config", "tracking={enabled: false}", "--")
PROMPTS = "results/ci/seed-1103/prompts/prompts.parquet"


def test_a_refused_start_says_so_in_one_line_and_leaves_the_running_ones_configuration(new_copy, snakemake):
    results = new_copy / "results" / "ci"
    (results / "seed-1103").mkdir(parents=True)
    config = results / "seed-1103" / "config.yaml"
    config.write_text("what the running one was started with")
    # As a running workflow, which this process plays.
    start_workflow(results, "ci", "hash", ["all"], pid=os.getpid())
    before = (results / ".workflow.json").read_text()
    done = snakemake(new_copy, *CI, PROMPTS)
    said = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 2
    refused = f"rlphf: error: results/ci: process {os.getpid()} is at work here; wait for it, or stop it"
    assert [line for line in said if "rror" in line] == [refused] and not any("Traceback" in line for line in said)
    assert config.read_text() == "what the running one was started with"
    assert (results / ".workflow.json").read_text() == before and not (new_copy / PROMPTS).exists()
    # Nothing stays locked, so that it can be started again after the other one.
    (results / ".workflow.json").unlink()
    done = snakemake(new_copy, *CI, PROMPTS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_record_of_a_start_names_what_was_asked_for_and_the_saved_configuration(new_copy, snakemake):
    counts = "results/ci/seed-1103/data/data.parquet"
    done = snakemake(new_copy, *CI, PROMPTS, counts)
    assert done.returncode == 0, done.stdout + done.stderr
    record = read_json(new_copy / "results" / "ci" / ".workflow.json")
    assert record["targets"] == [counts, PROMPTS] and record["status"] == "finished"
    assert (
        record["config_hash"] == read_json(new_copy / "results" / "ci" / "seed-1103" / "prompts" / "record.json")["config_hash"]
    )


def test_a_failed_job_is_named_with_the_end_of_its_log_where_the_workflow_is_quiet(new_copy, snakemake):
    (new_copy / "bad.jsonl").write_text('{"prompt": "a"}\n')
    sources = "data={sources: [{kind: table, path: bad.jsonl, preference: general}]}"
    arguments = (*CI[:-1], sources, "--", "results/ci/seed-1103/data/data.parquet")
    done = snakemake(new_copy, "--quiet", "host", "rules", *arguments)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "Error in rule data:" in said and "\nrlphf: error: bad.jsonl" in said, said
    assert "\nrule data:" not in said and "\nlocalrule data:" not in said
