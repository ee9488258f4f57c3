"""What a run of the smallest experiment made that has to be the same in every run."""

from pathlib import Path

import pyarrow.parquet as pq

from rlphf.files import sha256

# Metrics of trainers that are times, or are meaned over what one process did.
OF_A_PROCESS = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss")


def outputs(folder: Path) -> dict[str, str]:
    """Return {path: digest} of everything that has to be the same in every run: no times, records or logs.

    Budgets and what users cost are times in part. Curves have times among their metrics, and figures are drawn from them.
    """
    results = folder / "results" / "ci"
    kinds = ("parquet", "csv", "md", "safetensors", "yaml", "json", "html")
    found = [path for kind in kinds for path in results.rglob(f"*.{kind}")]
    timed = (".", "timings", "budgets", "curves", "users_cost", "users_timings")
    kept = [path for path in found if path.name != "record.json" and not path.name.startswith(timed)]
    return {path.relative_to(results).as_posix(): sha256(path) for path in kept}


def learned(folder: Path) -> list[tuple]:
    """Return the rows of table `curves` but those of times: each metric of each step of all trainings, once."""
    rows = pq.read_table(folder / "results" / "ci" / "tables" / "curves.parquet").to_pylist()
    return [tuple(row.values()) for row in rows if row["metric"] not in OF_A_PROCESS]
