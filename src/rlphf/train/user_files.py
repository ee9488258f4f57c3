"""What a training on users' pairs reads and leaves: pairs, users' texts, the user model, and the margins of held-out pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlphf.config import Experiment
from rlphf.data.records import PAIRS
from rlphf.errors import InputError
from rlphf.files import read_parquet, write_parquet
from rlphf.lm.backbone import load_backbone
from rlphf.settings_users import Users, UserTraining
from rlphf.tracking.record import Run
from rlphf.train.users import Pair, PairTrainer, encode_pairs
from rlphf.users.model import UserModel, new_user_model, save_user_model, user_ids

# The margins of a held-out pair: its user's own and the generic user's. Above 0 the pair is told rightly.
SCORED = pa.schema(
    [
        ("id", pa.string()),
        ("split", pa.string()),
        ("user", pa.int64()),
        ("own", pa.float64()),
        ("generic", pa.float64()),
        ("probability", pa.float64()),
    ]
)
TEXTS = pa.schema([("id", pa.int64()), ("text", pa.string())])


@dataclass(frozen=True)
class Material:
    """A training's backbone, tokenizer and new user model; its rows of PAIRS, and the same in token ids."""

    base: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    users: UserModel
    rows: list[dict]
    pairs: list[Pair]

    @property
    def train(self) -> list[Pair]:
        """The pairs that are trained on."""
        return [pair for row, pair in zip(self.rows, self.pairs, strict=True) if row["split"] == "train"]


def read_texts(settings: Users, path: Path | None) -> dict[int, str | None]:
    """Return users' texts by id from `path` (columns id and text); raise InputError where texts are needed and none are given."""
    if settings.text == "implicit":
        return {}
    if path is None:
        raise InputError(f"users.text: {settings.text} needs users' texts; give a file with columns id and text (--users)")
    rows = read_parquet(path, TEXTS).to_pylist()
    ids = user_ids([row["id"] for row in rows], str(path)).tolist()
    return {i: row["text"] for i, row in zip(ids, rows, strict=True)}


def training_inputs(backbone: Path, pairs: Sequence[Path], users: Path | None, settings: Users) -> dict[str, Path]:
    """Return the inputs by name, for the step's record; users' texts are one where they are read."""
    named = {"backbone": backbone, **{"/".join(path.parts[-2:]): path for path in pairs}}
    return named | ({"users": users} if users is not None and settings.text != "implicit" else {})


def read_material(
    experiment: Experiment, settings: UserTraining, pairs: Sequence[Path], backbone: Path, users: Path | None, seed: int
) -> Material:
    """Read what a training needs, and make its user model by `seed`, with a row for every user of a training pair.

    Raises InputError where there is no training pair, none that names its user, or an id that is none; and for pairs of users
    who are not trained where `users.unknown` is an error.
    """
    texts = read_texts(experiment.users, users)
    rows = [row for path in pairs for row in read_parquet(path, PAIRS).to_pylist()]
    where = ", ".join(map(str, pairs))
    if not any(row["split"] == "train" for row in rows):
        raise InputError(f"{where}: the split 'train' is empty; nothing to train on")
    dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    base, tokenizer = load_backbone(backbone, dtype)
    encoded = encode_pairs(tokenizer, rows, experiment.users, settings, base.config.max_position_embeddings, texts)
    known = [pair.user for row, pair in zip(rows, encoded, strict=True) if row["split"] == "train" and pair.user]
    vocabulary: Any = base.get_input_embeddings().weight
    user_model = new_user_model(experiment.users, known, vocabulary, seed)
    if user_model.kind != "uniform" and not known:
        raise InputError(f"{where}: no training pair names its user; fill the column user, or set users.model: uniform")
    # Held-out pairs may be of users who are not trained; where that is an error it is one before the training.
    user_model.slots([pair.user for pair in encoded])
    return Material(base, tokenizer, user_model, rows, encoded)


def write_results(
    trainer: PairTrainer, material: Material, users: Users, backbone_sha256: str, out: Path, run: Run
) -> list[Path]:
    """Write the user model and the margins of all pairs that were not trained on to `out`; return the files. Logs accuracies."""
    told = {"text": users.text, "text_place": users.text_place, "max_prompt": trainer.settings.max_prompt}
    save_user_model(material.users, out, {"backbone_sha256": backbone_sha256, **told})
    held = [(row, pair) for row, pair in zip(material.rows, material.pairs, strict=True) if row["split"] != "train"]
    own, generic = trainer.evaluate([pair for _, pair in held])
    columns = {name: [row[name] for row, _ in held] for name in ("id", "split", "probability")}
    owners = [pair.user for _, pair in held]
    table = pa.table({**columns, "user": owners, "own": own, "generic": generic}).select(SCORED.names).cast(SCORED)
    write_parquet(out / "scores.parquet", table)
    for split in sorted(set(columns["split"])):
        index = [i for i, name in enumerate(columns["split"]) if name == split]
        for name, values in (("own", own), ("generic", generic)):
            run.log({f"{split}_{name}_accuracy": sum(values[i] > 0 for i in index) / len(index)})
    run.tag(pairs=len(trainer.pairs), users=len(material.users.ids), updates=len(trainer.order))
    return [out / "user_model.safetensors", out / "user_model.json", out / "scores.parquet"]
