"""The answers of each method to users on held-out prompts, and which of their held-out pairs it orders correctly."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import torch
from peft import PeftModel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlphf.config import Experiment, load
from rlphf.data.records import PAIRS, PROMPTS
from rlphf.errors import InputError
from rlphf.evaluate.generate import serving
from rlphf.files import read_parquet, write_parquet
from rlphf.lm.adapters import POLICY, add_policy
from rlphf.lm.backbone import backbone_sha256, load_backbone, training_dtype
from rlphf.seeds import derive
from rlphf.soup.adapter import check_backbone
from rlphf.tracking.record import step
from rlphf.train.dpo import DPOTrainer
from rlphf.train.users import encode_pairs
from rlphf.users.embed import answer_users
from rlphf.users.methods import BACKBONE, METHODS, PER_USER, POOLED, PRM, SOUPS, as_trained, settings_of
from rlphf.users.model import UserModel, load_user_model
from rlphf.users.records import ANSWERS, ASKED, SCORED, texts_by_user, write_margins


@dataclass(frozen=True)
class Served:
    """The model that answers `users`: the backbone with the adapter in a folder, or alone; and a user model, or none."""

    users: list[int]
    adapter: Path | None
    user_model: Path | None


def servings(method: str, users: Sequence[int], models: Path) -> list[Served]:
    """Return which model answers each of the `users` by a method with models in the folder `models`; each user occurs once.

    Where a method trains an adapter per user, a user without one is answered by the backbone. Everyone has a soup.
    """
    model = METHODS[method].model
    if model == BACKBONE:
        return [Served(list(users), None, None)]
    if model == SOUPS:
        return [Served([user], models / str(user), None) for user in users]
    if model == PER_USER:
        folders = {user: models / "adapters" / str(user) for user in users}
        own = [Served([user], folder, None) for user, folder in folders.items() if folder.is_dir()]
        others = [user for user, folder in folders.items() if not folder.is_dir()]
        return [*own, *([Served(others, None, None)] if others else [])]
    return [Served(list(users), models / "adapter", None if model == POOLED else models)]


def spread(rows: Sequence[dict], count: int) -> list[dict]:
    """Return `count` of the rows, evenly spread over them, or all where there are no more."""
    return [rows[i * len(rows) // count] for i in range(count)] if len(rows) > count else list(rows)


def histories(pairs: Sequence[dict], count: int) -> dict[int, str]:
    """Return {user: the user's first `count` training pairs as text}, for prompts that show them."""
    shown: dict[int, list[str]] = defaultdict(list)
    for row in pairs:
        if row["split"] == "train" and len(shown[row["user"]]) < count:
            shown[row["user"]].append(f"I asked: {row['prompt']} I liked: {row['chosen']} I did not like: {row['rejected']}")
    return {user: " ".join(texts) for user, texts in shown.items()}


def answers(
    model: PreTrainedModel | PeftModel,
    user_model: UserModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[dict],
    ids: Sequence[int],
    texts: Mapping[int, str | None],
    experiment: Experiment,
    method: str,
) -> list[dict]:
    """Return `evaluation.samples` answers of the model to every prompt for each user, as rows of ANSWERS.

    A soup's preferences are asked for behind the question, as in the training of its policies.
    """
    wanted = [(user, row, sample) for user in ids for row in prompts for sample in range(experiment.evaluation.samples)]
    sampled = answer_users(
        model,
        user_model,
        tokenizer,
        [row["prompt"] for _, row, _ in wanted],
        [user for user, _, _ in wanted],
        experiment.evaluation.decoding,
        derive(experiment.seed, "users", f"{method}/{'-'.join(map(str, ids))}"),
        [texts.get(user) for user, _, _ in wanted],
        "behind" if METHODS[method].told == "asked" else experiment.users.text_place,
    )
    return [
        {"prompt_id": row["id"], "method": method, "user": user, "sample": sample}
        | {"response": text, "tokens": tokens, "finished": finished}
        for (user, row, sample), (text, tokens, finished) in zip(wanted, sampled, strict=True)
    ]


def no_users(model: PreTrainedModel) -> UserModel:
    """Return the user model of methods that have none."""
    nothing = torch.zeros(0)
    return UserModel("uniform", torch.zeros(0, dtype=torch.int64), torch.zeros(0, 0), nothing, nothing, model.config.hidden_size)


def answers_step(
    config: Path, method: str, prompts: Path, users: Path, pairs: Path, backbone: Path, models: Path | None, out: Path
) -> None:
    """Write a method's answers to `out`/answers.parquet, and the margins of held-out pairs to `out`/scores.parquet.

    `models` is the folder of the method's model, or of its soups by user; none for the backbone. The step that made them has
    already scored the held-out pairs; they are scored here only for the backbone, or if this method's prompt says something else
    about the user than the training prompts did. Reward models give no answers.
    """
    experiment = load(config)
    settings = experiment.evaluation
    if method not in METHODS:
        raise InputError(f"method {method!r} is unknown; choose from {', '.join(METHODS)}")
    spec = METHODS[method]
    if models is None and spec.model != BACKBONE:
        raise InputError(f"method {method!r} does not answer by the backbone alone; give the folder of what it has (--models)")
    inputs = {"prompts": prompts, "users": users, "pairs": pairs, "backbone": backbone}
    inputs |= {"models": models} if models is not None else {}
    with step(f"answers {method}", out, experiment, experiment.user_evaluation, inputs, {"method": method}) as run:
        said = texts_by_user(users, told=spec.told == "said")
        ids = list(said)
        rows = [row for row in read_parquet(prompts, PROMPTS).to_pylist() if row["split"] == settings.split]
        if not rows:
            raise InputError(f"{prompts}: the split {settings.split!r} is empty; nothing to evaluate on")
        pair_rows = read_parquet(pairs, PAIRS).to_pylist()
        texts: Mapping[int, str | None] = said if spec.told == "said" else {}
        if spec.told == "history":
            texts = histories(pair_rows, experiment.user_evaluation.history)
        if spec.told == "asked" and models is not None:
            texts = texts_by_user(models / ASKED)
        held = [row for row in pair_rows if row["split"] == settings.split]
        known = scored(held, pairs, models / "scores.parquet") if models is not None and as_trained(method) else None
        digest = backbone_sha256(backbone)
        wanted = servings(method, ids, models or backbone)
        for served in wanted:
            if served.adapter:
                check_backbone(served.adapter, digest)
        base, tokenizer = load_backbone(backbone)
        asked = spread(rows, experiment.user_evaluation.prompts) if spec.model != PRM else []
        table: list[dict] = []

        def own_users(folder: Path) -> UserModel:
            return load_user_model(folder, digest, experiment.users.unknown, base.device)

        for served in wanted:
            user_model = own_users(served.user_model) if served.user_model else no_users(base)
            with serving(base, {served.adapter: 1.0} if served.adapter and asked else {}) as model:
                table += answers(cast(PeftModel, model), user_model, tokenizer, asked, served.users, texts, experiment, method)
        if known is None:
            # The pairs of trained methods were scored in this type, too; 4 bits stay as they are.
            whole: Any = base
            whole = whole if getattr(whole, "is_quantized", False) else whole.to(training_dtype(backbone))
            known = 2 * (margins(whole, tokenizer, held, texts, experiment, models),)
        write_parquet(out / "answers.parquet", pa.Table.from_pylist(table, ANSWERS))
        write_margins(out / "scores.parquet", held, *known, run)
        run.log({"answers": len(table), "tokens_per_answer": sum(row["tokens"] for row in table) / max(1, len(table))})
        run.output(out / "answers.parquet", out / "scores.parquet")


def scored(rows: Sequence[dict], pairs: Path, path: Path) -> tuple[list[float], list[float]]:
    """Return the margins of the pairs `rows` (of the file `pairs`) in the file `path`, for their own users and the generic one.

    Raises InputError where a pair is not scored.
    """
    scores = {row["id"]: row for row in read_parquet(path, SCORED).to_pylist()}
    if missing := [row["id"] for row in rows if row["id"] not in scores]:
        raise InputError(f"{path}: pair {missing[0]} of {pairs} is not scored; train again")
    return [scores[row["id"]]["own"] for row in rows], [scores[row["id"]]["generic"] for row in rows]


def margins(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict],
    texts: Mapping[int, str | None],
    experiment: Experiment,
    models: Path | None,
) -> list[float]:
    """Return log-ratios, chosen less rejected, of the pairs `rows` under a policy without soft tokens, its prompts with `texts`.

    The policy is the adapter in the folder `models`, or the backbone; the reference is the backbone, with bare prompts.
    """
    if models is None:
        policy = add_policy(base, experiment.dpo.lora, derive(experiment.seed, "lora"))
    else:
        policy = PeftModel.from_pretrained(base, models / "adapter", adapter_name=POLICY, use_safetensors=True)  # type: ignore[assignment]
    context = base.config.max_position_embeddings
    # Histories are longer than what users say of themselves; only the model's context cuts them.
    settings = experiment.dpo.model_copy(update={"beta": 1.0, "max_prompt": context, "max_length": context})
    user_settings = settings_of(experiment.users, "dpo_text")
    pairs = encode_pairs(tokenizer, rows, user_settings, settings, context, texts)
    trainer = DPOTrainer(policy, tokenizer, no_users(base), [], settings, 0)
    log_ratios = trainer.evaluate(pairs)[0]
    # Without an adapter and with a bare prompt, policy and reference are equal: what is left is rounding, and no choice.
    same = [models is None and pair.prompt == pair.bare for pair in pairs]
    return [0.0 if alike else margin for margin, alike in zip(log_ratios, same, strict=True)]
