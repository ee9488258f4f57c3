"""Rollouts: responses of the backbone to prompts that ask for a preference, for an annotator to choose between."""

from pathlib import Path
from random import Random

import pyarrow as pa

from rlphf.config import load
from rlphf.data.records import PROMPTS, RESPONSES
from rlphf.errors import InputError
from rlphf.files import read_parquet, write_parquet
from rlphf.lm.backbone import load_backbone
from rlphf.lm.sampling import answer
from rlphf.preferences import FORMS, instruction, request
from rlphf.seeds import derive
from rlphf.settings import Rollouts
from rlphf.tracking.record import step


def pairs_per_prompt(settings: Rollouts, split: str) -> int:
    """Return how many pairs of responses a prompt of a split gets."""
    return {"train": settings.train_pairs, "validation": settings.validation_pairs, "test": settings.test_pairs}[split]


def rollouts_step(config: Path, preference: str, prompts: Path, backbone: Path, out: Path) -> None:
    """Sample two responses per pair and prompt for a preference; write RESPONSES to `out`, with what each was asked for.

    How a response is asked for the preference is drawn by the weights `rollouts.asked`, response by response ("general" asks
    for nothing). Samples 2k and 2k+1 of a prompt are its pair k.
    """
    experiment = load(config)
    settings = experiment.rollouts
    inputs = {"prompts": prompts, "backbone": backbone}
    with step("rollouts", out.parent, experiment, settings, inputs, {"preference": preference}) as run:
        rows = read_parquet(prompts, PROMPTS).to_pylist()
        if not rows:
            raise InputError(f"{prompts}: holds no prompts; nothing to sample responses to")
        wanted = [(row["id"], row["prompt"], k) for row in rows for k in range(2 * pairs_per_prompt(settings, row["split"]))]
        model, tokenizer = load_backbone(backbone)
        seed = derive(experiment.seed, "rollouts", preference)
        rng = Random(derive(seed, "asked"))
        asked = [request(preference, rng.choices(FORMS, settings.asked)[0], rng) for _ in wanted]
        texts = [instruction(text, ids) for (_, text, _), ids in zip(wanted, asked, strict=True)]
        answers = answer(model, tokenizer, texts, settings.decoding, seed)
        table = pa.Table.from_pylist(
            [
                {
                    "prompt_id": name,
                    "method": "rollout",
                    "combination": "-".join(ids),
                    "sample": k,
                    "response": text,
                    "tokens": tokens,
                    "finished": finished,
                }
                for (name, _, k), ids, (text, tokens, finished) in zip(wanted, asked, answers, strict=True)
            ],
            RESPONSES,
        )
        write_parquet(out, table)
        run.log({"responses": len(table), "tokens_per_response": sum(a[1] for a in answers) / len(answers)})
        run.output(out)
