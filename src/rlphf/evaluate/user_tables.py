"""All rows of the tables about users, from what a run left in the folder `users`, and the step that writes them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from rlphf.ablations import ABLATIONS, run_of, runs
from rlphf.config import Experiment, load
from rlphf.data.people import PEOPLE
from rlphf.data.records import PAIRS
from rlphf.derived import shared_preferences, trained_together, users_cold_started, users_judged
from rlphf.evaluate import users
from rlphf.evaluate.bootstrap import Bootstrap
from rlphf.evaluate.budgets import shares
from rlphf.evaluate.runs import USERS, timings
from rlphf.evaluate.schemas import USER_TABLES
from rlphf.evaluate.scores import Row
from rlphf.evaluate.table_files import write_table
from rlphf.evaluate.user_costs import LEARNED, costs, learned
from rlphf.files import read_parquet
from rlphf.tracking.record import step
from rlphf.users.methods import METHODS
from rlphf.users.records import ANSWERS, COLD_SCORES, SCORED, TENSORS, USER_SCORES

FOLDER = "users"
# Folders of scores in it, and what these hold.
JUDGED, COLD = "judge/oracle", "cold_start"
SCORES_OF = {JUDGED: USER_SCORES, COLD: COLD_SCORES}


def source(experiment: Experiment, folder: Path) -> Path:
    """Return the folder of users and pairs in a run's folder `users`: drawn, or of raw data."""
    return folder / ("pairs" if experiment.user_data.source == "testbed" else "raw")


def scores(experiment: Experiment, folder: Path) -> dict[str, Path]:
    """Return the files of scores that the experiment has, by their folders in a run's folder `users`.

    The configuration decides which, not the files that are there: these may be an earlier configuration's.
    """
    had = {JUDGED: users_judged(experiment), COLD: users_cold_started(experiment)}
    return {name: folder / name / "scores.parquet" for name in SCORES_OF if had[name]}


def told(methods: Sequence[str], folder: Path, pairs: list[Row], group_of: Mapping[int, str]) -> dict:
    """Return how each of `methods` orders held-out pairs, from a run's folder `users`."""
    prompt_of = {row["id"]: row["prompt"] for row in pairs}
    return {
        method: users.ordered_correctly(
            read_parquet(folder / "answers" / method / "scores.parquet", SCORED).to_pylist(), prompt_of, group_of
        )
        for method in methods
    }


def user_tables(experiment: Experiment, seed_folder: Path) -> dict[str, list[Row]]:
    """Return {table: rows} of what the run in `seed_folder` measured about users; no rows where it has none."""
    methods, folder = experiment.user_evaluation.methods, seed_folder / FOLDER
    if not methods:
        return {name: [] for name in USER_TABLES}
    bootstrap = Bootstrap(experiment.seed, experiment.evaluation.bootstrap)
    timed = timings(seed_folder, trained_together(experiment))
    own = source(experiment, folder)
    user_rows = read_parquet(own / "users.parquet", PEOPLE).to_pylist()
    group_of = {row["id"]: row["group"] for row in user_rows}
    pairs = read_parquet(own / "pairs.parquet", PAIRS).to_pylist()
    answered = [
        row for name in methods for row in read_parquet(folder / "answers" / name / "answers.parquet", ANSWERS).to_pylist()
    ]
    scored = {name: read_parquet(path, SCORES_OF[name]).to_pylist() for name, path in scores(experiment, folder).items()}
    answers = users.Answers(scored[JUDGED], group_of, methods) if JUDGED in scored else None
    found = told(methods, folder, pairs, group_of)
    # What was measured of new users before the experiment left them out lies in the folder still.
    cost = costs(folder, methods, shares(timed), shared_preferences(experiment))
    cost = cost if COLD in scored else [row | {"new_user_seconds": None} for row in cost]
    return {
        "users_accuracy": users.accuracies(found, ceilings(pairs), experiment.seed, bootstrap),
        "users_scores": users.scores(answers, bootstrap) if answers else [],
        "users_differences": users.differences(found, answers, bootstrap),
        "users_win_rates": users.win_rates(answers, bootstrap) if answers else [],
        "users_length": users.lengths(answered, user_rows, bootstrap),
        "users_cost": cost,
        "users_timings": [row for row in timed if row["step"].startswith(USERS)],
        "users_map": learned(folder, methods, user_rows),
        "cold_start": users.cold_start(scored[COLD], bootstrap) if COLD in scored else [],
        "user_ablations": ablations(experiment, seed_folder, bootstrap),
    }


