"""The user model: its formulas, who has a row and who is the generic user, what is refused, and its files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.users.conftest import made
from torch import Tensor

from rlphf.errors import InputError
from rlphf.files import read_json, sha256, write_json
from rlphf.settings_users import Users
from rlphf.users.model import ABOUT, TENSORS, UserModel, load_user_model, new_user_model, save_user_model, user_ids

IDS = [7, 2, 2, 30, 0]
KINDS = ["uniform", "individual", "cluster"]


def by_hand(users: UserModel, user: int) -> Tensor:
    """The soft tokens (T, H) of a user, by the paper's formulas, one number at a time."""
    row = users.ids.tolist().index(user) if user in users.ids.tolist() else None
    if users.kind == "individual":
        own = torch.zeros_like(users.generic) if row is None else users.rows[row].reshape(users.generic.shape)
        return users.generic + own
    weights = (users.generic if row is None else users.rows[row]).exp()
    mixed = torch.zeros_like(users.clusters[0])
    for weight, cluster in zip(weights, users.clusters, strict=True):
        mixed += weight / weights.sum() * cluster
    return mixed


@pytest.mark.parametrize("kind", ["individual", "cluster"])
@pytest.mark.parametrize("start", ["drawn", "generic"])
def test_soft_tokens_are_the_papers_formulas(vocabulary: Tensor, kind: str, start: str) -> None:
    users = made(vocabulary, IDS, model=kind, start=start)
    users.rows += torch.arange(users.rows.numel()).view_as(users.rows).sin()
    asked = [30, 0, 7, 2, 7]
    found = users(asked)
    assert found.shape == (5, 3, 6) and users.tokens_per_user == 3
    for user, tokens in zip(asked, found, strict=True):
        assert torch.allclose(tokens, by_hand(users, user), atol=1e-5)
    assert not torch.allclose(found[0], found[1]) and not torch.allclose(found[2], found[3])


def test_uniform_users_have_no_soft_tokens(vocabulary: Tensor) -> None:
    for settings in ({"model": "uniform"}, {"model": "cluster", "text": "explicit"}):
        users = made(vocabulary, IDS, **settings)
        assert users.kind == "uniform" and users([2, 0, 99]).shape == (3, 0, 6)
        assert list(users.parameters()) == [] and users.tokens_per_user == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_user_who_was_not_trained_is_the_generic_one(vocabulary: Tensor, kind: str) -> None:
    users = made(vocabulary, IDS, model=kind)
    # Between the known ids, beyond them, and beyond all tables.
    found = users([0, 1, 8, 31, 2**62])
    assert all(torch.equal(found[0], other) for other in found[1:])
    assert kind == "uniform" or not torch.equal(users([2])[0], found[0])


def test_where_the_settings_say_so_a_user_who_was_not_trained_is_an_error(vocabulary: Tensor) -> None:
    users = made(vocabulary, IDS, unknown="error")
    assert users([0, 2, 7, 30]).shape == (4, 3, 6)
    with pytest.raises(InputError, match="user 8 was not trained; train on pairs of this user, or set users.unknown: generic"):
        users([2, 8])


@pytest.mark.parametrize("bad", [["bob"], ["1"], [-1], [1.0], [True], [None], [2**63], [3, -7, 2]])
def test_what_is_no_id_is_refused_in_one_line(vocabulary: Tensor, bad: list) -> None:
    with pytest.raises(InputError, match="is no user id; ids are whole numbers from 1 on, and 0 is the generic user") as error:
        made(vocabulary, IDS)(bad)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("bad", [torch.tensor([1.0]), torch.tensor([True]), torch.tensor([[1]]), torch.tensor([-2, 1])])
def test_tensors_of_something_else_are_no_ids(vocabulary: Tensor, bad: Tensor) -> None:
    with pytest.raises(InputError, match="pairs: "):
        user_ids(bad, "pairs")
    with pytest.raises(InputError):
        made(vocabulary, IDS)(bad)


