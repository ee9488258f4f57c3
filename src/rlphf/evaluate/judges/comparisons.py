"""Comparisons: which questions a judge is asked about pairs of responses, and the table of its verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import Any

import pyarrow as pa

from rlphf.config import Experiment
from rlphf.derived import PAPER_METHODS, combinations_of
from rlphf.errors import InputError
from rlphf.evaluate.scores import HELPFULNESS
from rlphf.files import digest
from rlphf.preferences import members
from rlphf.seeds import derive

ORDERS = ("a", "b")
COMPARISONS = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("combination", pa.string(), nullable=False),  # The one judged, also where a method serves all with one answer.
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("method_a", pa.string(), nullable=False),
        pa.field("method_b", pa.string(), nullable=False),
        pa.field("criterion", pa.string(), nullable=False),
        pa.field("first", pa.string(), nullable=False),  # "a" or "b": whose response was shown first.
        pa.field("verdict", pa.int8(), nullable=False),  # 1: a is better, -1: b is, 0: tie; whoever was shown first.
        pa.field("malformed", pa.bool_(), nullable=False),  # No verdict was found in any reply; counts as a tie.
    ]
)
# Ratings by people, which are not asked for again: `shown` is the digest of the texts that they saw, `Question.texts`.
RATED = COMPARISONS.append(pa.field("shown", pa.string(), nullable=False))
# The columns that identify a question; the others hold the answer.
ASKED = tuple(COMPARISONS.names[:7])
SORTED = ("combination", "criterion", "prompt_id", "sample", "method_a", "method_b", "first")

# {(method, combination): {prompt id: response}}
Answers = Mapping[tuple[str, str], Mapping[str, str]]


@dataclass(frozen=True)
class Question:
    """One comparison to be made: two methods' responses to a prompt, by one criterion, in one order."""

    prompt_id: str
    combination: str
    sample: int
    method_a: str
    method_b: str
    criterion: str
    first: str
    prompt: str
    response_a: str
    response_b: str

    @property
    def shown(self) -> tuple[str, str]:
        """The two responses in the order in which they are shown."""
        return (self.response_a, self.response_b) if self.first == "a" else (self.response_b, self.response_a)

    @property
    def texts(self) -> str:
        """A digest of the prompt and both responses, whichever is shown first."""
        return shown_digest(self.prompt, self.response_a, self.response_b)

    @property
    def columns(self) -> dict[str, Any]:
        """The columns of COMPARISONS that a question fills."""
        return {name: getattr(self, name) for name in ASKED}


def row(columns: Mapping[str, Any], shown: int | None) -> dict[str, Any]:
    """Return the row of COMPARISONS for a verdict about what was shown first (1) against second (-1); None is malformed."""
    verdict = shown or 0
    return {**columns, "verdict": verdict if columns["first"] == "a" else -verdict, "malformed": shown is None}


