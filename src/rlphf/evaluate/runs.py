"""What the steps of a run left beside their outputs, as rows of tables: reward models, curves, merges, timings, data."""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from rlphf.config import Experiment
from rlphf.data.counts import COUNTS
from rlphf.data.learned import RAW, policy_names, reward_names, sources
from rlphf.data.records import PAIR_SCORES, PAIRS, SPLITS, correctness
from rlphf.derived import SOUPS
from rlphf.errors import InputError
from rlphf.evaluate.bootstrap import Bootstrap, by_group, mean
from rlphf.evaluate.scores import MEAN, Row
from rlphf.files import read_json, read_parquet
from rlphf.layout import reward_scores
from rlphf.preferences import GENERAL, GOLD, MT, SELECTOR
from rlphf.settings import PPO
from rlphf.soup.recipe import rule_name
from rlphf.soup.wanted import merging
from rlphf.tracking.record import RECORD, read_metrics

MERGES = pa.schema([("combination", pa.string()), ("rule", pa.string()), ("relative_error", pa.float64())])
KINDS = ("reward", "ppo", "sft")
# How the names of steps about users begin. Their times are a table of their own: the others wait for none of them.
USERS = "users/"


def spoken_for(seed_folder: Path, kind: str, experiment: Experiment) -> list[str]:
    """Return whom the outputs in a run's folder `kind` (pairs, reward, ppo, sft) speak for.

    Beside the preferences these are, of what the experiment's methods and judges need, those that are there. What an earlier
    configuration left is passed over.
    """
    preferences = experiment.preferences
    rewards = [name for name in reward_names(experiment) if not name.startswith(RAW)]
    wanted = {"reward": rewards, "ppo": policy_names(experiment), "sft": [MT] if "mt" in experiment.evaluation.methods else []}
    learned = {name for learner in (*rewards, *wanted["sft"]) for name in sources(learner, experiment)[0]}
    wanted["pairs"] = [name for name in (*preferences, GENERAL) if name in learned]
    return [name for name in wanted[kind] if name in preferences or (seed_folder / kind / name).exists()]


def measured_models(seed_folder: Path, experiment: Experiment) -> list[str]:
    """Return the names of the reward models of table `reward_models`: with those of raw pairs, which reward no policy."""
    named = spoken_for(seed_folder, "reward", experiment)
    return [*named, *(name for name in reward_names(experiment) if name.startswith(RAW))]


def pairs_file(seed_folder: Path, preference: str) -> Path:
    """Return the file of a preference's annotated pairs."""
    return seed_folder / "pairs" / preference / "pairs.parquet"


def reward_models(seed_folder: Path, experiment: Experiment, bootstrap: Bootstrap) -> list[Row]:
    """Return the rows of table `reward_models` from `reward/<preference>/scores.parquet` and the pairs' prompts.

    P-MORL's model and the gold ones are measured on the pairs of all that they learn (`data.learned`); with raw pairs, the gold
    ones also by whom pairs speak for, as `gold/P2A`.

    `accuracy` is the share of pairs whose chosen response scores higher, a tie counting half; `ceiling` is what a model
    that knew the annotator's noise would reach, the mean of max(p, 1 - p), None where some p is unknown. Intervals are
    over prompts: pairs of one prompt are drawn together.
    """
    rows: list[Row] = []
    for name in measured_models(seed_folder, experiment):
        path = reward_scores(seed_folder, name)
        own, raw = sources(name, experiment)
        files = [pairs_file(seed_folder, preference) for preference in own]
        files += [seed_folder / "data" / "pairs.parquet"] if raw else []
        about: dict[str, tuple[str, str]] = {}
        for file in files:
            pairs = read_parquet(file, PAIRS)
            about |= {row["id"]: (row["prompt"], row["preference"]) for row in pairs.to_pylist()}
        scored = read_parquet(path, PAIR_SCORES).to_pylist()
        for row in scored:
            if row["id"] not in about:
                raise InputError(f"{path}: pair {row['id']} is not among the annotated ones; train the reward model again")
            row["prompt"], row["preference"] = about[row["id"]]
        rows += _accuracies(name, scored, bootstrap)
        if raw and name in (GOLD, SELECTOR):
            for preference in (*own, *raw):
                rows += _accuracies(f"{name}/{preference}", [r for r in scored if r["preference"] == preference], bootstrap)
    return rows


def _accuracies(name: str, scored: Sequence[Row], bootstrap: Bootstrap) -> list[Row]:
    rows: list[Row] = []
    for split in SPLITS:
        found = [row for row in scored if row["split"] == split]
        if not found:
            continue
        right = np.array([correctness(row["chosen"] - row["rejected"]) for row in found])
        low, high = bootstrap.interval(*by_group(right, [row["prompt"] for row in found]))
        known = [row["probability"] for row in found if row["probability"] is not None]
        ceiling = mean(np.array([max(p, 1 - p) for p in known])) if len(known) == len(found) else None
        rows.append(
            {"preference": name, "split": split, "n": len(found), "accuracy": mean(right)}
            | {"ceiling": ceiling, "ci_low": low, "ci_high": high}
        )
    return rows


def curves(seed_folder: Path, experiment: Experiment) -> list[Row]:
    """Return the rows of table `curves` from `<kind>/<preference>/metrics.jsonl`, sorted; of a step logged twice, the last."""
    rows: list[Row] = []
    for kind in KINDS:
        for preference in spoken_for(seed_folder, kind, experiment):
            logged = read_metrics(seed_folder / kind / preference / "metrics.jsonl")
            values = {(name, line["step"]): value for line in logged for name, value in line["metrics"].items()}
            rows += [
                {"preference": preference, "kind": kind, "step": step, "metric": name, "value": values[name, step]}
                for name, step in sorted(values)
            ]
    return rows


