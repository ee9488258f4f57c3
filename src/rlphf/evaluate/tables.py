"""The tables of an experiment: their columns, how they are written, and the step that makes all of them."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from rlphf.config import Experiment, load
from rlphf.data.records import RESPONSES
from rlphf.errors import InputError
from rlphf.evaluate import matrix, methods, runs, winrate
from rlphf.evaluate.agreement import agreement, swaps, swaps_of_scores
from rlphf.evaluate.bootstrap import Bootstrap
from rlphf.evaluate.budgets import budgets
from rlphf.evaluate.judges.comparisons import COMPARISONS, check_comparisons
from rlphf.evaluate.release_bugs import release_bugs
from rlphf.evaluate.scores import ALL, MEAN, Row, Scores, read_scores
from rlphf.evaluate.verdicts import Verdicts, from_comparisons, from_scores
from rlphf.files import read_parquet, write_parquet, write_text
from rlphf.tracking.record import step

# Where a seed's folder holds what the tables are made from, besides what `runs` reads.
ORACLE = Path("judge") / "oracle" / "scores.parquet"
ADAPTERS = Path("responses") / "adapters" / "responses.parquet"
MERGES = Path("soups") / "merges.parquet"
# Judges that compare two responses; the others score them one by one.
COMPARING = ("llm", "people")
# The source of the pairs that are made in the run.
TESTBED = "testbed"


def _schema(names: str, numbers: Sequence[str] = (), counts: Sequence[str] = ()) -> pa.Schema:
    kinds = dict.fromkeys(numbers, pa.float64()) | dict.fromkeys(counts, pa.int64())
    return pa.schema([(name, kinds.get(name, pa.string())) for name in names.split()])


SCHEMAS: dict[str, pa.Schema] = {
    "data": runs.DATA,
    "reward_models": _schema(
        "preference split n accuracy ceiling ci_low ci_high", ("accuracy", "ceiling", "ci_low", "ci_high"), ("n",)
    ),
    "adapters": _schema(
        "preference seed before after delta ci_low ci_high kl length_before length_after",
        ("before", "after", "delta", "ci_low", "ci_high", "kl", "length_before", "length_after"),
        ("seed",),
    ),
    "adapter_effects": _schema(
        "preference criterion before after delta ci_low ci_high", ("before", "after", "delta", "ci_low", "ci_high")
    ),
    "methods": _schema("method combination criterion mean ci_low ci_high n", ("mean", "ci_low", "ci_high"), ("n",)),
    "differences": _schema(
        "method_a method_b combination criterion difference ci_low ci_high n", ("difference", "ci_low", "ci_high"), ("n",)
    ),
    "win_rates": _schema(
        "method_a method_b combination criterion wins losses ties rate rate_half_ties ci_low ci_high",
        ("rate", "rate_half_ties", "ci_low", "ci_high"),
        ("wins", "losses", "ties"),
    ),
    "matrix": _schema(
        "judge method_a method_b criterion wins losses ties rate rate_half_ties ci_low ci_high paper_gpt4",
        ("rate", "rate_half_ties", "ci_low", "ci_high", "paper_gpt4"),
        ("wins", "losses", "ties"),
    ),
    "averages": _schema(
        "judge method criterion opponents rate rate_half_ties ci_low ci_high paper_gpt4 paper_humans",
        ("rate", "rate_half_ties", "ci_low", "ci_high", "paper_gpt4", "paper_humans"),
        ("opponents",),
    ),
    "agreement": _schema(
        "judge_a judge_b criterion n agreement decided agreement_decided ci_low ci_high",
        ("agreement", "agreement_decided", "ci_low", "ci_high"),
        ("n", "decided"),
    ),
    "swaps": _schema(
        "judge criterion n consistent ci_low ci_high prefers_first malformed",
        ("consistent", "ci_low", "ci_high", "prefers_first"),
        ("n", "malformed"),
    ),
    "front": _schema("first second weight criterion mean ci_low ci_high n", ("weight", "mean", "ci_low", "ci_high"), ("n",)),
    "budgets": _schema(
        "method trainings pairs updates samples seconds answer_ms",
        ("seconds", "answer_ms"),
        ("trainings", "pairs", "updates", "samples"),
    ),
    "claims": _schema(
        "claim statement effect ci_low ci_high direction threshold verdict seeds",
        ("effect", "ci_low", "ci_high", "threshold"),
        ("seeds",),
    ),
    "merges": _schema("combination rule relative_error score", ("relative_error", "score")),
    "release_bugs": _schema(
        "mistake method criterion against before after effect ci_low ci_high n",
        ("before", "after", "effect", "ci_low", "ci_high"),
        ("n",),
    ),
    "timings": _schema("step seconds peak_mb", ("seconds", "peak_mb")),
    "curves": _schema("preference kind step metric value", ("value",), ("step",)),
}
CAPTIONS = {
    "data": "Records read, kept (by split) and dropped (by reason), by source and preference.",
    "reward_models": "Share of pairs that a reward model orders as the annotator did; splits share no prompt. `ceiling`: what the"
    " annotator's noise allows. `gold` learns from validation and test pairs and is measured on training pairs. Intervals: 95 %,"
    " bootstrap over prompts.",
    "adapters": "Oracle score of each adapter's own preference on held-out prompts; `before` is the backbone, prompted alike."
    " `delta`: paired, with its 95 % interval. `kl`: nats per response at the end of training. Lengths in tokens.",
    "adapter_effects": "What each adapter does to every criterion, against the backbone prompted alike. Intervals: 95 %, paired.",
    "methods": "Oracle scores on held-out prompts. `mean`: over the combination's preferences. Combination `all`: over all"
    " combinations (a preference over those that ask for it). Intervals: 95 %, bootstrap over prompts.",
    "differences": "Score of method_a minus that of method_b, paired by prompt. Intervals: 95 %, bootstrap over prompts.",
    "win_rates": "method_a against method_b, prompt by prompt. `rate`: wins / (wins + losses). `rate_half_ties`:"
    " (wins + ties / 2) / all, with its 95 % interval. `mean` compares the mean over the combination's preferences;"
    " `majority`: wins more of these preferences than it loses.",
    "matrix": "The paper's methods by every judge, method_a against method_b over all combinations: counts of verdicts, `rate`"
    " without ties and `rate_half_ties` with its 95 % interval over prompts. The paper's own share is known for 16 combinations.",
    "averages": "Each of the paper's methods against all others of them by every judge, every opponent alike, over all"
    " combinations. `rate` without ties; `rate_half_ties` with its 95 % interval. The paper's known averages (Table 3: GPT-4,"
    " Table 4: people) stand beside the majority; how it aggregates criteria and treats ties is not known.",
    "agreement": "How often two judges give the same verdict on the first responses that both saw, over pairs of methods and"
    " combinations: `agreement` with ties, `agreement_decided` where neither sees a tie, with its 95 % interval over prompts.",
    "swaps": "How often a judge keeps its verdict when the two responses change places (`consistent`, 95 % interval over"
    " prompts), and the share of its decided verdicts for what it sees first. Judges that score one by one see no order.",
    "front": "Oracle scores of soups of two policies, from the first's weight 1 to the second's (`weight`), on held-out prompts."
    " Intervals: 95 %, bootstrap over prompts.",
    "budgets": "What each method was trained with. `pairs`: labelled training pairs. `updates`: PPO's outer steps (MT: optimizer"
    " steps) over all policies; `samples`: responses sampled in them (MT: imitated). `seconds`: wall time of rollouts,"
    " annotation, reward models and policies; what methods share counts whole for each. `answer_ms`: wall time per response.",
    "claims": "Claims and their verdicts: supported where the whole 95 % interval of the effect lies beyond the threshold,"
    " refuted where none of it does. Intervals: of one seed over prompts, of several over seeds (t). No seeds: not measured.",
    "merges": "Merge rules: `relative_error` of the update against the weighted mean of the adapters' updates, and the mean"
    " score of the soups, for the rule that was used.",
    "release_bugs": "Mistakes of the paper's release, one at a time: what a method scores with the mistake (`after`) against"
    " itself without it, or against PP as it is (`before`), over all combinations. `reward models`: accuracy on test pairs, and"
    " on rows held out after pairs were repeated (`after`) against unseen pairs (`before`). Intervals: 95 %, over prompts.",
    "timings": "Wall time of each step, and the peak memory of its process and children.",
    "curves": "Every metric that the training of reward models and policies logged, by step.",
}


def formatted(value: Any) -> str:
    """Return a table's value as text: numbers to 4 places, nothing for null."""
    if value is None:
        return ""
    if isinstance(value, float):
        text = f"{value:.4f}"
        return text.removeprefix("-") if float(text) == 0 else text
    return str(value)


