"""The formulas of preference losses with users: against plain numbers, and what each of their parts may depend on."""

import math

import pytest
import torch
from torch import Tensor

from rlphf.train import dpo_terms as terms

H = [-3.0, -0.5, 0.0, 0.7, 4.0]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_margin_is_beta_times_the_difference_of_log_ratios() -> None:
    found = terms.margin(torch.tensor([-5.0]), torch.tensor([-7.0]), torch.tensor([-6.0]), torch.tensor([-4.0]), 0.5)
    assert float(found) == pytest.approx(0.5 * ((-5 + 6) - (-7 + 4)))


@pytest.mark.parametrize(
    ("loss", "plain"),
    [
        ("sigmoid", lambda h, beta: -math.log(sigmoid(h))),
        ("hinge", lambda h, beta: max(0.0, 1 - h)),
        ("ipo", lambda h, beta: (h / beta - 1 / (2 * beta)) ** 2),
    ],
)
@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_losses_are_their_closed_forms(loss, plain, beta: float) -> None:
    found = terms.pair_loss(torch.tensor(H), loss, beta)
    assert found.tolist() == pytest.approx([plain(h, beta) for h in H], rel=1e-5, abs=1e-6)


def test_large_margins_give_finite_losses_and_gradients() -> None:
    margins = torch.tensor([-1e4, 1e4], requires_grad=True)
    terms.pair_loss(margins, "sigmoid", 0.5).sum().backward()
    assert margins.grad is not None and margins.grad.tolist() == [-1.0, 0.0]


def test_the_mixture_weighs_both_terms() -> None:
    own, generic = torch.tensor([1.0, 2.0]), torch.tensor([5.0, 6.0])
    assert terms.mixture(own, generic, 0.25).tolist() == [4.0, 5.0]
    assert terms.mixture(own, None, 1.0) is own and terms.mixture(None, generic, 0.0) is generic
    with pytest.raises(ValueError, match="needs both terms"):
        terms.mixture(own, None, 0.5)


def test_the_learning_rate_warms_up_and_falls_to_nothing() -> None:
    found = [terms.rate(step, 20, 4) for step in range(20)]
    assert found[:4] == [0.25, 0.5, 0.75, 1.0] and found[4] == 1.0
    assert all(a > b for a, b in zip(found[4:], found[5:], strict=False)) and 0 < found[-1] < 0.05
    assert found[12] == pytest.approx(0.5)
    # A training that is shorter than its warm-up never gets to the peak.
    assert terms.rate(2, 3, 150) == pytest.approx(3 / 150)


def test_every_pass_has_every_pair_once_in_batches_of_like_length() -> None:
    lengths = [7 * i % 101 for i in range(101)]
    made = list(terms.batches(lengths, 8, 3, seed=1))
    assert len(made) == 3 * 13
    for number in range(3):
        epoch = made[13 * number : 13 * number + 13]
        assert sorted(i for batch in epoch for i in batch) == list(range(101))
        assert all(max(lengths[i] for i in batch) - min(lengths[i] for i in batch) < 10 for batch in epoch)
    assert made[:13] != made[13:26]
    assert made == list(terms.batches(lengths, 8, 3, seed=1)) != list(terms.batches(lengths, 8, 3, seed=2))
    # The passes that are made do not depend on how many will follow.
    assert made[:13] == list(terms.batches(lengths, 8, 1, seed=1))


def test_pairs_of_one_length_still_come_in_random_order() -> None:
    first, second = (sum(terms.batches([5] * 40, 8, 1, seed=s), []) for s in (1, 2))
    assert first != second and first != list(range(40))


def test_tensors_stay_tensors_of_one_number_per_pair() -> None:
    margins = torch.tensor(H)
    assert all(
        isinstance(t, Tensor) and t.shape == (5,)
        for t in (terms.pair_loss(margins, "ipo", 1.0), terms.mixture(margins, margins, 0.5))
    )
