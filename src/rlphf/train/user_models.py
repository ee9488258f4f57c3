"""The step that trains a model on users' pairs: one command for all methods."""

from collections.abc import Sequence
from pathlib import Path

from rlphf.processes import in_one
from rlphf.train.dpo import dpo_step
from rlphf.train.per_user import per_user_step, pooled_step
from rlphf.train.user_reward import prm_step
from rlphf.users.methods import PER_USER, POOLED, PRM

TRAININGS = {POOLED: pooled_step, PER_USER: per_user_step, PRM: prm_step}


def user_model_step(config: Path, model: str, pairs: Sequence[Path], backbone: Path, users: Path | None, out: Path) -> None:
    """Train `model` on the training pairs in the files `pairs` and write it to the folder `out`.

    `users` names a file with users' texts (columns id and text), which some models read. Raises InputError for an unknown model,
    and where several processes share a step that only one can run.
    """
    if model != POOLED:
        in_one(f"the training of {model}")
    TRAININGS.get(model, dpo_step)(config, model, pairs, backbone, users, out)
