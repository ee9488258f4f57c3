"""All rows of the tables about preferences and their combinations, and the step that writes them."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rlphf.config import Experiment, load
from rlphf.data.records import RESPONSES
from rlphf.derived import PAPER_METHODS, combinations_of, methods_of, trained_together
from rlphf.errors import InputError
from rlphf.evaluate import matrix, methods, runs, winrate
from rlphf.evaluate.agreement import agreement, swaps, swaps_of_scores
from rlphf.evaluate.bootstrap import Bootstrap
from rlphf.evaluate.budgets import budgets
from rlphf.evaluate.judges.comparisons import COMPARISONS, RATED, check_comparisons, check_shown
from rlphf.evaluate.judges.inputs import read_inputs
from rlphf.evaluate.release_bugs import release_bugs
from rlphf.evaluate.scores import ALL, MEAN, Row, Scores, chances, percentiles, read_scores
from rlphf.evaluate.table_files import write_table
from rlphf.evaluate.verdicts import Verdicts, from_comparisons, from_scores
from rlphf.files import read_parquet
from rlphf.layout import reward_scores
from rlphf.mistakes import FOLDER
from rlphf.soup.wanted import front_weights
from rlphf.tracking.record import METRICS, step

# Where a seed's folder holds what the tables are made from, besides what `runs` reads.
ORACLE = Path("judge") / "oracle" / "scores.parquet"
ADAPTERS = Path("responses") / "adapters" / "responses.parquet"
PROMPTS = Path("prompts") / "prompts.parquet"
# Judges that compare two responses; the others score them one by one.
COMPARING = ("llm", "people")


def verdicts_of(judge: str, experiment: Experiment, seed_folder: Path) -> Path:
    """Return the file of a judge's scores or comparisons."""
    if judge == "people" and experiment.evaluation.ratings:
        return Path(experiment.evaluation.ratings)
    return seed_folder / "judge" / judge / ("comparisons.parquet" if judge in COMPARING else "scores.parquet")


def _responses(methods: Sequence[str], seed_folder: Path) -> list[Path]:
    return [seed_folder / "responses" / name / "responses.parquet" for name in methods]


def judged(
    experiment: Experiment, seed_folder: Path, first: Scores, compared: Sequence[str], bootstrap: Bootstrap
) -> tuple[list[Verdicts], list[Row]]:
    """Return the verdicts of every judge on the methods `compared`, and the rows of table `swaps`.

    `first` are the scores of the first judge, as the other tables have them. Raises InputError where people saw other responses.
    """
    found: list[Verdicts] = []
    swapped: list[Row] = []
    for judge in experiment.evaluation.judges:
        path = verdicts_of(judge, experiment, seed_folder)
        if judge in COMPARING:
            table = read_parquet(path, RATED if judge == "people" else COMPARISONS)
            check_comparisons(table.select(COMPARISONS.names), str(path))
            if judge == "people":
                shown = read_inputs(seed_folder / PROMPTS, _responses(compared, seed_folder))
                check_shown(table, str(path), experiment, *shown)
            found.append(from_comparisons(judge, table))
            swapped += swaps(judge, table, bootstrap)
        else:
            scores = first if judge == experiment.evaluation.judges[0] else read_scores(path)
            found.append(from_scores(judge, scores, compared, combinations_of(experiment)))
            swapped.append(swaps_of_scores(found[-1]))
    return found, swapped


def first_scores(experiment: Experiment, seed_folder: Path) -> Scores:
    """Return the scores in [0, 1] of the first judge: the oracle's, or those of the gold model or of rules, relative to VB's."""
    judge = experiment.evaluation.judges[0]
    scores = read_scores(verdicts_of(judge, experiment, seed_folder))
    relative = {"gold": chances, "rules": percentiles}
    return relative[judge](scores, "vb") if judge in relative else scores


