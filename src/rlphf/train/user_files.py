"""What a training on users' pairs reads and leaves: pairs, users' texts, the user model, and the margins of held-out pairs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlphf.data.records import read_pairs
from rlphf.errors import InputError
from rlphf.lm.backbone import load_backbone, training_dtype
from rlphf.settings_users import Users, UserTraining
from rlphf.tracking.record import Run
from rlphf.train.users import Pair, PairTrainer, encode_pairs
from rlphf.users.model import UserModel, new_user_model, save_user_model
from rlphf.users.records import texts_by_user, write_margins

# What is said of pairs by which no user can be learned.
UNNAMED = "no training pair names its user; fill the column user, or train the model dpo"


@dataclass(frozen=True)
class Material:
    """A training's backbone, tokenizer and new user model; its rows of PAIRS, and the same in token ids."""

    base: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    user_model: UserModel
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
        raise InputError("the model reads users' texts; give a file with columns id and text (--users)")
    return texts_by_user(path, told=True)


def training_inputs(backbone: Path, pairs: Sequence[Path], users_path: Path | None, settings: Users) -> dict[str, Path]:
    """Return the inputs by name, for the step's record; users' texts are one where they are read."""
    named = {"backbone": backbone, **{"/".join(path.parts[-2:]): path for path in pairs}}
    return named | ({"users": users_path} if users_path is not None and settings.text != "implicit" else {})


def read_material(
    user_settings: Users, settings: UserTraining, pairs: Sequence[Path], backbone: Path, users_path: Path | None, seed: int
) -> Material:
    """Read what a training needs, and make its user model by `seed`, with a row for every user of a training pair.

    Raises InputError where there is no training pair, none that names its user, or an id that is none; and for pairs of users
    who are not trained where `users.unknown` is an error.
    """
    texts = read_texts(user_settings, users_path)
    rows = read_pairs(pairs)
    where = ", ".join(map(str, pairs))
    if not any(row["split"] == "train" for row in rows):
        raise InputError(f"{where}: the split 'train' is empty; nothing to train on")
    base, tokenizer = load_backbone(backbone, training_dtype(backbone))
    encoded = encode_pairs(tokenizer, rows, user_settings, settings, base.config.max_position_embeddings, texts)
    known = [pair.user for row, pair in zip(rows, encoded, strict=True) if row["split"] == "train" and pair.user]
    vocabulary: Any = base.get_input_embeddings().weight
    user_model = new_user_model(user_settings, known, vocabulary, seed)
    if user_model.kind != "uniform" and not known:
        raise InputError(f"{where}: {UNNAMED}")
    # Held-out pairs may be of users who are not trained; where that is an error it is one before the training.
    user_model.slots([pair.user for pair in encoded])
    return Material(base, tokenizer, user_model, rows, encoded)


def write_results(
    trainer: PairTrainer, material: Material, user_settings: Users, backbone_sha256: str, out: Path, run: Run
) -> list[Path]:
    """Write the user model and the margins of all pairs that were not trained on to `out`; return the files."""
    about: dict[str, str | int] = {"backbone_sha256": backbone_sha256, "text": user_settings.text}
    if user_settings.text != "implicit":
        about["text_place"] = user_settings.text_place
    save_user_model(material.user_model, out, {**about, "max_prompt": trainer.settings.max_prompt})
    held = [(row, pair) for row, pair in zip(material.rows, material.pairs, strict=True) if row["split"] != "train"]
    own, generic = trainer.evaluate([pair for _, pair in held])
    scores = write_margins(out / "scores.parquet", [row for row, _ in held], own, generic, run)
    run.tag(pairs=len(trainer.pairs), users=len(material.user_model.ids), updates=len(trainer.order))
    return [out / "user_model.safetensors", out / "user_model.json", scores]
