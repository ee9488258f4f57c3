"""A new user's row: what it is without pairs, what it learns from some, and that nothing else moves."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from tests.train.choosing import BAD, CONFIG, GOOD, TOPICS, opposite, row
from torch import Tensor

from rlphf.config import load
from rlphf.data.records import PAIRS
from rlphf.errors import InputError
from rlphf.files import read_json, write_json, write_parquet
from rlphf.settings_users import ColdStart, Users
from rlphf.train.dpo import DPOTrainer, dpo_step
from rlphf.train.users import Pair, encode_pairs
from rlphf.users import fewshot
from rlphf.users.fewshot import fit_row, load_trained
from rlphf.users.model import UserModel

KINDS = ["individual", "cluster"]
SETTINGS = ColdStart(steps=15, learning_rate=0.1)


@pytest.fixture(scope="module")
def folders(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What P-DPO left of users 1, who says yes, and 2, who says no, for each kind of user model."""
    found = {}
    for kind, epochs in (("individual", 3), ("cluster", 3), ("uniform", 1)):
        folder = tmp_path_factory.mktemp(kind)
        (folder / "config.yaml").write_text(CONFIG % (0.5, epochs))
        write_parquet(folder / "pairs.parquet", pa.Table.from_pylist(opposite(), PAIRS))
        model = "dpo" if kind == "uniform" else kind
        dpo_step(folder / "config.yaml", model, [folder / "pairs.parquet"], tiny_backbone, None, folder / "out")
        found[kind] = folder
    return found


@pytest.fixture
def trained(folders: dict[str, Path], tiny_backbone: Path) -> Callable[[str], DPOTrainer]:
    """Load the policy and user model of a kind."""
    return lambda kind: load_trained(folders[kind] / "out", tiny_backbone, load(folders[kind] / "config.yaml").dpo)


def chosen(trainer: DPOTrainer, user: int, count: int = 6, no: bool = True) -> list[Pair]:
    """Pairs of a user who says no to everything, or yes."""
    rows = []
    for i, topic in enumerate((TOPICS * 2)[:count]):
        good, bad = GOOD[i % 3], BAD[i % 3]
        rows.append(row(i, f"Do you like {topic}?", *((bad, good) if no else (good, bad)), user))
    told = Users(model=trainer.user_model.kind, tokens=2, clusters=2)
    return encode_pairs(trainer.tokenizer, rows, told, trainer.settings, 512)


def fit_user(trainer: DPOTrainer, user: int, pairs: Sequence[Pair], settings: ColdStart) -> UserModel:
    """The trainer's user model with one more row."""
    return trainer.user_model.with_row(user, fit_row(trainer, pairs, settings))


def everything(trainer: DPOTrainer) -> dict[str, Tensor]:
    """All tensors of policy, backbone and user model."""
    found = {f"model/{name}": value.clone() for name, value in trainer.model.state_dict().items()}
    found |= {f"users/{name}": value.detach().clone() for name, value in trainer.user_model.named_parameters()}
    return found | {"rows": trainer.user_model.rows.clone(), "ids": trainer.user_model.ids.clone()}


@pytest.mark.parametrize("kind", KINDS)
def test_without_pairs_a_new_user_is_the_generic_one_to_the_bit(trained, kind: str) -> None:
    trainer = trained(kind)
    users = fit_user(trainer, 7, [], SETTINGS)
    assert users.ids.tolist() == [1, 2, 7]
    assert torch.equal(users([7]), trainer.user_model([0])) and torch.equal(users([7]), users([0]))


