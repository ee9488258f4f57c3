"""Reward models: one LoRA with a scalar head per preference on the frozen backbone, trained by TRL's RewardTrainer."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from trl import RewardConfig, RewardTrainer

from rlphf.config import Experiment, load
from rlphf.data.records import read_pairs
from rlphf.errors import InputError
from rlphf.files import write_parquet
from rlphf.lm.adapters import lora_config, write_adapter
from rlphf.lm.backbone import backbone_sha256
from rlphf.lm.chat import encode_prompts, encode_responses
from rlphf.lm.sampling import pad
from rlphf.preferences import GOLD, PMORL, alone, instruction
from rlphf.seeds import derive
from rlphf.settings import Reward
from rlphf.tracking.callback import TrainerLog
from rlphf.tracking.record import Run, step
from rlphf.train.arguments import trainer_arguments
from rlphf.train.checkpoint import own_checkpoints, trainer_checkpoint
from rlphf.train.leak import duplicated

# Of pairs that there are many of, every fourth measures a model: those it has learned from, and for "gold" those it has not.
MEASURED_EVERY = 4
SCORED = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("chosen", pa.float64()),
        ("rejected", pa.float64()),
        ("probability", pa.float64()),
    ]
)


def classifier(backbone: Path | str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the backbone as a sequence classifier with one output; its head is new until an adapter brings one."""
    model = AutoModelForSequenceClassification.from_pretrained(
        backbone, num_labels=1, dtype=torch.float32, use_safetensors=True, local_files_only=True, trust_remote_code=False
    )
    return model, AutoTokenizer.from_pretrained(backbone, local_files_only=True, trust_remote_code=False)


def load_reward_model(backbone: Path | str, adapter: Path | str) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """Load a saved reward model, as plain PEFT does."""
    model, tokenizer = classifier(backbone)
    return PeftModel.from_pretrained(model, adapter, use_safetensors=True).eval(), tokenizer


def encode_texts(tokenizer: PreTrainedTokenizerBase, instructions: Sequence[str], responses: Sequence[str]) -> list[list[int]]:
    """Return the ids of each whole text, ending in the end token: the form in which PPO scores a response, too."""
    prompts, answers = encode_prompts(tokenizer, instructions), encode_responses(tokenizer, responses)
    return [p + r for p, r in zip(prompts, answers, strict=True)]


@torch.no_grad()
def score(model: PreTrainedModel | PeftModel, texts: Sequence[list[int]], pad_id: int, batch_size: int = 64) -> list[float]:
    """Return the reward model's score of each encoded text."""
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
    scores = [0.0] * len(texts)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        tokens, mask = pad([texts[i] for i in chosen], pad_id, model.device)
        for i, value in zip(chosen, model(input_ids=tokens, attention_mask=mask).logits.squeeze(-1).tolist(), strict=True):
            scores[i] = value
    return scores


def train_reward_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Dataset,
    settings: Reward,
    seed: int,
    folder: Path,
    run: Run,
) -> PeftModel:
    """Train LoRA and head on `pairs` (columns chosen_ids, rejected_ids) with the Bradley-Terry loss -log s(r(y+) - r(y-)).

    Batches are of pairs of like length. Resumes from a checkpoint in `folder`.
    """
    torch.manual_seed(seed)
    torch.nn.init.normal_(model.get_parameter("score.weight"), std=0.02)
    adapted = get_peft_model(model, lora_config(settings.lora, task_type="SEQ_CLS"))
    lengths = [max(map(len, pair)) for pair in zip(pairs["chosen_ids"], pairs["rejected_ids"], strict=True)]
    arguments = RewardConfig(
        **trainer_arguments(folder, len(pairs), settings.batch_size, settings.epochs, seed),
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        weight_decay=settings.weight_decay,
        # TRL's default is to switch dropout off, the adapter's included.
        disable_dropout=False,
        # The lengths by which batches are made are a column that the loss does not read.
        remove_unused_columns=False,
    )
    data = pairs.add_column("length", lengths)
    trainer = RewardTrainer(adapted, arguments, train_dataset=data, processing_class=tokenizer, callbacks=[TrainerLog(run)])
    trainer.train(resume_from_checkpoint=trainer_checkpoint(folder))
    return adapted.eval()


def reward_step(config: Path, preference: str, backbone: Path, pairs: Sequence[Path], out: Path) -> None:
    """Train the reward model of a preference; write `out`/adapter, and the scores of pairs to `out`/scores.parquet.

    Scored are all pairs that were not trained on, and every fourth of the others. P-MORL's one model is trained on the pairs of
    all preferences, each asked for its own, and so learns them by their prompts. So is the judge's, "gold", but on the pairs of
    validation and test prompts, which no policy's reward model learns from; of its many unseen ones it scores every fourth.
    """
    experiment: Experiment = load(config)
    settings = experiment.reward
    seed = derive(experiment.seed, "reward", preference)
    inputs = {"backbone": backbone, **{"/".join(path.parts[-2:]): path for path in pairs}}
    tags = {"preference": preference}
    with (
        step("reward", out, experiment, experiment.reward, inputs, tags) as run,
        own_checkpoints(out / "checkpoints", run) as folder,
    ):
        rows = read_pairs(pairs)
        learns = [(r["split"] == "train") != (preference == GOLD) for r in rows]
        train, unseen = ([r for r, own in zip(rows, learns, strict=True) if own == wanted] for wanted in (True, False))
        if not train:
            wanted = "splits 'validation' and 'test' are" if preference == GOLD else "split 'train' is"
            raise InputError(f"{', '.join(map(str, pairs))}: the {wanted} empty; nothing to train a reward model on")
        if preference == GOLD:
            settings = settings.model_copy(update={"epochs": experiment.evaluation.gold_epochs})
            unseen = unseen[::MEASURED_EVERY]
        rows = unseen + train[::MEASURED_EVERY]
        if experiment.mistakes.duplicated_pairs:
            settings = settings.model_copy(update={"epochs": 1})
            train, leaked = duplicated(train, derive(seed, "duplicated"))
            rows += leaked
        model, tokenizer = classifier(backbone)

        def encoded(rows: list[dict], answer: str) -> list[list[int]]:
            asked = [alone(r["preference"] if preference in (PMORL, GOLD) else preference) for r in rows]
            texts = [instruction(r["prompt"], ids) for r, ids in zip(rows, asked, strict=True)]
            return encode_texts(tokenizer, texts, [r[answer] for r in rows])

        data = Dataset.from_dict({"chosen_ids": encoded(train, "chosen"), "rejected_ids": encoded(train, "rejected")})
        trained = train_reward_model(model, tokenizer, data, settings, seed, folder, run)
        about = {"kind": "reward", "preference": preference, "backbone_sha256": backbone_sha256(backbone)}
        write_adapter(
            out / "adapter", get_peft_model_state_dict(trained), trained.peft_config["default"].to_dict(), str(backbone), about
        )
        scores = {name: score(trained, encoded(rows, name), tokenizer.pad_token_id) for name in ("chosen", "rejected")}
        table = pa.table({**{n: [r[n] for r in rows] for n in ("id", "split", "probability")}, **scores}).select(SCORED.names)
        write_parquet(out / "scores.parquet", table.cast(SCORED))
        for split in sorted({r["split"] for r in rows}):
            index = [i for i, r in enumerate(rows) if r["split"] == split]
            run.log({f"{split}_accuracy": sum(scores["chosen"][i] > scores["rejected"][i] for i in index) / len(index)})
        run.output(out / "adapter", out / "scores.parquet")
