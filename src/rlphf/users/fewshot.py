"""A new user of a trained P-DPO policy: a row of the user model fitted on a few pairs, with everything else frozen.

The row starts as the generic user's and takes steps of Adam down P-DPO's own term of that user, -log s(h(u)); loss,
margins, reference and optimizer are those of the training (`train.dpo`, `train.users`). Source: ours; the release serves users
whom it has not trained as the generic one.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from peft import PeftModel
from torch import Tensor

from rlphf.lm.backbone import backbone_sha256, load_backbone
from rlphf.seeds import derive
from rlphf.settings_users import DPO, ColdStart
from rlphf.soup.adapter import check_backbone
from rlphf.train.dpo import DPOTrainer
from rlphf.train.users import Pair
from rlphf.users.model import UserModel, load_user_model

# The id of the one user of the model that a row is fitted in.
NEW = 1


def load_trained(folder: Path, backbone: Path, settings: DPO) -> DPOTrainer:
    """Load what `users train` left in `folder`, as a trainer without pairs; raise InputError if it is of another backbone."""
    digest = backbone_sha256(backbone)
    check_backbone(folder / "adapter", digest)
    base, tokenizer = load_backbone(backbone)
    user_model = load_user_model(folder, digest, device=base.device)
    policy = PeftModel.from_pretrained(base, folder / "adapter", use_safetensors=True)
    return DPOTrainer(policy, tokenizer, user_model, [], settings, seed=0)


def fit_row(trainer: DPOTrainer, pairs: Sequence[Pair], settings: ColdStart, seed: int = 0) -> Tensor:
    """Return the row (R,) of a new user who chose `pairs`, whatever users these name; without pairs it is the generic user's.

    Batches are drawn by `seed`. `trainer` has policy, tokenizer, user model and settings, and nothing of it changes, so that
    users can be fitted on it one after the other; its own pairs play no part. Raises InputError for a uniform user model.
    """
    user_model = trainer.user_model
    row = user_model.generic_row()
    if not pairs:
        return row
    pairs = [replace(pair, user=NEW) for pair in pairs]
    clusters = user_model.clusters if user_model.kind == "cluster" else torch.zeros(0)
    alone = UserModel(user_model.kind, torch.tensor([NEW]), row[None].clone(), user_model.generic, clusters, user_model.width)
    # With alpha 1 the user's own term is the whole loss.
    own = trainer.settings.model_copy(update={"alpha": 1.0})
    fitter = DPOTrainer(trainer.model, trainer.tokenizer, alone, pairs, own, seed=0)
    reference = fitter.reference_worth(pairs)
    size = own.micro_batch_size
    for number in range(settings.steps):
        rng = Random(derive(seed, "few pairs", number))
        batch = sorted(rng.sample(range(len(pairs)), min(settings.batch_size, len(pairs))))
        gathered = alone.gather([NEW])
        gradient = torch.zeros_like(gathered.values)
        for start in range(0, len(batch), size):
            part = batch[start : start + size]
            terms = fitter.both_terms([pairs[i] for i in part], reference[part], gathered)
            # Gradients of the row alone are computed; no parameter gets one.
            gradient += torch.autograd.grad(fitter.losses(*terms).sum() / len(batch), gathered.values)[0]
        fitter.rows.step(gathered.slots, gradient, settings.learning_rate)
    return alone.rows[0].clone()