def test_whole_numbers_of_any_kind_are_ids() -> None:
    for values in ([3, 0], [np.int32(3), np.int64(0)], torch.tensor([3, 0], dtype=torch.int16), np.array([3, 0])):
        assert torch.equal(user_ids(values), torch.tensor([3, 0]))
    assert user_ids([]).shape == (0,)


def test_a_batch_gives_gradients_to_its_own_users_and_to_what_all_share(vocabulary: Tensor) -> None:
    for kind in ("individual", "cluster"):
        users = made(vocabulary, [1, 2, 3, 4], model=kind)
        gathered = users.gather([4, 2, 4, 0, 99])
        assert gathered.slots.tolist() == [1, 3]
        loss = (users([4, 2, 4], gathered) * torch.arange(54.0).view(3, 3, 6)).sum()
        loss.backward()
        assert gathered.values.grad is not None and gathered.values.grad.abs().sum(1).min() > 0
        assert not users.rows.requires_grad and users.rows.grad is None
        # e_i = e_0 + o_i moves with the generic user; a mixture with weights of one's own moves with the clusters alone.
        assert (users.generic.grad is not None and users.generic.grad.abs().max() > 0) == (kind == "individual")
        assert kind == "individual" or users.clusters.grad.abs().min() > 0


def test_gathered_rows_give_the_tables_tokens(vocabulary: Tensor) -> None:
    for kind in KINDS:
        users = made(vocabulary, [1, 2, 3, 4], model=kind)
        asked = [3, 0, 1, 3, 77]
        assert torch.equal(users(asked, users.gather(asked)), users(asked))


def test_soft_tokens_start_as_distinct_embeddings_of_the_vocabulary(vocabulary: Tensor) -> None:
    users = made(vocabulary, list(range(1, 11)), model="individual", start="drawn")
    parts = torch.cat([users.generic.detach().reshape(-1, 6), users.rows.reshape(-1, 6)])
    chosen = [int((vocabulary == part).all(1).nonzero()) for part in parts]
    # 33 of 40: all distinct. With more users than that, each user's own still are.
    assert len(set(chosen)) == 33
    many = made(vocabulary, list(range(1, 101)), model="individual", start="drawn").rows.reshape(100, 3, 6)
    for tokens in many:
        assert len({int((vocabulary == part).all(1).nonzero()) for part in tokens}) == 3


def test_the_seed_decides_how_users_start(vocabulary: Tensor) -> None:
    settings = Users(tokens=3, model="cluster")
    one, again, other = (new_user_model(settings, IDS, vocabulary, seed=s).rows for s in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)


def test_uniform_initialisation_and_normal_weights(vocabulary: Tensor) -> None:
    users = made(vocabulary, list(range(1, 2001)), model="individual", start="drawn", init="uniform")
    assert -0.5 <= float(users.rows.min()) < -0.49 and 0.49 < float(users.rows.max()) <= 0.5
    weights = made(vocabulary, list(range(1, 2001)), model="cluster", start="drawn").rows
    assert abs(float(weights.mean())) < 0.05 and abs(float(weights.std()) - 1) < 0.05


def test_started_as_the_generic_user_all_are_one(vocabulary: Tensor) -> None:
    for kind in ("individual", "cluster"):
        found = made(vocabulary, IDS, model=kind, start="generic")([0, 2, 7, 30])
        assert all(torch.equal(found[0], other) for other in found[1:])


def test_more_soft_tokens_than_the_vocabulary_has_is_an_error(vocabulary: Tensor) -> None:
    with pytest.raises(InputError, match="users.tokens: 41 distinct tokens are asked for and the vocabulary has 40"):
        made(vocabulary, IDS, tokens=41)


# Its files.


def saved(vocabulary: Tensor, folder: Path, kind: str = "individual") -> UserModel:
    users = made(vocabulary, IDS, model=kind)
    save_user_model(users, folder, {"backbone_sha256": "abc"})
    return users