def as_csv(table: pa.Table) -> str:
    """Return a table as CSV with a header."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.column_names)
    writer.writerows([formatted(value) for value in row.values()] for row in table.to_pylist())
    return stream.getvalue()


def as_markdown(table: pa.Table, caption: str) -> str:
    """Return a table as aligned Markdown under its caption; numbers are aligned to the right."""
    names = table.column_names
    cells = [[formatted(value).replace("|", "\\|") for value in row.values()] for row in table.to_pylist()]
    widths = [max(3, *(len(row[i]) for row in [names, *cells])) for i in range(len(names))]
    right = [not pa.types.is_string(field.type) for field in table.schema]

    def line(row: Sequence[str]) -> str:
        padded = [text.rjust(w) if r else text.ljust(w) for text, w, r in zip(row, widths, right, strict=True)]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)]
    return "\n".join([caption, "", line(names), line(rule), *map(line, cells)]) + "\n"


def write_table(out: Path, name: str, rows: Sequence[Row]) -> list[Path]:
    """Write the rows of a table as Parquet, CSV and Markdown in the folder `out`; return the files."""
    table = pa.Table.from_pylist(list(rows), SCHEMAS[name])
    files = [out / f"{name}.{kind}" for kind in ("parquet", "csv", "md")]
    write_parquet(files[0], table)
    write_text(files[1], as_csv(table))
    write_text(files[2], as_markdown(table, CAPTIONS[name]))
    return files


def verdicts_of(judge: str, experiment: Experiment, seed_folder: Path) -> Path:
    """Return the file of a judge's scores or comparisons."""
    if judge == "people" and experiment.evaluation.ratings:
        return Path(experiment.evaluation.ratings)
    return seed_folder / "judge" / judge / ("comparisons.parquet" if judge in COMPARING else "scores.parquet")


