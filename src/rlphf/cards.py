"""Model cards: the README.md of an adapter, reward model or soup, in the format of the Hugging Face hub.

A card is made of what is known when its folder is written, never of what a later step measures. It has no date and no absolute
path, so equal steps write equal bytes. Nothing depends on its words, so they are in no digest of source code (`sources.py`).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from rlphf.config import Experiment
from rlphf.data.records import SPLITS
from rlphf.errors import InputError
from rlphf.files import CARD, read_text
from rlphf.preferences import GENERAL, GOLD, MT, PMORL, SELECTOR, Preference, is_id, preference
from rlphf.soup.recipe import Recipe, asked
from rlphf.tracking.record import Run

LICENCE, UNKNOWN = "apache-2.0", "other"
HERE = "path/to/this/folder"
# How cards describe models of no single preference, by the name that adapter.json has in place of one.
ABOUT = {
    GENERAL: "responses that are better in general",
    PMORL: "all combined preferences, told apart by their prompts (P-MORL)",
    MT: "all combined preferences, by imitation of the chosen responses (MT)",
    GOLD: "all combined preferences and helpfulness; it judges and rewards no policy",
    SELECTOR: "all combined preferences and helpfulness; it chooses checkpoints and rewards no policy",
    "users": "the choices of users",
}
METRICS = {
    "policy": {
        "score": "reward of a response, before the KL penalty",
        "kl": "KL to the backbone, in nats per response",
        "length": "tokens per response",
        "loss": "training loss",
    },
    "reward": {f"{split}_accuracy": f"share of {split} pairs, ties half" for split in SPLITS}
    | {"leaked_accuracy": "share of held-out rows that repeat training pairs"},
}
MEASURED = {
    "policy": "At the last step of the training; where a checkpoint was chosen, the policy may be an earlier one.",
    "reward": "How often the chosen response of a pair scores higher. Splits that the model was trained on are included.",
}
ASKED = "Append these sentences to the question, as in the training of its policies; of each axis the one that weighs most:"
# What a card warns of.
SOFT_TOKENS = (
    "It was trained with the soft tokens of its users, in `user_model.safetensors` in the folder above, which PEFT does not load:"
    " loaded as below, it is not the model that was evaluated."
)
GENERATED = "The backbone was trained on a generated language about a few topics, and answers nothing else."

LOADING = {
    "policy": """\
from peft import AutoPeftModelForCausalLM
from transformers import AutoTokenizer

model = AutoPeftModelForCausalLM.from_pretrained("{here}")
tokenizer = AutoTokenizer.from_pretrained("{base}")
""",
    "reward": """\
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