def ceilings(pairs: list[Row]) -> dict[str, float | None]:
    """Return {pair id: the chance that a method that knew the noise would order it correctly; None where it is unknown}."""
    return {row["id"]: p if (p := row["probability"]) is None else max(p, 1 - p) for row in pairs}


def ablations(experiment: Experiment, seed_folder: Path, bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `user_ablations`, from the runs of all variations in the seed's folder."""
    rows: list[Row] = []
    for name, (setting, value) in runs(experiment.seed, experiment.ablations).items():
        folder = seed_folder.parent / f"seed-{name}"
        drawn = run_of(name, "user_pairs") == name
        own = source(experiment, (folder if drawn else seed_folder) / FOLDER)
        user_rows = read_parquet(own / "users.parquet", PEOPLE).to_pylist()
        pairs = read_parquet(own / "pairs.parquet", PAIRS).to_pylist()
        found = told(ABLATIONS[setting], folder / FOLDER, pairs, {row["id"]: row["group"] for row in user_rows})
        which = {"setting": setting, "value": str(value)}
        for row in users.accuracies(found, {}, experiment.seed, bootstrap):
            shared = {key: row[key] for key in ("method", "population", "ci_low", "ci_high", "n_pairs")}
            rows.append(which | shared | {"against": "", "effect": row["accuracy"]})
        for row in users.differences(found, None, bootstrap):
            shared = {key: row[key] for key in ("population", "ci_low", "ci_high")} | {"n_pairs": row["n"]}
            rows.append(which | shared | {"method": row["method_a"], "against": row["method_b"], "effect": row["difference"]})
    return rows


def users_measured(experiment: Experiment, seed_folder: Path) -> dict[str, Path]:
    """Return {name: file} of all that the tables about users are made from, times and sizes left out, for their record."""
    methods, folder = experiment.user_evaluation.methods, seed_folder / FOLDER
    if not methods:
        return {}
    found = [source(experiment, folder) / f"{name}.parquet" for name in ("users", "pairs")]
    found += [folder / "answers" / method / f"{name}.parquet" for method in methods for name in ("answers", "scores")]
    found += scores(experiment, folder).values()
    found += [path for name in LEARNED if name in methods for path in [folder / "models" / METHODS[name].model / TENSORS]]
    for name, (setting, _) in runs(experiment.seed, experiment.ablations).items():
        own = seed_folder.parent / f"seed-{name}" / FOLDER
        drawn = run_of(name, "user_pairs") == name
        found += [source(experiment, own) / f"{kind}.parquet" for kind in ("users", "pairs") if drawn]
        found += [own / "answers" / method / "scores.parquet" for method in ABLATIONS[setting]]
    return {Path(os.path.relpath(path, seed_folder)).as_posix(): path for path in found}


def user_tables_step(config: Path, seed_folder: Path, out: Path) -> None:
    """Write all tables about users of the run in `seed_folder` to the folder `out`; the record lies in `out`/users."""
    experiment = load(config)
    inputs = users_measured(experiment, seed_folder)
    with step("user tables", out / "users", experiment, experiment.user_evaluation, inputs) as run:
        tables = user_tables(experiment, seed_folder)
        files = [path for name, rows in tables.items() for path in write_table(out, name, rows)]
        for row in tables["users_accuracy"]:
            run.log({f"{row['method']}_{row['population']}_accuracy": row["accuracy"]})
        run.output(*files)
        run.artifact(*(path for path in files if path.suffix == ".md"))
