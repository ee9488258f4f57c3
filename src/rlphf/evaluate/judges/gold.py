"""Judge "gold": a reward model of its own, trained on pairs that no policy's reward model has learned from.

One model for all criteria, which it knows by their prompts: rule `reward` trains it, on the pairs that `data.learned` names.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from rlphf.config import load
from rlphf.derived import combinations_of, methods_of
from rlphf.errors import InputError
from rlphf.evaluate.judges.comparisons import compared, criteria
from rlphf.evaluate.judges.inputs import named, read_inputs
from rlphf.evaluate.scores import ADAPTER, BASE, HELPFULNESS, score_table
from rlphf.files import write_parquet
from rlphf.preferences import alone, instruction
from rlphf.tracking.record import step


def asked(
    prompts: pa.Table,
    responses: Mapping[str, pa.Table],
    methods: Sequence[str],
    combinations: Sequence[str],
    first_alone: bool = True,
) -> list[tuple[dict, str, str]]:
    """Return what is to be scored: (row of RESPONSES, criterion, the question as the model has learned it).

    The first response to each prompt is, or every one, by its combination's preferences and helpfulness; one that serves all
    `combinations`, by the preferences of all. For helpfulness nothing is asked but the question, as in the general pairs.
    Raises InputError for a response to an unknown prompt.
    """
    texts = dict(zip(prompts["id"].to_pylist(), prompts["prompt"].to_pylist(), strict=True))
    found = []
    for where, table in responses.items():
        for number, row in enumerate(table.to_pylist(), start=1):
            if row["method"] not in methods or (first_alone and row["sample"] != 0):
                continue
            if row["prompt_id"] not in texts:
                raise InputError(f"{where}: row {number}: prompt_id {row['prompt_id']!r} is not among the prompts")
            served = [row["combination"]] if row["combination"] else combinations
            for criterion in dict.fromkeys(name for combination in served for name in criteria(combination)):
                ids = [] if criterion == HELPFULNESS else alone(criterion)
                found.append((row, criterion, instruction(texts[row["prompt_id"]], ids)))
    return found


def gold_step(config: Path, prompts: Path, responses: Sequence[Path], backbone: Path, reward: Path, out: Path) -> None:
    """Write the scores that the gold reward model in the folder `reward` gives the paper's methods to `out`.

    As the first judge it scores all responses of all methods, and those of single policies beside the backbone.
    """
    from rlphf.lm.reward_model import encode_texts, load_reward_model, score, text_limit

    experiment = load(config)
    inputs = named(prompts, responses) | {"backbone": backbone, "reward": reward}
    with step("judge gold", out.parent, experiment, experiment.evaluation, inputs, {"judge": "gold"}) as run:
        if experiment.evaluation.judges[0] == "gold":
            methods = [*methods_of(experiment), BASE, ADAPTER]
            served = [*combinations_of(experiment), *experiment.preferences]
            wanted = asked(*read_inputs(prompts, responses), methods, served, first_alone=False)
        else:
            wanted = asked(*read_inputs(prompts, responses), compared(experiment), combinations_of(experiment))
        model, tokenizer = load_reward_model(backbone, reward)
        said, limit = [row["response"] for row, _, _ in wanted], text_limit(model, experiment.reward.max_length)
        texts = encode_texts(tokenizer, [question for _, _, question in wanted], said, limit)
        scores = score(model, texts, tokenizer.pad_token_id)
        table = score_table((row, criterion, value) for (row, criterion, _), value in zip(wanted, scores, strict=True))
        write_parquet(out, table)
        run.log({"scores": table.num_rows})
        run.output(out)
