"""What one more user costs on disk, and where users come to lie on the map of a learned user model."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rlphf.errors import InputError
from rlphf.evaluate.user_costs import costs, learned
from rlphf.files import write_json, write_text
from rlphf.settings_users import Users
from rlphf.users.model import new_user_model, save_user_model


def save(folder: Path, kind: str, rows: torch.Tensor, users: list[int]) -> None:
    """Save a user model of two tokens of width 4 whose users have `rows`."""
    told = Users(**{"model": kind, "tokens": 2, "clusters": rows.shape[1]})
    model = new_user_model(told, users, torch.randn(30, 4, generator=torch.Generator().manual_seed(1)), seed=1)
    if kind != "uniform":
        model.rows.copy_(rows)
    save_user_model(model, folder, {"backbone_sha256": "x"})


def test_a_user_costs_a_row_an_adapter_or_a_recipe(tmp_path: Path) -> None:
    models = tmp_path / "models"
    for user, size in ((1, 100), (2, 103)):
        (models / "per_user" / "adapters" / str(user)).mkdir(parents=True)
        (models / "per_user" / "adapters" / str(user) / "adapter_model.safetensors").write_bytes(b"x" * size)
        write_text(tmp_path / "soups" / "declared" / str(user) / "recipe.yaml", "r" * (10 * user))
    save(models / "individual", "individual", torch.zeros(2, 8), [1, 2])
    save(models / "cluster", "cluster", torch.zeros(2, 3), [1, 2])
    save(models / "dpo", "uniform", torch.zeros(2, 1), [1, 2])
    write_json(tmp_path / "cold_start" / "record.json", {"tags": {"pdpo_individual_seconds": "1.25", "seed": "1"}})
    seconds = {"users/models/individual": 60.0, "users/soups": 7.0, "users/answers/sft": 9.0}
    seconds |= {"reward/P1A": 20.0, "reward/P3A": 21.0, "reward/gold": 99.0, "ppo/P1A": 30.0, "ppo/P3A": 30.0, "ppo/pmorl": 99.0}
    methods = ["sft", "pooled", "dpo", "dpo_prompted", "per_user", "pdpo_individual", "pdpo_cluster", "psoups_declared"]
    rows = {row["method"]: row for row in costs(tmp_path, methods, seconds, ["P1A", "P3A"])}
    assert list(rows) == methods
    # Eight numbers of an offset and three of a mixture, and an id: 4 bytes each, and 8.
    wanted = {"per_user": 102, "pdpo_individual": 40, "pdpo_cluster": 20, "psoups_declared": 15}
    assert {name: row["bytes_per_user"] for name, row in rows.items()} == dict.fromkeys(methods) | wanted
    assert {n: r["training_seconds"] for n, r in rows.items() if r["training_seconds"]} == {
        "pdpo_individual": 60.0,
        "psoups_declared": 108.0,
    }
    assert {n: r["new_user_seconds"] for n, r in rows.items() if r["new_user_seconds"]} == {"pdpo_individual": 1.25}


PEOPLE = [{"id": i, "group": "majority" if i < 4 else "minority", "kind": f"kind {i}"} for i in range(1, 7)]


def apart(width: int, sign: float = 1.0) -> torch.Tensor:
    """Rows of six users: two clusters that lie apart in one direction, and little besides."""
    generator = torch.Generator().manual_seed(2)
    direction = torch.linspace(-1, 2, width)
    noise = 0.1 * torch.randn(6, width, generator=generator)
    return sign * (noise + torch.tensor([1.0, 1, 1, -1, -1, -1])[:, None] * direction)


@pytest.mark.parametrize(("method", "model", "width"), [("pdpo_individual", "individual", 8), ("pdpo_cluster", "cluster", 4)])
def test_two_clusters_of_users_come_apart_on_the_first_axis(tmp_path: Path, method: str, model: str, width: int) -> None:
    save(tmp_path / "models" / model, model, apart(width), [1, 2, 3, 4, 5, 6])
    rows = learned(tmp_path, ["sft", method], PEOPLE)
    assert [(row["method"], row["user"], row["group"], row["kind"]) for row in rows] == [
        (method, person["id"], person["group"], person["kind"]) for person in PEOPLE
    ]
    x, y = (np.array([row[axis] for row in rows]) for axis in "xy")
    assert min(abs(x)) > 2 * max(abs(y)) and len({*np.sign(x[:3])}) == len({*np.sign(x[3:])}) == 1 and x[0] * x[3] < 0
    assert x.mean() == pytest.approx(0, abs=1e-5) and {row["explained"] for row in rows} == {rows[0]["explained"]}
    assert 0.9 < rows[0]["explained"] <= 1


def test_a_user_model_of_other_users_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "models" / "individual", "individual", apart(8), [1, 2, 3, 4, 5, 9])
    with pytest.raises(InputError, match="user model of pdpo_individual: user 9 is not among the users; train it again"):
        learned(tmp_path, ["pdpo_individual"], PEOPLE)


def test_axes_point_where_their_largest_entry_is_positive(tmp_path: Path) -> None:
    # Offsets are largest in the last number, so the map of offsets that are turned round is turned round, too.
    found = []
    for name, sign in (("one", 1.0), ("two", -1.0)):
        save(tmp_path / name / "models" / "individual", "individual", apart(8, sign), [1, 2, 3, 4, 5, 6])
        found.append(learned(tmp_path / name, ["pdpo_individual"], PEOPLE))
    assert found[0][0]["x"] > 1
    for one, two in zip(*found, strict=True):
        assert (two["x"], two["y"]) == pytest.approx((-one["x"], -one["y"]), abs=1e-5)


def test_one_user_and_users_who_are_alike_lie_in_the_middle(tmp_path: Path) -> None:
    for name, count in (("one", 1), ("alike", 3)):
        save(tmp_path / name / "models" / "individual", "individual", torch.ones(count, 8), list(range(1, count + 1)))
        rows = learned(tmp_path / name, ["pdpo_individual"], PEOPLE)
        assert [(row["x"], row["y"], row["explained"]) for row in rows] == [(0.0, 0.0, 0.0)] * count
