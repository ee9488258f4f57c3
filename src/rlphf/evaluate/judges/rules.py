"""Judge "rules": fixed rules for texts of any language model. They see length, readability and words with a mood, no meaning."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import textstat
from textblob import TextBlob

from rlphf.config import load
from rlphf.errors import InputError
from rlphf.evaluate.judges.inputs import named, read_inputs
from rlphf.evaluate.scores import SCORES
from rlphf.files import write_parquet
from rlphf.tracking.record import step

Rule = Callable[[str], float]
KEY = ("prompt_id", "method", "combination", "sample")


def readability(text: str) -> float:
    """Return the Automated Readability Index (Smith and Senter 1967), about the school year that a text asks for; 0 for none.

    It counts characters, words and sentences. Flesch's formulas count syllables, for which textstat needs a download.
    """
    return float(textstat.automated_readability_index(text)) if words(text) else 0.0


def words(text: str) -> float:
    """Return the number of words of a text."""
    return float(len(text.split()))


def polarity(text: str) -> float:
    """Return how friendly the words of a text are, in [-1, 1], by the lexicon that TextBlob comes with; 0 for none."""
    return float(TextBlob(text).sentiment.polarity)


# Criteria and their rules: what measures it, and the sign that makes more of the criterion score higher. P3C, P3D and
# helpfulness are beyond what such rules can tell, so they have none.
RULES: Mapping[str, tuple[Rule, int]] = {
    "P1A": (readability, -1),
    "P1B": (readability, 1),
    "P2A": (words, -1),
    "P2B": (words, 1),
    "P3A": (polarity, 1),
    "P3B": (polarity, -1),
}


def rule_scores(text: str) -> dict[str, float]:
    """Return {criterion: score} of a response, for the criteria that have a rule; every text has a score."""
    measured = {rule: rule(text) for rule in dict.fromkeys(rule for rule, _ in RULES.values())}
    # Adding 0 turns -0 into 0.
    return {criterion: sign * measured[rule] + 0.0 for criterion, (rule, sign) in RULES.items()}


def scored(prompts: pa.Table, responses: Mapping[str, pa.Table], methods: Sequence[str]) -> pa.Table:
    """Score the responses of `methods` in RESPONSES tables, {file: table}; return a sorted SCORES table.

    Raises InputError for a response to an unknown prompt, one that occurs twice, and a method without responses.
    """
    known, seen = set(prompts["id"].to_pylist()), set()
    columns: dict[str, list] = {name: [] for name in SCORES.names}
    for where, table in responses.items():
        for number, row in enumerate(table.to_pylist(), start=1):
            if row["method"] not in methods:
                continue
            key = tuple(row[name] for name in KEY)
            if row["prompt_id"] not in known:
                raise InputError(f"{where}: row {number}: prompt_id {row['prompt_id']!r} is not among the prompts")
            if key in seen:
                raise InputError(f"{where}: row {number}: {', '.join(map(str, key))} occurs twice; name each file once")
            seen.add(key)
            for criterion, score in rule_scores(row["response"]).items():
                for name, value in zip(SCORES.names, (*key, criterion, score), strict=True):
                    columns[name].append(value)
    missing = [method for method in methods if method not in columns["method"]]
    if missing:
        raise InputError(f"responses: method {missing[0]}: there are none; generate them, and name their file in --responses")
    order = ("method", "combination", "prompt_id", "sample", "criterion")
    return pa.table(columns, SCORES).sort_by([(name, "ascending") for name in order])


def rules_step(config: Path, prompts: Path, responses: Sequence[Path], out: Path) -> None:
    """Write the rules' scores of all evaluated methods' responses to `out`, in a folder of its own."""
    experiment = load(config)
    inputs = named(prompts, responses)
    with step("judge rules", out.parent, experiment, experiment.evaluation, inputs, {"judge": "rules"}) as run:
        table = scored(*read_inputs(prompts, responses), experiment.evaluation.methods)
        write_parquet(out, table)
        run.log({"scores": table.num_rows})
        run.output(out)
