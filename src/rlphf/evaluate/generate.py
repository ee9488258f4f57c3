"""Responses of every method on held-out prompts: same prompts, same decoding, same precision for all."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlphf.config import Experiment, load
from rlphf.data.records import PROMPTS, RESPONSES
from rlphf.errors import InputError
from rlphf.files import read_json, read_parquet, write_parquet
from rlphf.lm.backbone import backbone_sha256, load_backbone
from rlphf.lm.sampling import answer
from rlphf.preferences import instruction, members
from rlphf.seeds import derive
from rlphf.tracking.record import step


def with_adapter(model: PreTrainedModel, folder: Path, backbone_digest: str) -> PeftModel:
    """Return the model with the adapter in `folder` on it; raise InputError for an adapter of another backbone."""
    if read_json(folder / "adapter.json").get("backbone_sha256") != backbone_digest:
        raise InputError(f"{folder}: made for another backbone; train it again on this one")
    return PeftModel.from_pretrained(model, folder, use_safetensors=True)


def arms(method: str, experiment: Experiment, adapters: Path, soups: Path) -> Iterator[tuple[str, str, list[str], Path | None]]:
    """Yield (method, combination, preferences in the prompt, adapter folder) of each set of responses that a method makes.

    vb: the backbone, nothing asked; one answer serves all combinations. pp: the backbone, asked for the combination.
    psoups: the combination's soup, asked for it too, as the paper does; psoups_unprompted: the same, nothing asked.
    adapters: not a method but the single adapters, each beside the backbone asked for the same preference.
    """
    if method == "vb":
        yield "vb", "", [], None
    elif method == "adapters":
        for preference in experiment.preferences:
            yield "base", preference, [preference], None
        for preference in experiment.preferences:
            yield "adapter", preference, [preference], adapters / preference / "adapter"
    else:
        for combination in experiment.combinations:
            asked = [] if method == "psoups_unprompted" else members(combination)
            yield method, combination, asked, None if method == "pp" else soups / combination


def respond(
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[dict],
    experiment: Experiment,
    name: str,
    asked: list[str],
) -> list[dict]:
    """Return `evaluation.samples` responses per prompt, as fields of RESPONSES; the random stream is that of `name`."""
    settings = experiment.evaluation
    wanted = [(row, sample) for row in prompts for sample in range(settings.samples)]
    texts = [instruction(row["prompt"], asked) for row, _ in wanted]
    answers = answer(model, tokenizer, texts, settings.decoding, derive(experiment.seed, "evaluate", name))
    return [
        {"prompt_id": row["id"], "sample": sample, "response": text, "tokens": tokens, "finished": finished}
        for (row, sample), (text, tokens, finished) in zip(wanted, answers, strict=True)
    ]


def generate_step(config: Path, method: str, prompts: Path, backbone: Path, adapters: Path, soups: Path, out: Path) -> None:
    """Write the responses of a method, to every prompt of the split that is evaluated, to `out`."""
    experiment = load(config)
    settings = experiment.evaluation
    inputs = {"prompts": prompts, "backbone": backbone}
    inputs |= {"adapters": adapters} if method == "adapters" else {"soups": soups} if method.startswith("psoups") else {}
    with step(f"generate {method}", out.parent, experiment, settings, inputs, {"method": method}) as run:
        rows = [row for row in read_parquet(prompts, PROMPTS).to_pylist() if row["split"] == settings.split]
        if not rows:
            raise InputError(f"{prompts}: the split {settings.split!r} is empty; nothing to evaluate on")
        model, tokenizer = load_backbone(backbone)
        digest = backbone_sha256(backbone)
        table = []
        for arm, combination, asked, folder in arms(method, experiment, adapters, soups):
            name = f"{arm}/{combination}"
            if folder is None:
                answers = respond(model, tokenizer, rows, experiment, name, asked)
            else:
                adapted = with_adapter(model, folder, digest)
                answers = respond(adapted, tokenizer, rows, experiment, name, asked)
                model = adapted.unload()
            table += [{"method": arm, "combination": combination, **fields} for fields in answers]
        write_parquet(out, pa.Table.from_pylist(table, RESPONSES))
        run.log({"responses": len(table), "tokens_per_response": sum(r["tokens"] for r in table) / len(table)})
        run.output(out)
