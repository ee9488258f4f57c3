"""The cost per user of methods that serve users, and the users' positions in a learned user model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from rlphf.errors import InputError
from rlphf.evaluate.scores import Row
from rlphf.files import read_json
from rlphf.tracking.record import RECORD
from rlphf.users.methods import METHODS, MODELS, PER_USER, SOUPS
from rlphf.users.records import ABOUT, TENSORS

# Methods whose users have a position in a learned user model.
LEARNED = ("pdpo_individual", "pdpo_cluster")


def model_folder(folder: Path, method: str) -> Path | None:
    """Return the folder of a method's model within a run's folder `users`; None for the backbone."""
    model = METHODS[method].model
    if model == SOUPS:
        return folder / "soups" / method.removeprefix("psoups_")
    return folder / "models" / model if model in MODELS else None


def costs(folder: Path, methods: Sequence[str], seconds: dict[str, float], preferences: Sequence[str]) -> list[Row]:
    """Return the rows of table `users_cost`, from a run's folder `users` and the wall `seconds` of its steps (`budgets.shares`).

    `bytes_per_user` is what one more user adds on disk: a row of the user model, an adapter, or a soup's recipe; None for methods
    that keep nothing of a user but text. `training_seconds` are those of the method's model; of soups, those of the reward models
    and policies of all `preferences`, and of the soups. `new_user_seconds` are those of fitting one more user to the most pairs
    of the cold start, where that was measured: of a soup, without scoring the pairs and merging.
    """
    merged = ["users/soups", *(f"{kind}/{name}" for kind in ("reward", "ppo") for name in preferences)]
    fitted = _fitted(folder / "cold_start")
    rows: list[Row] = []
    for method in methods:
        model, where = METHODS[method].model, model_folder(folder, method)
        size: int | None = None
        if where is not None and model == PER_USER:
            size = _mean_size([path / "adapter_model.safetensors" for path in sorted((where / "adapters").iterdir())])
        elif where is not None and model == SOUPS:
            size = _mean_size(sorted(where.glob("*/recipe.yaml")))
        elif where is not None and (where / ABOUT).exists() and MODELS[model][0] != "uniform":
            size = read_json(where / ABOUT)["bytes_per_user"]
        steps = merged if model == SOUPS else [f"users/models/{model}"]
        training = sum(seconds[name] for name in steps) if all(name in seconds for name in steps) else None
        rows.append(
            {"method": method, "bytes_per_user": size, "training_seconds": training, "new_user_seconds": fitted.get(method)}
        )
    return rows


def _mean_size(files: Sequence[Path]) -> int | None:
    return round(sum(path.stat().st_size for path in files) / len(files)) if files else None


def _fitted(folder: Path) -> dict[str, float]:
    """Return {method: seconds of fitting one new user} that the cold start measured; they lie in its record, not its outputs."""
    if not (folder / RECORD).exists():
        return {}
    tags = read_json(folder / RECORD)["tags"]
    return {name.removesuffix("_seconds"): float(value) for name, value in tags.items() if name.endswith("_seconds")}


def learned(folder: Path, methods: Sequence[str], user_rows: Sequence[Row]) -> list[Row]:
    """Return the rows of table `users_map`: each trained user's own part of the user model on its two principal axes.

    Of a cluster model that part are the weights of the mixture. Raises InputError for a user who is not among `user_rows`.
    """
    about = {row["id"]: row for row in user_rows}
    rows: list[Row] = []
    for method in (name for name in LEARNED if name in methods):
        tensors = load_file(folder / "models" / METHODS[method].model / TENSORS)
        if strange := [user for user in tensors["ids"].tolist() if user not in about]:
            raise InputError(f"user model of {method}: user {strange[0]} is not among the users; train it again")
        own = tensors["rows"].astype(np.float64)
        if method == "pdpo_cluster":
            own = np.exp(own - own.max(1, keepdims=True))
            own /= own.sum(1, keepdims=True)
        centred = own - own.mean(0)
        _, values, axes = np.linalg.svd(centred, full_matrices=False)
        # An axis has no direction of its own: its largest entry is taken as positive.
        axes *= np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(1)])[:, None]
        places = np.zeros((len(own), 2))
        places[:, : min(2, len(axes))] = centred @ axes[:2].T
        shares = (values**2 / max(float((values**2).sum()), 1e-300))[:2].sum()
        rows += [
            {"method": method, "user": int(user), "group": about[int(user)]["group"], "kind": about[int(user)]["kind"]}
            | {"x": round(float(x), 6), "y": round(float(y), 6), "explained": round(float(shares), 6)}
            for user, (x, y) in zip(tensors["ids"].tolist(), places, strict=True)
        ]
    return rows
