"""What benchmarks of models need: the small Llama or SmolLM2, a reward model on it, prompts, and adapters; all by seed.

Weights of the small Llama, of adapters and of the reward model are random: speed does not depend on them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, Answer, Options, Side, graphics, measure
from benchmarks.table import Row
from rlphf.errors import InputError
from rlphf.files import read_json, write_json

CONFIG = ROOT / "config" / "config.yaml"
SMALL, SMOLLM2 = "small Llama", "SmolLM2-135M"
MODELS = {"small": SMALL, "smollm2": SMOLLM2}
DTYPES = {"cpu": "float32", "cuda": "bfloat16"}
PROMPTS = 256
LORA: dict[str, Any] = {"rank": 8, "alpha": 16, "dropout": 0.0, "targets": ["q_proj", "v_proj", "up_proj", "down_proj"]}


@dataclass(frozen=True)
class Prepared:
    """Name and folder of a model, its reward model as an adapter and as a whole classifier, and prompts as token ids."""

    name: str
    model: Path
    reward: Path
    classifier: Path
    prompts: Path

    def lengths(self, count: int) -> list[int]:
        """Return the lengths of the first `count` prompts in tokens."""
        return [len(prompt) for prompt in read_json(self.prompts)[:count]]


def rows_of_models(
    name: str,
    what: str,
    options: Options,
    measured: Callable[[Row, Prepared, Options], Row],
    devices: tuple[str, ...] = tuple(DTYPES),
) -> Iterator[Row]:
    """Yield the row of `what` for each device and model: what `measured` makes of an empty row, or why it is not measured."""
    for device in devices:
        for key, model in MODELS.items():
            place = f"{'CPU' if device == 'cpu' else 'CUDA'} in {DTYPES[device]}"
            row = Row(f"{name}-{key}" + ("-cuda" if device == "cuda" else ""), f"{what}, {model}, {place}")
            there = replace(options, device=device)
            if device == "cuda" and graphics(there) is None:
                yield replace(row, missing="torch finds no CUDA device on the machine")
            elif model == SMOLLM2 and options.small and options.smollm2 is None:
                yield replace(row, missing="a trial does not download the model")
            else:
                try:
                    made = prepared(model, options)
                except InputError as error:
                    yield replace(row, missing=str(error))
                else:
                    yield measured(row, made, there)


@cache
def prepared(name: str, options: Options) -> Prepared:
    """Make the model `name`, SMALL or SMOLLM2, with what belongs to it; InputError where it cannot be had."""
    folder = options.work / name.replace(" ", "-").lower()
    made = Prepared(name, folder / "model", folder / "reward", folder / "classifier", folder / "prompts.json")
    if name == SMOLLM2 and options.smollm2:
        made = replace(made, model=options.smollm2)
    elif name == SMOLLM2:
        measure(Side(name, "benchmarks.models:make_smollm2", {"out": str(made.model)}), options)
    else:
        measure(Side(name, "benchmarks.models:make_small", {"out": str(made.model)}), options)
    arguments = {key: str(getattr(made, key)) for key in ("model", "reward", "classifier", "prompts")}
    measure(Side(name, "benchmarks.models:make_reward", arguments), options)
    return made


def make_small(out: str) -> None:
    """Side: the demo's small Llama, untrained, with a tokenizer of its vocabulary."""
    from rlphf.config import load
    from rlphf.testbed.prompts import corpus
    from rlphf.train.backbone import TOKENIZER_DOCUMENTS, small_llama, train_tokenizer

    experiment = load(CONFIG)
    texts = [f"{a}\n{b}" for a, b in islice(corpus(experiment.testbed, 1), TOKENIZER_DOCUMENTS)]
    tokenizer = train_tokenizer(texts, experiment.backbone.vocabulary)
    small_llama(experiment.backbone, tokenizer, 0).save_pretrained(out)
    tokenizer.save_pretrained(out)


def make_smollm2(out: str) -> None:
    """Side: SmolLM2-135M-Instruct out of its package, as the step `backbone` writes it."""
    from rlphf.settings import Backbone
    from rlphf.train.backbone import package_backbone

    model, tokenizer = package_backbone(Backbone(source="package"))
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def make_reward(model: str, reward: str, classifier: str, prompts: str) -> None:
    """Side: a random reward model on a backbone, as adapter and merged into a classifier, and the testbed's prompts."""
    import torch
    from peft import get_peft_model
    from peft.utils import get_peft_model_state_dict

    from rlphf.config import load
    from rlphf.lm.adapters import lora_config, write_adapter
    from rlphf.lm.backbone import backbone_sha256
    from rlphf.lm.chat import encode_prompts
    from rlphf.lm.reward_model import classifier as load_classifier
    from rlphf.settings import Lora
    from rlphf.testbed.prompts import corpus

    torch.manual_seed(0)
    base, tokenizer = load_classifier(model)
    adapted: Any = get_peft_model(base, lora_config(Lora(**LORA), task_type="SEQ_CLS"))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name or "score" in name:
                parameter.normal_(std=0.02)
    about = {"kind": "reward", "preference": "general", "backbone_sha256": backbone_sha256(model)}
    write_adapter(reward, get_peft_model_state_dict(adapted), adapted.peft_config["default"].to_dict(), model, about)
    adapted.merge_and_unload().save_pretrained(classifier)
    tokenizer.save_pretrained(classifier)
    asked = [prompt for prompt, _ in islice(corpus(load(CONFIG).testbed, 1), PROMPTS)]
    write_json(prompts, encode_prompts(tokenizer, asked))


def make_adapters(model: str, names: list[str], out: str) -> Answer:
    """Side: write a random policy adapter per name to `out`; answers the bytes of one."""
    import torch

    from rlphf.lm.adapters import add_policy, write_policy
    from rlphf.lm.backbone import backbone_sha256, load_backbone
    from rlphf.settings import Lora

    adapted = add_policy(load_backbone(model)[0], Lora(**LORA), seed=0)
    about = {"backbone_sha256": backbone_sha256(model)}
    for name in names:
        with torch.no_grad():
            for key, parameter in adapted.named_parameters():
                if "lora_B" in key:
                    parameter.normal_(std=0.02)
        write_policy(adapted, Path(out) / name, model, about)
    return {"bytes": sum(path.stat().st_size for path in (Path(out) / names[0]).iterdir())}
