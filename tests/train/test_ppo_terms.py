"""Every formula of PPO against a plain loop over rows and positions."""

import math

import numpy as np
import pytest
import torch

from rlphf.train import ppo_terms as terms

LENGTHS = [5, 1, 3, 7, 2]
MASK = torch.tensor([[float(t < length) for t in range(7)] for length in LENGTHS])


@pytest.fixture
def draw():
    """Random numbers of the mask's shape; what lies on padding is large, so that it cannot go unnoticed."""
    generator = torch.Generator().manual_seed(4)

    def drawn(scale: float = 1.0) -> torch.Tensor:
        return torch.randn(MASK.shape, generator=generator) * scale + 1000 * (1 - MASK)

    return drawn


def cells() -> list[tuple[int, int]]:
    """(row, position) of every token."""
    return [(i, t) for i, length in enumerate(LENGTHS) for t in range(length)]


def plain_gae(rewards, values, gamma: float, lam: float) -> tuple[dict, dict]:
    """The sum of discounted temporal differences, written out for each token."""
    advantages, returns = {}, {}
    for i, length in enumerate(LENGTHS):
        value = [float(values[i, t]) for t in range(length)] + [0.0]
        for t in range(length):
            total = 0.0
            for k in range(t, length):
                total += (gamma * lam) ** (k - t) * (float(rewards[i, k]) + gamma * value[k + 1] - value[k])
            advantages[i, t], returns[i, t] = total, total + value[t]
    return advantages, returns


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.7, 0.0), (0.0, 1.0)])
def test_gae_equals_its_sum_on_ragged_rows(draw, gamma: float, lam: float) -> None:
    rewards, values = draw(), draw()
    advantages, returns = terms.advantages_and_returns(rewards, values, MASK, gamma, lam)
    wanted_advantages, wanted_returns = plain_gae(rewards, values, gamma, lam)
    for cell in cells():
        assert float(advantages[cell]) == pytest.approx(wanted_advantages[cell], abs=1e-5)
        assert float(returns[cell]) == pytest.approx(wanted_returns[cell], abs=1e-5)
    assert (advantages[MASK == 0] == 0).all() and (returns[MASK == 0] == 0).all()


def test_without_discount_and_bootstrap_the_return_is_the_sum_of_later_rewards(draw) -> None:
    rewards = draw()
    _, returns = terms.advantages_and_returns(rewards, draw(), MASK, gamma=1.0, lam=1.0)
    for i, t in cells():
        assert float(returns[i, t]) == pytest.approx(float(rewards[i, t : LENGTHS[i]].sum()), abs=1e-4)


def test_mean_is_over_tokens_only(draw) -> None:
    values = draw()
    assert float(terms.masked_mean(values, MASK)) == pytest.approx(np.mean([float(values[c]) for c in cells()]), abs=1e-5)


def test_whitening_gives_mean_0_and_unbiased_variance_1_over_tokens(draw) -> None:
    values = draw(scale=3.0)
    whitened = terms.masked_whiten(values, MASK)
    plain = np.array([float(values[c]) for c in cells()])
    wanted = (plain - plain.mean()) / plain.std(ddof=1)
    assert np.allclose([float(whitened[c]) for c in cells()], wanted, atol=1e-4)
    assert (whitened[MASK == 0] == 0).all()


def test_whitening_one_token_is_finite() -> None:
    assert float(terms.masked_whiten(torch.tensor([[3.0]]), torch.ones(1, 1))) == 0.0


def test_score_goes_to_the_last_token_and_the_penalty_to_every_token(draw) -> None:
    logprobs, reference = draw(), draw()
    scores = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0])
    rewards = terms.token_rewards(scores, logprobs, reference, MASK, kl_coefficient=0.3)
    for i, t in cells():
        wanted = -0.3 * float(logprobs[i, t] - reference[i, t]) + (float(scores[i]) if t == LENGTHS[i] - 1 else 0.0)
        assert float(rewards[i, t]) == pytest.approx(wanted, abs=1e-5)
    assert (rewards[MASK == 0] == 0).all()


def test_policy_loss_equals_the_clipped_surrogate_of_each_token(draw) -> None:
    old, new, advantages = draw(), draw(), draw()
    new = old + 0.3 * (new - old)
    loss, clipped = terms.policy_loss(new, old, advantages, MASK, clip=0.2)
    losses, binding = [], []
    for cell in cells():
        ratio, advantage = math.exp(float(new[cell] - old[cell])), float(advantages[cell])
        kept = min(max(ratio, 0.8), 1.2)
        losses.append(-min(ratio * advantage, kept * advantage))
        binding.append(kept * advantage < ratio * advantage)
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-4)
    assert float(clipped) == pytest.approx(np.mean(binding), abs=1e-6)
    assert 0 < np.mean(binding) < 1


