"""Reward models: one LoRA with a scalar head per preference on the frozen backbone, trained by TRL's RewardTrainer."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pyarrow as pa
import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl import RewardConfig, RewardTrainer

from rlphf.cards import adapter_card
from rlphf.config import Experiment, load
from rlphf.data.learned import asked_for, chosen_pairs, learned_splits
from rlphf.data.records import PAIR_SCORES, correctness
from rlphf.data.splits import group
from rlphf.errors import InputError
from rlphf.files import write_parquet
from rlphf.lm.adapters import check_targets, lora_config, write_adapter
from rlphf.lm.backbone import backbone_sha256
from rlphf.lm.reward_model import classifier, fit_texts, score, text_limit
from rlphf.preferences import GOLD, SELECTOR, instruction
from rlphf.processes import is_first
from rlphf.seeds import derive
from rlphf.settings import Reward
from rlphf.tracking.callback import TrainerLog
from rlphf.tracking.record import Run, step
from rlphf.train.arguments import train_in_float32, trainer_arguments
from rlphf.train.checkpoint import own_checkpoints
from rlphf.train.leak import duplicated
from rlphf.train.resumable import Resumable

# Where pairs are many, only every fourth is scored to measure a model: of those it learned from, and for judge and selector of
# those it did not.
MEASURED_EVERY = 4
# Pairs that are encoded at a time, where not all may be needed.
CHUNK = 256


class _Trainer(Resumable, RewardTrainer):
    """TRL's, with checkpoints of ours."""


@dataclass(frozen=True)
class Encoded:
    """A pair, a row of PAIRS, and the ids of its two whole texts."""

    row: dict
    chosen: list[int]
    rejected: list[int]


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict], preference: str, limit: int, most: int | None, seed: int
) -> list[Encoded]:
    """Return the pairs as the reward model of `preference` reads them, in at most `limit` tokens a text, in their order.

    A pair of which both responses would be cut is left out: what tells them apart may lie behind the cut. At `most` so many of
    each preference and split are drawn by `seed`.
    """
    texts = [instruction(r["prompt"], asked_for(preference, r["preference"])) for r in rows]
    order = list(range(len(rows)))
    if most is not None:
        Random(seed).shuffle(order)
    taken: Counter[tuple[str, str]] = Counter()
    found: dict[int, Encoded] = {}
    for start in range(0, len(order), CHUNK):
        part = [i for i in order[start : start + CHUNK] if most is None or taken[_kind(rows[i])] < most]
        asked = [texts[i] for i in part]
        sides = [fit_texts(tokenizer, asked, [rows[i][name] for i in part], limit) for name in ("chosen", "rejected")]
        for i, (chosen, cut), (rejected, other_cut) in zip(part, *sides, strict=True):
            if (cut and other_cut) or (most is not None and taken[_kind(rows[i])] >= most):
                continue
            taken[_kind(rows[i])] += 1
            found[i] = Encoded(rows[i], chosen, rejected)
    return [found[i] for i in sorted(found)]


def _kind(row: dict) -> tuple[str, str]:
    return row["preference"], row["split"]


def train_reward_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Dataset,
    settings: Reward,
    seed: int,
    folder: Path,
    run: Run,
    head: torch.Tensor | None = None,
) -> PeftModel:
    """Train LoRA and head on `pairs` (columns chosen_ids, rejected_ids) with the Bradley-Terry loss -log s(r(y+) - r(y-)).

    The head starts as `head` (1, H), or drawn. Batches are of pairs of like length. Resumes from a checkpoint in `folder`. Raises
    InputError as `check_targets` does.
    """
    torch.manual_seed(seed)
    torch.nn.init.normal_(model.get_parameter("score.weight"), std=0.02)
    if head is not None:
        model.get_parameter("score.weight").data.copy_(head)
    check_targets(model, settings.lora)
    adapted = get_peft_model(model, lora_config(settings.lora, task_type="SEQ_CLS"))
    if not settings.epochs:
        return adapted.eval()
    lengths = [max(map(len, pair)) for pair in zip(pairs["chosen_ids"], pairs["rejected_ids"], strict=True)]
    arguments = RewardConfig(
        **trainer_arguments(folder, len(pairs), settings, seed),
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        weight_decay=settings.weight_decay,
        # TRL's default is to switch dropout off, the adapter's included.
        disable_dropout=False,
        # The lengths by which batches are made are a column that the loss does not read.
        remove_unused_columns=False,
    )
    data = pairs.add_column("length", lengths)
    trainer = _Trainer(adapted, arguments, train_dataset=data, processing_class=tokenizer, callbacks=[TrainerLog(run)])
    train_in_float32(adapted)
    trainer.resume()
    return adapted.eval()