def kept_kl(curves: Sequence[Row], settings: PPO) -> dict[str, float]:
    """Return {preference: KL of its policy to the backbone}, in nats per response, by the rows of table `curves`.

    With `keep: best` it is that of the chosen checkpoint, on the prompts by which it was chosen, known only where `max_kl` is
    set. With `keep: last` it is that of the policy that sampled for the last update, one step before the one that was kept.
    """
    values: dict[str, dict[tuple[str, int], float]] = {}
    for row in curves:
        if row["kind"] == "ppo":
            values.setdefault(row["preference"], {})[row["metric"], row["step"]] = row["value"]
    found: dict[str, float] = {}
    for preference, known in values.items():
        if settings.keep == "last":
            steps = [step for metric, step in known if metric == "kl"]
            found |= {preference: known["kl", max(steps)]} if steps else {}
            continue
        # In the order in which they were looked at: the first of the best is kept.
        looked = [(kind, step) for kind in ("start", "selection") for metric, step in sorted(known) if metric == f"{kind}_kl"]
        within = [one for one in looked if known[f"{one[0]}_kl", one[1]] <= (settings.max_kl or float("inf"))]
        if within:
            kind, step = max(within, key=lambda one: known[f"{one[0]}_score", one[1]])
            found[preference] = known[f"{kind}_kl", step]
    return found


def merges(seed_folder: Path, experiment: Experiment, methods: Sequence[Row]) -> list[Row]:
    """Return the rows of table `merges` from the files `merges.parquet` beside the soups.

    `score` is the mean score of method psoups, from the rows of table `methods`, for the rule that its soups were merged by. What
    `soup.compared` names has rows of its own, under its name, with the scores of its method.
    """
    means = {(row["method"], row["combination"]): row["mean"] for row in methods if row["criterion"] == MEAN}
    found: dict[tuple[str, str], Row] = {}
    for compared, file in merges_files(experiment).items():
        used = merging(experiment, compared)
        rule = rule_name(used["rule"], used.get("svd_rank"))
        method = f"{SOUPS}_{compared}" if compared else SOUPS
        for row in read_parquet(seed_folder / file, MERGES).to_pylist():
            scored = row | {"score": means.get((method, row["combination"])) if row["rule"] == rule else None}
            if compared is None:
                found[row["combination"], row["rule"]] = scored
            elif row["rule"] == rule:
                found[row["combination"], compared] = scored | {"rule": compared}
    return [found[key] for key in sorted(found)]


def merges_files(experiment: Experiment) -> dict[str | None, Path]:
    """Return {name in `soup.compared`: its file of merging errors in a seed's folder}; None is the experiment's own way."""
    return {name: Path("soups", name or "", "merges.parquet") for name in (None, *experiment.soup.compared)}


def answering(seed_folder: Path, methods: Sequence[str]) -> dict[str, float]:
    """Return {method: seconds of the step that sampled its responses}, from its record: without the start of the process."""
    records = {name: seed_folder / "responses" / name / RECORD for name in methods}
    return {name: float(read_json(path)["seconds"]) for name, path in records.items() if path.exists()}


def timings(seed_folder: Path, together: Sequence[Sequence[str]] = ()) -> list[Row]:
    """Return the rows of tables `timings` and `users_timings` from Snakemake's files in `benchmarks/`: wall seconds, peak MB.

    Memory is None for a step that ended before Snakemake measured it. Repetitions of a step give their mean time and
    their largest memory. Policies are passed over that an earlier configuration trained in other company than `together`.
    """
    folder = seed_folder / "benchmarks"
    parts = {name: "+".join(part) for part in together for name in part}
    rows: list[Row] = []
    for path in sorted(folder.rglob("*.tsv")):
        if path.parent == folder / "ppo" and any(parts.get(name, name) != path.stem for name in path.stem.split("+")):
            continue
        with path.open(encoding="utf-8", newline="") as stream:
            found = list(csv.DictReader(stream, delimiter="\t"))
        try:
            seconds = [float(row["s"]) for row in found]
            memory = [float(row["max_rss"]) for row in found if row["max_rss"] not in ("NA", "-")]
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{path}: columns s and max_rss with numbers are expected; run the step again") from None
        if seconds:
            step = path.relative_to(folder).with_suffix("").as_posix()
            rows.append({"step": step, "seconds": sum(seconds) / len(seconds), "peak_mb": max(memory, default=None)})
    return rows


def data(seed_folder: Path, experiment: Experiment) -> list[Row]:
    """Return the rows of table `data`: `data/data.parquet` as it is, then the pairs that were made in the run.

    `read` = `kept` + `dropped`, and `kept` is the sum of the splits; reason "all" sums over the reasons to drop.
    """
    counted = seed_folder / "data" / "data.parquet"
    rows: list[Row] = read_parquet(counted, COUNTS).to_pylist() if counted.exists() else []
    raw = {row["source"] for row in rows}
    for preference in spoken_for(seed_folder, "pairs", experiment):
        pairs = read_parquet(pairs_file(seed_folder, preference), PAIRS)
        found = Counter(zip(pairs["source"].to_pylist(), pairs["split"].to_pylist(), strict=True))
        for source in sorted({source for source, _ in found} - raw):
            splits = {split: found[source, split] for split in SPLITS}
            n = sum(splits.values())
            rows.append(
                {"source": source, "preference": preference, "read": n, "kept": n} | splits | {"dropped": 0, "reason": "all"}
            )
    return rows