@pytest.mark.parametrize("kind", KINDS)
def test_the_users_own_margins_rise_on_these_pairs_and_on_others(trained, kind: str) -> None:
    trainer = trained(kind)
    pairs, others = chosen(trainer, 7), chosen(trainer, 7, 8)[6:]
    before = trainer.evaluate(pairs + others)
    trainer.user_model = fit_user(trainer, 7, pairs, SETTINGS)
    after = trainer.evaluate(pairs + others)
    own = [torch.tensor(margins[0]) for margins in (before, after)]
    assert own[1][:6].mean() > own[0][:6].mean() + 0.01 and own[1][6:].mean() > own[0][6:].mean()
    # Before, the user was the generic one, whose margins are as they were.
    assert before[0] == before[1] and after[1] == pytest.approx(before[1], abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_users_who_choose_opposite_things_get_opposite_margins(trained, kind: str) -> None:
    trainer = trained(kind)
    pairs = chosen(trainer, 7)
    found = [trainer.user_model.with_row(7, fit_row(trainer, chosen(trainer, 7, no=no), SETTINGS)) for no in (True, False)]
    margins = []
    for users in found:
        trainer.user_model = users
        margins.append(torch.tensor(trainer.evaluate(pairs)[0]).mean())
    assert margins[0] > margins[1] + 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_but_the_new_row_changes_or_gets_a_gradient(trained, kind: str) -> None:
    trainer = trained(kind)
    before = everything(trainer)
    flags = [parameter.requires_grad for parameter in trainer.model.parameters()]
    users = fit_user(trainer, 7, chosen(trainer, 7), SETTINGS)
    after = everything(trainer)
    assert before.keys() == after.keys() and all(torch.equal(value, after[name]) for name, value in before.items())
    assert all(p.grad is None for p in [*trainer.model.parameters(), *trainer.user_model.parameters(), *users.parameters()])
    assert flags == [parameter.requires_grad for parameter in trainer.model.parameters()]
    assert torch.equal(users.rows[:2], before["rows"]) and torch.equal(users([0, 1, 2]), trainer.user_model([0, 1, 2]))
    assert not torch.equal(users([7]), users([0])) and not trainer.rows.steps.any()


def test_the_first_step_is_adams_down_the_plain_loss_of_the_users_own_term(trained) -> None:
    trainer = trained("individual")
    pairs = chosen(trainer, 7, 3)
    one = fit_row(trainer, pairs, ColdStart(steps=1, learning_rate=0.1))
    # The same gradient by finite differences of the mean of -log s(h(u)), in the direction of the first step.
    direction = one / 0.1
    losses = []
    for sign in (1, -1):
        trainer.user_model = trained("individual").user_model.with_row(7, sign * 0.01 * direction)
        margins = torch.tensor(trainer.evaluate(pairs)[0], dtype=torch.float64)
        losses.append(-torch.nn.functional.logsigmoid(margins).mean())
    assert losses[0] < losses[1]
    # Adam's first step has the size of the rate wherever there is a gradient.
    assert torch.allclose(one.abs(), torch.full_like(one, 0.1), atol=1e-3)


def test_batches_are_drawn_by_the_seed(trained) -> None:
    trainer, few = trained("individual"), ColdStart(steps=3, learning_rate=0.1, batch_size=2)
    rows = [fit_row(trainer, chosen(trainer, 7), few, seed) for seed in (1, 1, 2)]
    assert torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2])


def test_users_are_fitted_one_after_the_other_as_each_by_itself(trained) -> None:
    trainer = trained("cluster")
    pairs = {user: chosen(trainer, user, user, user % 2 == 0) for user in (3, 4, 5)}
    together = {user: fit_row(trainer, own, SETTINGS) for user, own in pairs.items()}
    for user, own in pairs.items():
        assert torch.equal(fit_row(trained("cluster"), own, SETTINGS), together[user])


def test_micro_batches_do_not_change_the_row(trained) -> None:
    rows = []
    for size in (1, 4, 64):
        trainer = trained("individual")
        trainer.settings = trainer.settings.model_copy(update={"micro_batch_size": size})
        rows.append(fit_row(trainer, chosen(trainer, 7, 5), ColdStart(steps=3, learning_rate=0.1)))
    assert torch.allclose(rows[0], rows[1], atol=1e-3) and torch.allclose(rows[0], rows[2], atol=1e-3)


def test_pairs_may_name_any_user_and_the_model_may_refuse_unknown_ones(trained) -> None:
    trainer = trained("individual")
    wanted = fit_row(trainer, chosen(trainer, 7), SETTINGS)
    trainer.user_model.unknown = "error"
    for user in (0, 1, 99):
        assert torch.equal(fit_row(trainer, chosen(trainer, user), SETTINGS), wanted)


def test_rows_are_put_in_the_order_of_their_ids(trained) -> None:
    users = trained("individual").user_model
    row = torch.full_like(users.generic_row(), 2.0)
    more = users.with_row(9, row).with_row(5, row + 1)
    assert more.ids.tolist() == [1, 2, 5, 9]
    assert torch.equal(more([5]) - more([0]), torch.full_like(more([0]), 3.0))
    assert torch.equal(more([1, 2]), users([1, 2])) and users.ids.tolist() == [1, 2]


def test_who_has_a_row_or_is_the_generic_user_is_refused(trained) -> None:
    trainer = trained("individual")
    for user in (0, 2):
        with pytest.raises(InputError, match=f"user {user} is known already; give a new user an id of its own, from 1 on"):
            fit_user(trainer, user, [], SETTINGS)
    with pytest.raises(InputError, match="-3 is no user id"):
        fit_user(trainer, -3, [], SETTINGS)


def test_a_uniform_model_has_no_rows_to_fit(trained) -> None:
    with pytest.raises(InputError, match="a uniform user model has no rows; fit one of the model individual or cluster"):
        fit_row(trained("uniform"), [], SETTINGS)


def test_what_was_trained_on_another_backbone_is_refused(folders, tiny_backbone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(folders["individual"] / "out", folder)
    write_json(folder / "adapter" / "adapter.json", read_json(folder / "adapter" / "adapter.json") | {"backbone_sha256": "other"})
    with pytest.raises(InputError, match="adapter: made for another backbone; train it again on this one"):
        load_trained(folder, tiny_backbone, load(folders["individual"] / "config.yaml").dpo)


def test_the_loss_is_the_trainings(trained, monkeypatch) -> None:
    called = []

    class Watched(DPOTrainer):
        def losses(self, own, generic):
            called.append((own is not None, generic is None, self.alpha))
            return super().losses(own, generic)

    monkeypatch.setattr(fewshot, "DPOTrainer", Watched)
    trainer = trained("individual")
    fit_row(trainer, chosen(trainer, 7), ColdStart(steps=2))
    assert called == [(True, True, 1.0)] * 2