def test_no_gradient_flows_where_the_clip_binds() -> None:
    old = torch.zeros(1, 4)
    new = torch.tensor([[0.5, -0.5, 0.5, -0.5]], requires_grad=True)
    advantages = torch.tensor([[1.0, -1.0, -1.0, 1.0]])
    terms.policy_loss(new, old, advantages, torch.ones(1, 4), clip=0.2)[0].backward()
    assert new.grad is not None
    assert (new.grad[0, :2] == 0).all() and (new.grad[0, 2:] != 0).all()


def test_value_loss_equals_the_larger_of_both_squared_errors(draw) -> None:
    old, new, returns = draw(), draw(), draw()
    losses = []
    for cell in cells():
        value, before, target = float(new[cell]), float(old[cell]), float(returns[cell])
        kept = min(max(value, before - 0.2), before + 0.2)
        losses.append(0.5 * max((value - target) ** 2, (kept - target) ** 2))
    assert float(terms.value_loss(new, old, returns, MASK, clip=0.2)) == pytest.approx(np.mean(losses), rel=1e-4)


def test_explained_variance_is_1_for_the_returns_0_for_a_constant_and_negative_for_worse(draw) -> None:
    returns = draw()
    plain = np.array([float(returns[c]) for c in cells()])
    guess = draw()
    wanted = 1 - np.var(plain - np.array([float(guess[c]) for c in cells()])) / np.var(plain)
    assert terms.explained_variance(returns, returns, MASK) == pytest.approx(1.0)
    assert terms.explained_variance(torch.full_like(returns, 2.0), returns, MASK) == pytest.approx(0.0, abs=1e-5)
    assert terms.explained_variance(guess, returns, MASK) == pytest.approx(wanted, abs=1e-4)
    assert terms.explained_variance(-returns, returns, MASK) < 0
    assert terms.explained_variance(guess, torch.ones_like(returns), MASK) == 0.0


def test_running_moments_are_those_of_all_scores_seen() -> None:
    generator = torch.Generator().manual_seed(2)
    moments, seen = terms.RunningMoments(), np.empty(0)
    for size in (1, 4, 32, 7):
        scores = torch.randn(size, generator=generator) * 5 + 3
        moments.update(scores)
        seen = np.concatenate([seen, scores.double().numpy()])
        assert moments.mean == pytest.approx(seen.mean(), rel=1e-9)
        assert moments.variance == pytest.approx(seen.var(), rel=1e-9, abs=1e-20)
        assert moments.count == pytest.approx(len(seen))
        if len(seen) > 1:
            assert moments.std == pytest.approx(seen.std(ddof=1), rel=1e-9)


def test_scores_are_scaled_by_the_running_deviation_and_clipped() -> None:
    moments = terms.RunningMoments()
    moments.update(torch.tensor([1.0, 3.0, 5.0]))
    scores = torch.tensor([3.0, 7.0, -9.0])
    assert terms.scale_scores(scores, moments, norm=True, clip=None).tolist() == pytest.approx([0.0, 2.0, -6.0])
    assert terms.scale_scores(scores, moments, norm=False, clip=None).tolist() == pytest.approx([1.5, 3.5, -4.5])
    assert terms.scale_scores(scores, moments, norm=True, clip=2.5).tolist() == pytest.approx([0.0, 2.0, -2.5])


def test_equal_scores_of_a_first_batch_are_divided_by_1() -> None:
    moments, scores = terms.RunningMoments(), torch.tensor([0.1, 0.1, 0.1])
    moments.update(scores)
    assert terms.scale_scores(scores, moments, norm=False, clip=None).tolist() == pytest.approx([0.1] * 3)
    assert terms.scale_scores(scores, moments, norm=True, clip=None).tolist() == pytest.approx([0.0] * 3, abs=1e-7)


@pytest.mark.parametrize(("kl", "change"), [(6.0, 0.0), (6.6, 0.1), (100.0, 0.2), (0.0, -0.2), (5.4, -0.1)])
def test_kl_controller_moves_kappa_by_the_clipped_error(kl: float, change: float) -> None:
    controller = terms.KLController(0.2, target=6.0, horizon=10_000)
    controller.update(kl, samples=64)
    assert controller.coefficient == pytest.approx(0.2 * (1 + change * 64 / 10_000))


def test_fixed_kappa_stays() -> None:
    controller = terms.KLController(0.2, target=6.0, horizon=10, adaptive=False)
    controller.update(100.0, samples=64)
    assert controller.coefficient == 0.2


def test_shares_of_the_parts_of_a_batch_add_up_to_its_mean(draw) -> None:
    values, count = draw(), MASK.sum()
    parts = [terms.masked_mean(values[rows], MASK[rows], count) for rows in ([0, 2], [1], [3, 4])]
    assert float(sum(parts)) == pytest.approx(float(terms.masked_mean(values, MASK)), abs=1e-6)
