"""Judge "rules": scores responses by the fixed text rules of `data.rules`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from rlphf.config import load
from rlphf.data.own_rules import own_score
from rlphf.data.rules import rule_scores
from rlphf.derived import methods_of, own_rules
from rlphf.errors import InputError
from rlphf.evaluate.judges.inputs import named, read_inputs
from rlphf.evaluate.scores import ADAPTER, BASE, KEY, Row, score_table
from rlphf.files import write_parquet
from rlphf.settings_own import TextRule
from rlphf.tracking.record import step


def scored(
    prompts: pa.Table, responses: Mapping[str, pa.Table], methods: Sequence[str], own: Mapping[str, TextRule] | None = None
) -> pa.Table:
    """Score the responses of `methods` in RESPONSES tables, {file: table}; return a sorted SCORES table.

    `own` are the rules of the experiment's own preferences.
    Raises InputError for a response to an unknown prompt, one that occurs twice, and a method without responses.
    """
    known, seen = set(prompts["id"].to_pylist()), set()
    found: list[tuple[Row, str, float]] = []
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
            text = row["response"]
            scores = rule_scores(text) | {name: own_score(rule, text) for name, rule in (own or {}).items()}
            found += [(row, criterion, score) for criterion, score in scores.items()]
    there = {row["method"] for row, _, _ in found}
    missing = [method for method in methods if method not in there]
    if missing:
        made_by = "adapters" if missing[0] in (BASE, ADAPTER) else missing[0]
        raise InputError(
            f"responses: there are none of {missing[0]}; rlphf generate --method {made_by}, and name their file, too"
        )
    return score_table(found)


def rules_step(config: Path, prompts: Path, responses: Sequence[Path], out: Path) -> None:
    """Write the rules' scores of all evaluated methods' responses to `out`, in a folder of its own.

    As the first judge they score those of single policies beside the backbone, too.
    """
    experiment = load(config)
    inputs = named(prompts, responses)
    with step("judge rules", out.parent, experiment, experiment.evaluation, inputs, {"judge": "rules"}) as run:
        first = experiment.evaluation.judges[0] == "rules"
        methods = [*methods_of(experiment), *([BASE, ADAPTER] if first else [])]
        table = scored(*read_inputs(prompts, responses), methods, own_rules(experiment))
        write_parquet(out, table)
        run.log({"scores": table.num_rows})
        run.output(out)