@pytest.mark.parametrize("kind", KINDS)
def test_loaded_is_what_was_saved(vocabulary: Tensor, tmp_path: Path, kind: str) -> None:
    users = saved(vocabulary, tmp_path, kind)
    loaded = load_user_model(tmp_path, "abc")
    asked = [0, 2, 7, 30, 12]
    assert torch.equal(loaded(asked), users(asked)) and loaded.kind == kind
    about = read_json(tmp_path / ABOUT)
    assert about["kind"] == kind and about["backbone_sha256"] == "abc"
    assert (about["tokens"], about["clusters"]) == {"uniform": (0, 0), "individual": (3, 0), "cluster": (3, 4)}[kind]
    assert (about["users"], about["bytes_per_user"]) == {"uniform": (0, 0), "individual": (3, 80), "cluster": (3, 24)}[kind]


def test_the_same_model_gives_the_same_bytes(vocabulary: Tensor, tmp_path: Path) -> None:
    for name in ("one", "two"):
        saved(vocabulary, tmp_path / name)
    assert sha256(tmp_path / "one") == sha256(tmp_path / "two")
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == [ABOUT, TENSORS]


def test_loading_can_refuse_unknown_users(vocabulary: Tensor, tmp_path: Path) -> None:
    saved(vocabulary, tmp_path)
    with pytest.raises(InputError, match="user 8 was not trained"):
        load_user_model(tmp_path, "abc", unknown="error")([8])


def test_a_user_model_of_another_backbone_is_refused(vocabulary: Tensor, tmp_path: Path) -> None:
    saved(vocabulary, tmp_path)
    with pytest.raises(InputError, match="of another backbone; train it again on this one"):
        load_user_model(tmp_path, "other")


def test_damaged_and_foreign_files_are_refused_in_one_line(vocabulary: Tensor, tmp_path: Path) -> None:
    saved(vocabulary, tmp_path)
    about, whole = read_json(tmp_path / ABOUT), (tmp_path / TENSORS).read_bytes()
    (tmp_path / TENSORS).write_bytes(whole[:-4])
    with pytest.raises(InputError, match="is not the file that user_model.json describes"):
        load_user_model(tmp_path, "abc")
    (tmp_path / TENSORS).write_bytes(b"\x80\x04pickle")
    write_json(tmp_path / ABOUT, about | {"sha256": sha256(tmp_path / TENSORS)})
    with pytest.raises(InputError, match="cannot be read as safetensors"):
        load_user_model(tmp_path, "abc")
    (tmp_path / TENSORS).write_bytes(whole)
    for change, words in (
        ({"users": 4}, "tensor ids: found"),
        ({"kind": "cluster"}, "tensor clusters: found none"),
        ({"kind": "tree"}, "says no kind and sizes"),
        ({"width": None}, "says no kind and sizes"),
    ):
        write_json(tmp_path / ABOUT, about | change)
        with pytest.raises(InputError, match=words) as error:
            load_user_model(tmp_path, "abc")
        assert "\n" not in str(error.value)
    (tmp_path / TENSORS).unlink()
    write_json(tmp_path / ABOUT, about)
    with pytest.raises(InputError, match="cannot be read"):
        load_user_model(tmp_path, "abc")


def test_a_tensor_too_many_is_refused(vocabulary: Tensor, tmp_path: Path) -> None:
    saved(vocabulary, tmp_path)
    save_file({**load_file(tmp_path / TENSORS), "more": torch.zeros(1)}, tmp_path / TENSORS)
    write_json(tmp_path / ABOUT, read_json(tmp_path / ABOUT) | {"sha256": sha256(tmp_path / TENSORS)})
    with pytest.raises(InputError, match=r"tensor more: found \[1\], user_model.json says none"):
        load_user_model(tmp_path, "abc")