def all_tables(experiment: Experiment, seed_folder: Path) -> dict[str, list[Row]]:
    """Return {table: rows} of everything that the run in `seed_folder` measured."""
    bootstrap = Bootstrap(experiment.seed, experiment.evaluation.bootstrap)
    names, combinations = methods_of(experiment), combinations_of(experiment)
    scores = first_scores(experiment, seed_folder)
    effects = methods.adapter_effects(scores, bootstrap)
    by_method = methods.methods(scores, names, combinations, bootstrap)
    tokens = methods.lengths(read_parquet(seed_folder / ADAPTERS, RESPONSES))
    curves, data = runs.curves(seed_folder, experiment), runs.data(seed_folder, experiment)
    timings = runs.timings(seed_folder, trained_together(experiment))
    pairs = {row["preference"]: row["train"] for row in data if row["source"] == experiment.prompts.source}
    raw_pairs: Counter[str] = Counter()
    for row in data:
        if row["source"] != experiment.prompts.source and row["reason"] == "all" and row["preference"] is not None:
            raw_pairs[row["preference"]] += row["train"]
    responses: dict[str, int] = {name: scores.responses(name) for name in names}
    compared = [name for name in PAPER_METHODS if name in names]
    judges, swapped = judged(experiment, seed_folder, scores, compared, bootstrap)
    shares = {name: weights[experiment.evaluation.front[1]] for name, weights in front_weights(experiment).items()}
    return {
        "data": data,
        "reward_models": runs.reward_models(seed_folder, experiment, bootstrap),
        "adapters": methods.adapters(effects, experiment.seed, tokens, runs.kept_kl(curves, experiment.ppo)),
        "adapter_effects": effects,
        "methods": by_method,
        "differences": winrate.differences(scores, names, combinations, bootstrap),
        "win_rates": winrate.win_rates(scores, names, combinations, bootstrap),
        "merges": runs.merges(seed_folder, experiment, by_method),
        "matrix": [row for judge in judges for row in matrix.matrix(judge, compared, combinations, bootstrap)],
        "averages": [row for judge in judges for row in matrix.averages(judge, compared, combinations, bootstrap)],
        "agreement": agreement(judges, compared, combinations, bootstrap),
        "swaps": swapped,
        "front": methods.front(scores, experiment.evaluation.front, shares, bootstrap),
        "budgets": budgets(experiment, timings, curves, pairs, raw_pairs, responses, runs.answering(seed_folder, names)),
        "release_bugs": release_bugs(experiment, seed_folder, ORACLE, bootstrap),
        "timings": [row for row in timings if not row["step"].startswith(runs.USERS)],
        "curves": curves,
    }


def measured(experiment: Experiment, seed_folder: Path) -> dict[str, Path]:
    """Return {name: file} of all that the tables of a run are made from, times in `benchmarks/` left out, for their record.

    Files that only some experiments have are named where they exist.
    """
    found = {path.as_posix(): seed_folder / path for path in (ADAPTERS, *runs.merges_files(experiment).values())}
    found |= {f"judge/{name}": verdicts_of(name, experiment, seed_folder) for name in experiment.evaluation.judges}
    if "people" in experiment.evaluation.judges:
        compared = [name for name in PAPER_METHODS if name in experiment.evaluation.methods]
        files = [seed_folder / PROMPTS, *_responses(compared, seed_folder)]
        found |= {path.relative_to(seed_folder).as_posix(): path for path in files}
    names = [f"data/{name}.parquet" for name in ("data", "pairs")]
    names += [f"pairs/{name}/pairs.parquet" for name in runs.spoken_for(seed_folder, "pairs", experiment)]
    names += [reward_scores(Path(), name).as_posix() for name in runs.measured_models(seed_folder, experiment)]
    for kind in runs.KINDS:
        names += [f"{kind}/{name}/{METRICS}" for name in runs.spoken_for(seed_folder, kind, experiment)]
    for mistake in experiment.priced:
        names.append(f"{FOLDER}/{mistake}/{ORACLE.as_posix()}")
        names += [reward_scores(Path(FOLDER, mistake), name).as_posix() for name in experiment.combination_preferences]
    return found | {name: seed_folder / name for name in names if (seed_folder / name).is_file()}


def tables_step(config: Path, seed_folder: Path, out: Path) -> None:
    """Write all tables of the run in `seed_folder` to the folder `out`."""
    experiment = load(config)
    if not seed_folder.is_dir():
        raise InputError(f"{seed_folder}: no such folder; it should hold the outputs of a run")
    with step("tables", out, experiment, experiment.evaluation, measured(experiment, seed_folder)) as run:
        tables = all_tables(experiment, seed_folder)
        files = [path for name, rows in tables.items() for path in write_table(out, name, rows)]
        overall = [row for row in tables["methods"] if row["combination"] == ALL and row["criterion"] == MEAN]
        run.log({f"{row['method']}_mean": row["mean"] for row in overall})
        run.output(*files)
        run.artifact(*(path for path in files if path.suffix == ".md"))
