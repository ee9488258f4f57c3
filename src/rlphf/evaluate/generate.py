"""Responses of every method on held-out prompts: same prompts, same decoding, same precision for all."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pyarrow as pa
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlphf.config import Experiment, load
from rlphf.data.records import PROMPTS, RESPONSES
from rlphf.derived import combinations_of, compared_as, methods_of
from rlphf.errors import InputError
from rlphf.files import read_parquet, write_parquet
from rlphf.layout import ADAPTER, policy
from rlphf.lm.backbone import backbone_sha256, load_backbone
from rlphf.lm.mixing import Mixture, mixture
from rlphf.lm.rounding import round_weights
from rlphf.lm.sampling import answer
from rlphf.lm.stack import hung
from rlphf.preferences import GENERAL, MT, PMORL, axis_of, instruction, members
from rlphf.seeds import derive
from rlphf.settings_evaluation import Method
from rlphf.soup.adapter import check_backbone, read_adapter
from rlphf.soup.wanted import combination_weights, front_weights
from rlphf.tracking.record import step


@dataclass(frozen=True)
class Arm:
    """A set of responses: its method and combination in the table, the preferences in the prompt, and {adapter: weight}.

    No adapter is the backbone; several, or one with another weight than 1, are mixed at decoding (`lm.mixing`).
    """

    method: str
    combination: str
    asked: list[str]
    adapters: dict[Path, float]


def arms(method: str, experiment: Experiment, models: Path) -> Iterator[Arm]:
    """Yield the arms of a method, whose models lie in the seed's folder `models`.

    vb: the backbone, and rlhf: the policy of the general reward model; nothing is asked, and one answer serves all combinations.
    pp: the backbone, mt, pmorl: their one policy, and psoups: the combination's soup, asked for the combination as in the
    paper. psoups_unprompted: the soup, nothing asked. psoups_<name>: the soup that an entry of `soup.compared` makes, asked for
    the combination. mod: the combination's policies, mixed at decoding, asked for it.
    Not methods: adapters, the single policies beside the backbone, both asked for their preference; front, soups of two
    policies from one end to the other, asked for both where they are of two axes, else for nothing.
    """
    if method == "vb":
        yield Arm("vb", "", [], {})
    elif method == "rlhf":
        yield Arm("rlhf", "", [], {policy(models, GENERAL): 1.0})
    elif method == "adapters":
        for preference in experiment.preferences:
            yield Arm("base", preference, [preference], {})
        for preference in experiment.preferences:
            yield Arm("adapter", preference, [preference], {policy(models, preference): 1.0})
    elif method == "front":
        ids = experiment.evaluation.front
        if not ids:
            raise InputError("evaluation.front: names no preferences; name two, to interpolate between")
        asked = ids if len({axis_of(name) for name in ids}) == len(ids) else []
        for name in front_weights(experiment):
            yield Arm("front", name, asked, {models / "soups" / "front" / name: 1.0})
    elif method not in get_args(Method) and not compared_as(method, experiment):
        known = (*get_args(Method), *methods_of(experiment), "adapters", "front")
        raise InputError(f"--method: {method!r} is none; choose from {', '.join(dict.fromkeys(known))}")
    else:
        for combination in combinations_of(experiment):
            asked = [] if method == "psoups_unprompted" else members(combination)
            yield Arm(method, combination, asked, _serving(method, combination, experiment, models))


def _serving(method: str, combination: str, experiment: Experiment, models: Path) -> dict[Path, float]:
    if method == "pp":
        return {}
    if method == "mod":
        return {policy(models, p): weight for p, weight in combination_weights(experiment, combination).items()}
    folders = {MT: models / "sft" / MT / ADAPTER, PMORL: policy(models, PMORL)}
    soups = models / "soups" / (compared_as(method, experiment) or "")
    return {folders.get(method, soups / combination): 1.0}


@contextmanager
def serving(model: PreTrainedModel, adapters: dict[Path, float]) -> Iterator[PreTrainedModel | Mixture]:
    """Give the model with the arm's adapters on it, and take them off afterwards; one of weight 1 is merged, in float32."""
    if not adapters:
        yield model
    elif list(adapters.values()) == [1.0]:
        exact, ones = model.dtype == torch.float32, torch.ones(1, 1, device=model.device)
        with hung(model, list(adapters)) as stack, stack.merged(0) if exact else stack.mixing(ones):
            yield model
    else:
        with mixture(model, adapters) as mixed:
            yield mixed


def respond(
    model: PreTrainedModel | Mixture,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[dict],
    experiment: Experiment,
    arm: Arm,
) -> list[dict]:
    """Return `evaluation.samples` responses per prompt, as rows of RESPONSES; the random stream is the arm's own."""
    settings = experiment.evaluation
    wanted = [(row, sample) for row in prompts for sample in range(settings.samples)]
    texts = [instruction(row["prompt"], arm.asked) for row, _ in wanted]
    seed = derive(experiment.seed, "evaluate", f"{arm.method}/{arm.combination}")
    answers = answer(model, tokenizer, texts, settings.decoding, seed)
    return [
        {"prompt_id": row["id"], "method": arm.method, "combination": arm.combination, "sample": sample}
        | {"response": text, "tokens": tokens, "finished": finished}
        for (row, sample), (text, tokens, finished) in zip(wanted, answers, strict=True)
    ]


def generate_step(config: Path, method: str, prompts: Path, backbone: Path, models: Path, out: Path) -> None:
    """Write the responses of a method, to every prompt of the split that is evaluated, to `out`."""
    experiment = load(config)
    settings = experiment.evaluation
    wanted = list(arms(method, experiment, models))
    folders = dict.fromkeys(folder for arm in wanted for folder in arm.adapters)
    inputs = {"prompts": prompts, "backbone": backbone}
    inputs |= {folder.relative_to(models).as_posix(): folder for folder in folders}
    with step(f"generate {method}", out.parent, experiment, settings, inputs, {"method": method}) as run:
        rows = [row for row in read_parquet(prompts, PROMPTS).to_pylist() if row["split"] == settings.split]
        if not rows:
            raise InputError(f"{prompts}: the split {settings.split!r} is empty; nothing to evaluate on")
        model, tokenizer = load_backbone(backbone)
        if experiment.mistakes.low_precision_baselines:
            round_weights(model, 8 if folders else 4)
        digest = backbone_sha256(backbone)
        for folder in folders:
            # PEFT would load whatever it finds; compared are plain LoRA adapters of finite numbers.
            read_adapter(folder)
            check_backbone(folder, digest)
        table: list[dict] = []
        for arm in wanted:
            with serving(model, arm.adapters) as served:
                table += respond(served, tokenizer, rows, experiment, arm)
        write_parquet(out, pa.Table.from_pylist(table, RESPONSES))
        run.log({"responses": len(table), "tokens_per_response": sum(r["tokens"] for r in table) / len(table)})
        run.output(out)
