"""Judge "oracle": reads a testbed response back and scores it by every criterion, exactly."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from rlphf.config import load
from rlphf.data.own_rules import own_score
from rlphf.data.records import PROMPTS, RESPONSES, unique
from rlphf.derived import own_rules
from rlphf.errors import InputError
from rlphf.evaluate.judges.inputs import named
from rlphf.evaluate.scores import KEY, ORDER, Row, in_order, score_table
from rlphf.files import read_parquet, write_parquet
from rlphf.settings_own import TextRule
from rlphf.testbed import oracle
from rlphf.tracking.record import step


def oracle_scores(
    prompts: pa.Table, responses: pa.Table, where: str = "responses", own: Mapping[str, TextRule] | None = None
) -> pa.Table:
    """Score RESPONSES to testbed PROMPTS by every criterion of the oracle; return a sorted SCORES table.

    The testbed's language knows nothing of an experiment's own preferences: their rules `own` score these.
    Raises InputError, naming the row in `where`, for a response to a prompt that is unknown or has no topic, and for one
    that occurs twice.
    """
    topics = dict(zip(prompts["id"].to_pylist(), prompts["topic"].to_pylist(), strict=True))
    seen = set()
    scored: list[tuple[Row, str, float]] = []
    for number, row in enumerate(responses.to_pylist()):
        key = tuple(row[name] for name in KEY)
        topic = topics.get(row["prompt_id"])
        if topic is None:
            fault = "has no topic" if row["prompt_id"] in topics else "is not among the prompts"
            raise InputError(f"{where}: row {number}: prompt_id {row['prompt_id']!r} {fault}; the oracle judges testbed prompts")
        if key in seen:
            raise InputError(f"{where}: row {number}: {', '.join(map(str, key))} occurs twice; generate the responses again")
        seen.add(key)
        text = row["response"]
        found = oracle.scores(text, topic) | {name: own_score(rule, text) for name, rule in (own or {}).items()}
        scored += [(row, criterion, score) for criterion, score in found.items()]
    return score_table(scored)


def oracle_step(config: Path, prompts: Path, responses: Sequence[Path], out: Path) -> None:
    """Write the oracle's scores of all responses in the files `responses` to `out`, in a folder of its own."""
    experiment = load(config)
    inputs = named(prompts, responses)
    with step("judge oracle", out.parent, experiment, experiment.evaluation, inputs, {"judge": "oracle"}) as run:
        asked = read_parquet(prompts, PROMPTS)
        tables = [oracle_scores(asked, read_parquet(path, RESPONSES), str(path), own_rules(experiment)) for path in responses]
        table = pa.concat_tables(tables)
        unique(table, ORDER, "--responses")
        write_parquet(out, in_order(table))
        run.output(out)
