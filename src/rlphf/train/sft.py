"""MT: one policy by supervised fine-tuning on the annotator's chosen responses of all preferences, with TRL's SFTTrainer."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten

from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedTokenizerBase
from trl import SFTConfig, SFTTrainer

from rlphf.cards import adapter_card
from rlphf.config import load
from rlphf.data.learned import chosen_pairs
from rlphf.errors import InputError
from rlphf.lm.adapters import add_policy, initial_a_digest, write_policy
from rlphf.lm.backbone import backbone_sha256, load_backbone, training_dtype
from rlphf.lm.chat import encode_prompts, encode_responses
from rlphf.preferences import MT as MT_POLICY
from rlphf.preferences import alone, instruction
from rlphf.processes import is_first
from rlphf.seeds import derive
from rlphf.settings import MT
from rlphf.tracking.callback import TrainerLog
from rlphf.tracking.record import Run, step
from rlphf.train.arguments import train_in_float32, trainer_arguments
from rlphf.train.checkpoint import own_checkpoints
from rlphf.train.resumable import Resumable

IGNORED = -100


class _Trainer(Resumable, SFTTrainer):
    """TRL's, with checkpoints of ours."""


def examples(tokenizer: PreTrainedTokenizerBase, rows: Sequence[dict], context: int) -> Dataset:
    """Return the chosen response of each pair behind its prompt, asked for the pair's preference, as `imitated` does.

    Raises InputError for a text of more than `context` tokens.
    """
    prompts = encode_prompts(tokenizer, [instruction(row["prompt"], alone(row["preference"])) for row in rows])
    answers = encode_responses(tokenizer, [row["chosen"] for row in rows])
    for row, prompt, answer in zip(rows, prompts, answers, strict=True):
        if (size := len(prompt) + len(answer)) > context:
            text = shorten(row["prompt"], 60, placeholder="...")
            raise InputError(f"{text!r}: has {size} tokens with its response, and the context holds {context}; shorten it")
    return imitated(prompts, answers)


def imitated(prompts: Sequence[list[int]], answers: Sequence[list[int]]) -> Dataset:
    """Return responses behind their prompts: columns input_ids and labels; prompt tokens carry no loss."""
    return Dataset.from_dict(
        {
            "input_ids": [p + a for p, a in zip(prompts, answers, strict=True)],
            "labels": [[IGNORED] * len(p) + a for p, a in zip(prompts, answers, strict=True)],
        }
    )


def train_sft(
    model: PeftModel, tokenizer: PreTrainedTokenizerBase, data: Dataset, settings: MT, seed: int, folder: Path, run: Run
) -> int:
    """Train the policy of `model` on `data` by cross-entropy over response tokens; return the optimizer steps.

    Batches are of responses of like length. Resumes from a checkpoint in `folder`. Source: Personalized Soups' multi-task
    baseline, in the chat format that all methods are evaluated in.
    """
    arguments = SFTConfig(
        **trainer_arguments(folder, len(data), settings, seed),
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    trainer = _Trainer(model, arguments, train_dataset=data, processing_class=tokenizer, callbacks=[TrainerLog(run)])
    train_in_float32(model)
    return trainer.resume()


def sft_step(config: Path, backbone: Path, pairs: Sequence[Path], out: Path, prompts: Path | None = None) -> None:
    """Train MT's policy on the training pairs of the combined preferences in the files `pairs`; write `out`/adapter.

    Raw pairs that ask one of the experiment's own validation or test `prompts` are left out. Raises InputError where no training
    pair is left.
    """
    experiment = load(config)
    inputs = {"backbone": backbone, **{"/".join(path.parts[-2:]): path for path in pairs}}
    inputs |= {"prompts": prompts} if prompts else {}
    with (
        step("mt", out, experiment, experiment.mt, inputs, {"method": "mt"}) as run,
        own_checkpoints(out / "checkpoints", run) as folder,
    ):
        rows = [row for row in chosen_pairs(experiment, MT_POLICY, pairs, prompts) if row["split"] == "train"]
        if not rows:
            raise InputError(f"{', '.join(map(str, pairs))}: the split 'train' is empty; nothing to imitate")
        base, tokenizer = load_backbone(backbone, training_dtype(backbone))
        model = add_policy(base, experiment.mt.lora, derive(experiment.seed, "lora"))
        initial = initial_a_digest(model)
        data = examples(tokenizer, rows, base.config.max_position_embeddings)
        steps = train_sft(model, tokenizer, data, experiment.mt, derive(experiment.seed, "mt"), folder, run)
        if not is_first():
            return
        about = {"preference": MT_POLICY, "backbone_sha256": backbone_sha256(backbone), "lora_a_sha256": initial}
        write_policy(model, out / "adapter", str(backbone), about, adapter_card(run, experiment, about, backbone))
        run.tag(updates=steps, responses=len(rows))
        run.output(out / "adapter")