base = AutoModelForSequenceClassification.from_pretrained("{base}", num_labels=1)
model = PeftModel.from_pretrained(base, "{here}")
""",
}


def adapter_card(run: Run, experiment: Experiment, about: Mapping[str, str], backbone: Path | str) -> str:
    """Return the card of an adapter that a step is about to write.

    `about` is its adapter.json, which may leave out the kind of a policy; settings, digests of inputs, and what was measured by
    then are those of the step's record.
    """
    kind, name = about.get("kind", "policy"), about["preference"]
    base = experiment.backbone.name if experiment.backbone.source == "hub" else None
    base = base or relative(str(backbone))
    # A trained backbone comes out of the experiment itself, so what is made of it has the project's licence.
    own = experiment.backbone.source == "train"
    own = own and not experiment.data.sources and experiment.user_data.source == "testbed" and experiment.prompts.path is None
    what = "A reward model: a LoRA with a scalar head" if kind == "reward" else "A policy: a LoRA"
    lines = [
        f"{what} on a frozen backbone, for {_purpose(name)}.",
        "",
        f"- Experiment: `{experiment.experiment}`, seed {experiment.seed}, step `{run.record['step']}`",
        *_origin(base, about),
    ]
    inputs = run.record["inputs"]
    parts = [_section("Data", _table(("input", "SHA-256"), [(f"`{key}`", f"`{inputs[key]['sha256']}`") for key in inputs]))]
    if metrics := run.latest(*METRICS[kind]):
        rows = [(f"`{key}`", f"{value:.4g}", METRICS[kind][key]) for key, value in metrics.items()]
        parts.append(_section("Measured", f"{MEASURED[kind]}\n\n{_table(('metric', 'value', 'what'), rows)}"))
    parts.append(_section("Settings", f"```yaml\n{_yaml(run.record['params'])}```\n"))
    licence = LICENCE if own else UNKNOWN
    limits = [SOFT_TOKENS] if _has_soft_tokens(run.record["params"]) else []
    model = run.record["tags"].get("model", "") if name == "users" else ""
    title = f"{name} ({kind}{f', {model}' if model else ''})"
    return _card(title, base, licence, kind, [name], "\n".join(lines) + "\n", parts, limits)


def soup_card(recipe: Recipe, config: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """Return the card of a merged soup: its recipe and what the merge found, PEFT's configuration `config`, and adapter.json.

    Licence and name of the backbone are those of the adapters' own cards, where these agree.
    """
    cards = [card_data(Path(path)) for path in recipe.paths.values()]
    licence = _agreed(cards, "license") or UNKNOWN
    base = _agreed(cards, "base_model") or relative(str(config.get("base_model_name_or_path") or "unknown"))
    lines = [
        "A soup: LoRA policies on one frozen backbone, merged with weights into one adapter without further training.",
        "",
        f"- Rule: `{recipe.rule}`"
        + (f", {recipe.density:.6g} of each update kept" if recipe.density is not None else "")
        + (f", truncated to rank {recipe.svd_rank}" if recipe.svd_rank else ""),
    ]
    if recipe.results is not None:
        lines.append(f"- Relative error, against the exact merge of the updates: {recipe.results.relative_error:.4g}")
    lines += _origin(base, about)
    rows = [(f"`{name}`", f"{weight:.6g}", f"`{relative(recipe.paths[name])}`") for name, weight in recipe.weights.items()]
    parts = [_section("Recipe", _table(("adapter", "weight", "folder"), rows))]
    weights = {name: weight for name, weight in recipe.weights.items() if is_id(name)}
    if prompts := [known.prompt for name in asked(weights) if (known := _known(name))]:
        parts.append(_section("Ask", f"{ASKED}\n\n" + "".join(f"- {prompt}\n" for prompt in prompts)))
    title = "Soup of " + ", ".join(recipe.weights)
    return _card(title, base, licence, "soup", list(recipe.weights), "\n".join(lines) + "\n", parts)


def card_data(folder: Path) -> dict[str, Any]:
    """Return the YAML at the head of a folder's card; {} where there is no card, or one that has none."""
    try:
        found = yaml.safe_load(split_card(read_text(folder / CARD, "a model card", 2**20))[0])
    except (InputError, yaml.YAMLError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def split_card(text: str) -> tuple[str, str]:
    """Return (the YAML at the head of a card, what stands below it)."""
    if not text.startswith("---\n") or "\n---\n" not in text:
        return "", text
    head, _, body = text.removeprefix("---\n").partition("\n---\n")
    return head + "\n", body


def joined_card(data: Mapping[str, Any], body: str) -> str:
    """Return a card with `data` at its head."""
    return f"---\n{_yaml(data)}---\n{body}"


def relative(path: str) -> str:
    """Return a path as it may stand in a card: an absolute one is its last folder's name."""
    absolute = PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute()
    return (PureWindowsPath(path) if "\\" in path else PurePosixPath(path)).name if absolute else path


def _agreed(cards: Sequence[Mapping[str, Any]], key: str) -> str:
    """Return the text that all cards have under `key`; "" unless they agree."""
    values = [card.get(key) for card in cards]
    return values[0] if isinstance(values[0], str) and all(value == values[0] for value in values) else ""


def _purpose(name: str) -> str:
    if name in ABOUT:
        return ABOUT[name]
    known = _known(name)
    if known is None:
        return f"pairs that speak for `{name}`"
    return f'preference {name} ({known.axis}), which is asked for with "{known.prompt}"'


def _known(name: str) -> Preference | None:
    try:
        return preference(name)
    except InputError:
        return None


def _origin(base: str, about: Mapping[str, Any]) -> list[str]:
    lines = [f"- Backbone: `{base}`"]
    if "backbone_sha256" in about:
        lines.append(f"- SHA-256 of the backbone's `model.safetensors`: `{about['backbone_sha256']}`")
    return lines


def _has_soft_tokens(params: Any) -> bool:
    """Whether a step's settings have a user model with tokens of its own."""
    users = params.get("users") if isinstance(params, dict) else None
    return isinstance(users, dict) and users.get("model") in ("individual", "cluster")


def _card(
    title: str, base: str, licence: str, kind: str, names: list[str], text: str, parts: list[str], limits: Sequence[str] = ()
) -> str:
    data = {
        "base_model": base,
        "library_name": "peft",
        "license": licence,
        "pipeline_tag": "text-classification" if kind == "reward" else "text-generation",
        "tags": ["lora", "rlphf", kind, *names],
    }
    code = LOADING["reward" if kind == "reward" else "policy"].format(here=HERE, base=base)
    said = "Apache 2.0." if licence == LICENCE else "Those of the backbone and of the data that it was trained on apply."
    # Only what is made here from the generated language alone has this licence.
    limits = [*limits, *([GENERATED] if licence == LICENCE else [])]
    parts = [*parts, *([_section("Limits", "".join(f"- {limit}\n" for limit in limits))] if limits else [])]
    body = [f"\n# {title}\n\n{text}", *parts, _section("Load", f"```python\n{code}```\n"), _section("Licence", f"{said}\n")]
    return joined_card(data, "\n".join(body))


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120)
