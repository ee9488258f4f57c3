"""How long MLflow takes to search an experiment of many runs, behind a real server over SQLite, as its user interface asks.

    python -m benchmarks.tracking_load [--runs 1000]

It makes that many records in a new folder, sends them as `rlphf track sync` does, and asks for pages of runs. Prints the times.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.server import Server
from rlphf.preferences import PREFERENCES
from rlphf.tracking.record import step
from rlphf.tracking.steps import end_workflow, start_workflow
from rlphf.tracking.sync import sync

TARGET, REPEATS = 2.0, 20
EXPERIMENT, POINTS, PARAMS = "load", 20, 30
PAGE = {"max_results": 100, "run_view_type": "ACTIVE_ONLY", "order_by": ["attributes.start_time DESC"]}
# What a person asks for: the newest runs, those of a preference that did well, and the failed ones.
FILTERS = ("", "tags.preference = 'P1A' and metrics.reward > 5", "attributes.status = 'FAILED'")


def make_records(results: Path, runs: int) -> None:
    """Write a workflow's record and below it those of `runs` - 1 steps, each with parameters and metrics."""
    names = list(PREFERENCES)
    start_workflow(results, EXPERIMENT, "abc")
    for i in range(runs - 1):
        name = names[i % len(names)]
        params = {f"setting{k}": k + i for k in range(PARAMS)}
        with step("ppo", results / f"seed-{i}/ppo/{name}", params=params, tags={"preference": name, "seed": i}) as run:
            for k in range(POINTS):
                run.log({"reward": (i + k) % 10, "kl": k / 10}, step=k)
    end_workflow(results, "finished")


def search(server: Server, query: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """Return the answer to a search of runs by the interface's own request, and the seconds that it took."""
    start = time.perf_counter()
    found = json.loads(server.ask("POST", "/ajax-api/2.0/mlflow/runs/search", json.dumps(query)))
    return found, time.perf_counter() - start


def main() -> None:
    """Measure and print; ends with 1 if a search took longer than the target."""
    parser = argparse.ArgumentParser(description="time of searching many runs")
    parser.add_argument("--runs", type=int, default=1000, help="runs to make (1000)")
    runs = parser.parse_args().runs
    slowest = 0.0
    with tempfile.TemporaryDirectory(prefix="tracking_load.") as folder:
        os.chdir(folder)
        start = time.perf_counter()
        make_records(Path("results") / EXPERIMENT, runs)
        print(f"{runs} records written in {time.perf_counter() - start:.1f} s", flush=True)
        server = Server(Path(folder))
        server.start()
        try:
            start = time.perf_counter()
            counts = sync(Path("results") / EXPERIMENT, server.uri, EXPERIMENT)
            print(f"sent in {time.perf_counter() - start:.1f} s: {counts}", flush=True)
            about = server.ask("GET", f"/ajax-api/2.0/mlflow/experiments/get-by-name?experiment_name={EXPERIMENT}")
            experiment = json.loads(about)["experiment"]["experiment_id"]
            for condition in FILTERS:
                query = {"experiment_ids": [experiment], "filter": condition, **PAGE}
                timed = [search(server, query) for _ in range(REPEATS)]
                seconds = [took for _, took in timed]
                found = len(timed[0][0].get("runs", []))
                slowest = max(slowest, *seconds)
                print(
                    f"{condition or 'no filter'}: {found} runs on the first page, median {statistics.median(seconds):.3f} s, "
                    f"longest of {REPEATS} {max(seconds):.3f} s"
                )
        finally:
            server.kill()
    print(f"target: every search within {TARGET:.0f} s: {'reached' if slowest < TARGET else 'missed'}")
    sys.exit(slowest >= TARGET)


if __name__ == "__main__":
    main()