def probed(model: PreTrainedModel, pairs: Sequence[Encoded], pad_id: int) -> torch.Tensor:
    """Return the head (1, H) that is fitted to pairs on the frozen backbone (`train.probe`)."""
    # scikit-learn takes a second to import.
    from rlphf.train.probe import fit_head, last_states

    chosen, rejected = (last_states(model, texts, pad_id) for texts in ([p.chosen for p in pairs], [p.rejected for p in pairs]))
    return fit_head(chosen, rejected, [group(pair.row["prompt"]) for pair in pairs])


def reward_step(
    config: Path, preference: str, backbone: Path, pairs: Sequence[Path], out: Path, prompts: Path | None = None
) -> None:
    """Train the reward model of a preference; write `out`/adapter, and the scores of pairs to `out`/scores.parquet.

    Scored are all pairs that were not trained on, and every fourth of the others. P-MORL's one model is trained on the pairs of
    all preferences, each asked for its own, and so learns them by their prompts. So are the judge's, "gold", and the selector's,
    but on pairs of prompts that no policy's reward model learns from (`data.learned`); of their many unseen ones every fourth is
    scored. Raw pairs that ask one of the experiment's own `prompts` are left
    out, by policies' reward models those of validation and test prompts.
    """
    experiment: Experiment = load(config)
    settings = experiment.reward
    seed = derive(experiment.seed, "reward", preference)
    inputs = {"backbone": backbone, **{"/".join(path.parts[-2:]): path for path in pairs}}
    inputs |= {"prompts": prompts} if prompts else {}
    tags = {"preference": preference}
    with (
        step("reward", out, experiment, experiment.reward, inputs, tags) as run,
        own_checkpoints(out / "checkpoints", run) as folder,
    ):
        rows = chosen_pairs(experiment, preference, pairs, prompts)
        splits = learned_splits(preference, experiment)
        train, unseen = ([r for r in rows if (r["split"] in splits) == wanted] for wanted in (True, False))
        if not train:
            wanted = f"split {splits[0]!r} is" if len(splits) == 1 else f"splits {' and '.join(map(repr, splits))} are"
            raise InputError(f"{', '.join(map(str, pairs))}: the {wanted} empty; nothing to train a reward model on")
        if preference in (GOLD, SELECTOR):
            settings = settings.model_copy(update={"epochs": experiment.evaluation.gold_epochs})
            unseen = unseen[::MEASURED_EVERY]
        leaked: list[dict] = []
        measured = train
        if experiment.mistakes.duplicated_pairs:
            settings = settings.model_copy(update={"epochs": 1})
            train, leaked = duplicated(train, derive(seed, "duplicated"))
        model, tokenizer = classifier(backbone)
        limit, most = text_limit(model, settings.max_length), settings.max_pairs
        learned = encode_pairs(tokenizer, train, preference, limit, most, derive(seed, "pairs"))
        if not learned:
            where = ", ".join(map(str, pairs))
            raise InputError(f"{where}: no pair fits reward.max_length and the backbone's context, {limit} tokens; raise it")
        data = Dataset.from_dict({"chosen_ids": [p.chosen for p in learned], "rejected_ids": [p.rejected for p in learned]})
        head = probed(model, learned, tokenizer.pad_token_id) if settings.head == "probe" else None
        trained = train_reward_model(model, tokenizer, data, settings, seed, folder, run, head)
        if not is_first():
            return
        again = encode_pairs(tokenizer, measured, preference, limit, most, derive(seed, "pairs"))[::MEASURED_EVERY]
        scored = encode_pairs(tokenizer, unseen, preference, limit, most, derive(seed, "measured")) + again
        scored += encode_pairs(tokenizer, leaked, preference, limit, most, derive(seed, "leaked"))
        scores = {
            "chosen": score(trained, [pair.chosen for pair in scored], tokenizer.pad_token_id),
            "rejected": score(trained, [pair.rejected for pair in scored], tokenizer.pad_token_id),
        }
        about_pairs = {name: [pair.row[name] for pair in scored] for name in ("id", "split", "probability")}
        for split in sorted(set(about_pairs["split"])):
            index = [i for i, name in enumerate(about_pairs["split"]) if name == split]
            right = [correctness(scores["chosen"][i] - scores["rejected"][i]) for i in index]
            run.log({f"{split}_accuracy": sum(right) / len(right)})
        about = {"kind": "reward", "preference": preference, "backbone_sha256": backbone_sha256(backbone)}
        card = adapter_card(run, experiment, about, backbone)
        described = trained.peft_config["default"].to_dict()
        write_adapter(out / "adapter", get_peft_model_state_dict(trained), described, str(backbone), about, card)
        write_parquet(out / "scores.parquet", pa.table({**about_pairs, **scores}).select(PAIR_SCORES.names).cast(PAIR_SCORES))
        run.output(out / "adapter", out / "scores.parquet")