def table_of(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Return rows as a sorted COMPARISONS table."""
    return pa.Table.from_pylist(list(rows), COMPARISONS).sort_by([(name, "ascending") for name in SORTED])


def check_comparisons(table: pa.Table, where: str) -> None:
    """Raise InputError, beginning with `where` and naming row and column, if `table` breaks a rule of COMPARISONS.

    Two methods differ, the criterion is one of the combination's preferences or helpfulness, what is malformed is a tie, and
    no comparison is there twice in one order.
    """
    if table.schema.names != COMPARISONS.names:
        raise InputError(f"{where}: columns are {', '.join(table.schema.names)}; expected {', '.join(COMPARISONS.names)}")
    for field in COMPARISONS:
        if table[field.name].type != field.type:
            raise InputError(f"{where}: column {field.name}: is {table[field.name].type}, expected {field.type}")
    seen = set()
    for number, row in enumerate(table.to_pylist(), start=1):
        name, reason = _fault(row)
        if reason:
            raise InputError(f"{where}: row {number}, column {name}: {reason}")
        # A pair named the other way round is the same comparison, and so is the order in which it was shown.
        shown = row["method_a"] if row["first"] == "a" else row["method_b"]
        pair = tuple(sorted((row["method_a"], row["method_b"])))
        key = (row["prompt_id"], row["combination"], row["sample"], *pair, row["criterion"], shown)
        if key in seen:
            raise InputError(f"{where}: row {number}: {', '.join(map(str, key[:-1]))}, {shown} first, occurs twice; keep one")
        seen.add(key)


def _fault(row: Mapping[str, Any]) -> tuple[str, str]:
    """Return (column, what is wrong) of the first fault in a row of COMPARISONS; ("", "") for none."""
    for name, value in row.items():
        if value is None or value == "":
            return name, "is empty; give it a value"
    if row["sample"] < 0:
        return "sample", "is negative"
    if row["method_a"] == row["method_b"]:
        return "method_b", f"is method_a ({row['method_a']}); compare two methods"
    if row["criterion"] not in criteria(row["combination"]):
        return "criterion", f"{row['criterion']!r} is no criterion of {row['combination']}"
    if row["first"] not in ORDERS:
        return "first", f"{row['first']!r} is neither a nor b"
    if row["verdict"] not in (1, -1, 0):
        return "verdict", f"{row['verdict']} is none of 1, -1 and 0"
    if row["malformed"] and row["verdict"]:
        return "malformed", "has a verdict; what is malformed counts as a tie"
    return "", ""


def criteria(combination: str) -> list[str]:
    """Return what responses for a combination are compared by: its preferences, and helpfulness."""
    return [*members(combination), HELPFULNESS]


def compared(experiment: Experiment) -> list[str]:
    """Return the paper's methods that are evaluated, in the order of the configuration; raise InputError for fewer than two."""
    methods: list[str] = [name for name in experiment.evaluation.methods if name in PAPER_METHODS]
    if len(methods) < 2:
        raise InputError(f"evaluation.methods: name two or more of {', '.join(PAPER_METHODS)}; nothing to compare")
    return methods


def spread(ids: Sequence[str], count: int | None) -> list[str]:
    """Return `count` of the sorted ids at equal distances; all for None, or where there are no more."""
    ids = sorted(ids)
    count = len(ids) if count is None else min(count, len(ids))
    return [ids[i * len(ids) // count] for i in range(count)]


def shown_digest(prompt: str, response_a: str, response_b: str) -> str:
    """Return 16 hexadecimal digits that stand for a prompt and two responses to it."""
    return digest([prompt, response_a, response_b])[:16]


def check_shown(
    rated: pa.Table, where: str, experiment: Experiment, prompts: pa.Table, responses: Mapping[str, pa.Table]
) -> None:
    """Raise InputError, beginning with `where` and naming the row, unless people saw the responses of this run.

    `rated` is a RATED table; `responses` are RESPONSES tables, {file: table}, of the methods that are compared. Rows about other
    methods are passed over.
    """
    texts = _evaluated(experiment, prompts)
    methods = compared(experiment)
    answers = _answers(responses, methods)
    arms: dict[tuple[str, str], Mapping[str, str]] = {}
    for number, row in enumerate(rated.to_pylist(), start=1):
        name, combination, pair = row["prompt_id"], row["combination"], (row["method_a"], row["method_b"])
        if not set(pair) <= set(methods) or combination not in combinations_of(experiment):
            continue
        for method in pair:
            if (method, combination) not in arms:
                arms[method, combination] = _arm(answers, method, combination, texts)
        shown = [arms[method, combination].get(name, "") for method in pair]
        if name not in texts or row["shown"] != shown_digest(texts[name], *shown):
            raise InputError(
                f"{where}: row {number}: people saw other responses of {' and '.join(pair)} to prompt {name} (combination"
                f" {combination}) than this run has; export its own sheet, or take its own ratings"
            )


def questions(
    experiment: Experiment, prompts: pa.Table, responses: Mapping[str, pa.Table], count: int | None = None
) -> list[Question]:
    """Return all comparisons of an experiment, each in both orders, in the order of the table.

    `responses` are RESPONSES tables, {file: table}; of their samples the first is compared. Each unordered pair of the paper's
    methods is compared for every combination, by its preferences and helpfulness, on `evaluation.llm.prompts` prompts, or on
    `count` prompts that the experiment's seed draws, which are the same for all. Raises InputError, naming method and prompt,
    where a method does not answer exactly the prompts that are evaluated, and where there are fewer of these than `count`.
    """
    texts = _evaluated(experiment, prompts)
    asked = (
        spread(list(texts), experiment.evaluation.llm.prompts) if count is None else _drawn(list(texts), count, experiment.seed)
    )
    methods = compared(experiment)
    answers = _answers(responses, methods)
    asked_questions = []
    for combination in combinations_of(experiment):
        arms = {method: _arm(answers, method, combination, texts) for method in methods}
        for criterion in criteria(combination):
            for name in asked:
                for a, b in combinations(methods, 2):
                    for first in ORDERS:
                        identity = (name, combination, 0, a, b, criterion, first)
                        asked_questions.append(Question(*identity, texts[name], arms[a][name], arms[b][name]))
    return asked_questions


def _evaluated(experiment: Experiment, prompts: pa.Table) -> dict[str, str]:
    split = experiment.evaluation.split
    texts = {row["id"]: row["prompt"] for row in prompts.to_pylist() if row["split"] == split}
    if not texts:
        raise InputError(f"prompts: the split {split!r} is empty; nothing to compare on")
    return texts


def _drawn(ids: Sequence[str], count: int, seed: int) -> list[str]:
    if not 0 < count <= len(ids):
        raise InputError(f"--prompt-count: {count} of {len(ids)} prompts cannot be drawn; take 1 to {len(ids)}")
    return sorted(Random(derive(seed, "judge", "prompts")).sample(sorted(ids), count))


def _answers(responses: Mapping[str, pa.Table], methods: Sequence[str]) -> Answers:
    answers: dict[tuple[str, str], dict[str, str]] = {}
    for where, table in responses.items():
        for row in table.to_pylist():
            if row["method"] not in methods or row["sample"] != 0:
                continue
            arm = answers.setdefault((row["method"], row["combination"]), {})
            if row["prompt_id"] in arm:
                answer = f"method {row['method']}, combination {row['combination'] or 'none'}, prompt {row['prompt_id']}"
                raise InputError(f"{where}: {answer}: occurs twice; name each file of responses once")
            arm[row["prompt_id"]] = row["response"]
    return answers


def _arm(answers: Answers, method: str, combination: str, texts: Mapping[str, str]) -> Mapping[str, str]:
    """Return {prompt id: response} of a method for a combination; of "" where the method has no other."""
    alone = [name for other, name in answers if other == method] == [""]
    arm = answers.get((method, "" if alone else combination))
    where = f"responses: method {method}, combination {combination}"
    if arm is None:
        raise InputError(f"{where}: there are none; generate them, and name their file in --responses")
    missing, odd = sorted(set(texts) - set(arm)), sorted(set(arm) - set(texts))
    if missing:
        raise InputError(f"{where}: none to prompt {missing[0]} ({len(missing)} are missing); generate them again")
    if odd:
        raise InputError(f"{where}: answers prompt {odd[0]}, which is not among those evaluated; generate them again")
    return arm