def judged(
    experiment: Experiment, seed_folder: Path, oracle: Scores, compared: Sequence[str], bootstrap: Bootstrap
) -> tuple[list[Verdicts], list[Row]]:
    """Return the verdicts of every judge on the methods `compared`, and the rows of table `swaps`."""
    found: list[Verdicts] = []
    swapped: list[Row] = []
    for judge in experiment.evaluation.judges:
        path = verdicts_of(judge, experiment, seed_folder)
        if judge in COMPARING:
            table = read_parquet(path, COMPARISONS)
            check_comparisons(table, str(path))
            found.append(from_comparisons(judge, table))
            swapped += swaps(judge, table, bootstrap)
        else:
            scores = oracle if judge == "oracle" else read_scores(path)
            found.append(from_scores(judge, scores, compared, experiment.combinations))
            swapped.append(swaps_of_scores(found[-1]))
    return found, swapped


def all_tables(experiment: Experiment, seed_folder: Path) -> dict[str, list[Row]]:
    """Return {table: rows} of everything that the run in `seed_folder` measured."""
    bootstrap = Bootstrap(experiment.seed, experiment.evaluation.bootstrap)
    names, combinations, preferences = experiment.evaluation.methods, experiment.combinations, experiment.preferences
    scores = read_scores(seed_folder / ORACLE)
    effects = methods.adapter_effects(scores, bootstrap)
    by_method = methods.methods(scores, names, combinations, bootstrap)
    tokens = methods.lengths(read_parquet(seed_folder / ADAPTERS, RESPONSES))
    curves, timings, data = runs.curves(seed_folder, preferences), runs.timings(seed_folder), runs.data(seed_folder, preferences)
    pairs = {row["preference"]: row["train"] for row in data if row["source"] == TESTBED}
    responses: dict[str, int] = {name: scores.responses(name) for name in names}
    compared = [name for name in winrate.PAPER_METHODS if name in names]
    judges, swapped = judged(experiment, seed_folder, scores, compared, bootstrap)
    shares = {name: weights[experiment.evaluation.front[1]] for name, weights in experiment.front_weights.items()}
    return {
        "data": data,
        "reward_models": runs.reward_models(seed_folder, preferences, experiment.combination_preferences, bootstrap),
        "adapters": methods.adapters(effects, experiment.seed, tokens, runs.last_values(curves, "ppo", "kl")),
        "adapter_effects": effects,
        "methods": by_method,
        "differences": winrate.differences(scores, names, combinations, bootstrap),
        "win_rates": winrate.win_rates(scores, names, combinations, bootstrap),
        "merges": runs.merges(seed_folder, experiment.soup, by_method),
        "matrix": [row for judge in judges for row in matrix.matrix(judge, compared, combinations, bootstrap)],
        "averages": [row for judge in judges for row in matrix.averages(judge, compared, combinations, bootstrap)],
        "agreement": agreement(judges, compared, combinations, bootstrap),
        "swaps": swapped,
        "front": methods.front(scores, experiment.evaluation.front, shares, bootstrap),
        "budgets": budgets(experiment, timings, curves, pairs, responses),
        "release_bugs": release_bugs(experiment, seed_folder, ORACLE, bootstrap),
        "timings": timings,
        "curves": curves,
    }


def read_table(folder: Path, name: str) -> list[Row]:
    """Return the rows of a stored table; raise InputError when it is missing or not of its columns."""
    return read_parquet(folder / f"{name}.parquet", SCHEMAS[name]).to_pylist()


def tables_step(config: Path, seed_folder: Path, out: Path) -> None:
    """Write all tables of the run in `seed_folder` to the folder `out`."""
    experiment = load(config)
    if not seed_folder.is_dir():
        raise InputError(f"{seed_folder}: no such folder; it should hold the outputs of a run")
    inputs = {path.as_posix(): seed_folder / path for path in (ADAPTERS, MERGES)}
    inputs |= {f"judge/{name}": verdicts_of(name, experiment, seed_folder) for name in experiment.evaluation.judges}
    with step("tables", out, experiment, experiment.evaluation, inputs) as run:
        tables = all_tables(experiment, seed_folder)
        files = [path for name, rows in tables.items() for path in write_table(out, name, rows)]
        overall = [row for row in tables["methods"] if row["combination"] == ALL and row["criterion"] == MEAN]
        run.log({f"{row['method']}_mean": row["mean"] for row in overall})
        run.output(*files)
        run.artifact(*(path for path in files if path.suffix == ".md"))
