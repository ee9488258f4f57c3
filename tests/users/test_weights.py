"""What a person weighs: against plain integration and a plain Markov chain, on simulated people, and at the edges."""

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import expit

from rlphf.errors import InputError
from rlphf.users import weights as w

NAMES = ["P1A", "P1B", "P2A", "P2B", "P3A", "P3B"]
# A person who wants it plain and friendly, and does not care how long it is.
TRUE = np.array([0.6, 0.0, 0.0, 0.0, 0.4, 0.0])


def choices(true: np.ndarray, count: int, seed: int, scale: float = 4.0) -> np.ndarray:
    """Differences (count, P) of pairs that a person of weights `true` chose between."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(count, len(true))) * scale
    return found * np.where(rng.random(count) < expit(found @ true), 1, -1)[:, None]


def summary(posterior: w.Posterior, seed: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean shares, and both ends of their intervals."""
    each = w.shares(posterior.draws(w.DRAWS, seed))
    return each.mean(axis=0), *w.intervals(each)


# Against plain references.


def test_gradient_and_hessian_are_those_of_the_loss():
    differences = choices(TRUE, 12, 0)
    for seed in range(3):
        at = np.random.default_rng(seed).normal(size=6)
        assert check_grad(w.loss, w.gradient, at, differences, 0.5) < 1e-4
        step = 1e-5 * np.eye(6)
        plain = [(w.gradient(at + s, differences, 0.5) - w.gradient(at - s, differences, 0.5)) / 2e-5 for s in step]
        assert np.allclose(w.hessian(at, differences, 0.5), plain, atol=1e-6)


@pytest.mark.parametrize(("names", "true"), [(["P1A"], [0.8]), (["P1A", "P3B"], [0.7, 0.3])])
@pytest.mark.parametrize(("count", "mean_off", "sd_off"), [(5, 0.2, 0.1), (100, 0.2, 0.05), (1000, 0.1, 0.02)])
def test_mean_and_sd_are_those_of_a_numerical_integration(names, true, count, mean_off, sd_off):
    """The mean may be off by a fifth of a standard deviation (1000 pairs: a tenth), which may be off by 10 %, 5 % and 2 %."""
    differences = choices(np.array(true), count, 1, scale=2.0)
    posterior = w.fit(differences, names, 0.5)
    grid = np.stack(np.meshgrid(*[np.linspace(-3, 4, 281)] * len(names), indexing="ij"), axis=-1).reshape(-1, len(names))
    off = grid - 1 / len(names)
    log = -np.logaddexp(0, -(grid @ differences.T)).sum(axis=1) - (off**2).sum(axis=1) / (2 * 0.5**2)
    density = np.exp(log - log.max())
    density /= density.sum()
    mean = density @ grid
    sd = np.sqrt(density @ (grid - mean) ** 2)
    assert np.all(abs(posterior.mean - mean) < mean_off * sd)
    assert np.all(abs(posterior.sd / sd - 1) < sd_off)


def test_shares_and_their_intervals_are_those_of_a_markov_chain():
    differences = choices(TRUE, 60, 5)
    posterior = w.fit(differences, NAMES, 0.5)
    rng = np.random.default_rng(0)
    # 64 chains of random-walk Metropolis at once, which know of the approximation only their steps' sizes.
    steps = np.linalg.cholesky(posterior.covariance) * 2.4 / np.sqrt(6)
    at = np.tile(posterior.mean, (64, 1))

    def log(at: np.ndarray) -> np.ndarray:
        off = at - 1 / 6
        return -np.logaddexp(0, -(at @ differences.T)).sum(axis=1) - (off**2).sum(axis=1) / (2 * 0.5**2)

    here, kept = log(at), []
    for number in range(1500):
        there = at + rng.normal(size=at.shape) @ steps.T
        value = log(there)
        moved = np.log(rng.random(64)) < value - here
        at, here = np.where(moved[:, None], there, at), np.where(moved, value, here)
        if number >= 300:
            kept.append(at)
    each = w.shares(np.concatenate(kept))
    share, low, high = summary(posterior)
    assert np.allclose(share, each.mean(axis=0), atol=0.02)
    assert np.allclose((low, high), w.intervals(each), atol=0.04)


# On simulated people.


def test_known_weights_are_found_from_many_choices():
    posterior = w.fit(choices(TRUE, 4000, 2), NAMES, 0.5)
    assert np.allclose(posterior.mean, TRUE, atol=0.05)
    share, _, _ = summary(posterior)
    assert np.allclose(share, TRUE, atol=0.05)
    assert w.asked(posterior, posterior.draws(w.DRAWS, 3)) == ["P1A", "P3A"]


def test_intervals_of_shares_narrow_with_choices():
    widths = []
    for count in (0, 30, 100, 1000):
        _, low, high = summary(w.fit(choices(TRUE, count, 4), NAMES, 0.5))
        widths.append(float((high - low).mean()))
    assert widths == sorted(widths, reverse=True) and widths[-1] < widths[0] / 3


@pytest.mark.parametrize("count", [10, 80])
def test_intervals_cover_weights_that_come_from_the_prior_as_often_as_they_say(count):
    """Over 200 people of six weights each: 95 % intervals cover weights in 92 % to 98 % of the cases, shares in 92 % at least."""
    rng = np.random.default_rng(count)
    covered = []
    for person in range(200):
        true = rng.normal(1 / 6, 0.5, size=6)
        posterior = w.fit(choices(true, count, 1000 + person, scale=2.0), NAMES, 0.5)
        draws = posterior.draws(2000, person)
        low, high = w.intervals(draws)
        share_low, share_high = w.intervals(w.shares(draws))
        share = w.shares(true[None])[0]
        covered.append([(low <= true) & (true <= high), (share_low <= share) & (share <= share_high)])
    weights, shares = np.array(covered).mean(axis=(0, 2))
    assert 0.92 < weights < 0.98 and 0.92 < shares < 0.995


# At the edges.


def test_without_choices_it_is_the_prior_and_nothing_is_asked_for():
    for names in (["P1A"], ["P1A", "P2A"], NAMES, ["P1A", "P2A", "P3A"]):
        posterior = w.fit(np.zeros((0, len(names))), names, 0.1)
        assert np.array_equal(posterior.mean, np.full(len(names), 1 / len(names)))
        assert np.array_equal(posterior.covariance, np.eye(len(names)) * 0.1**2)
        draws = posterior.draws(w.DRAWS, 0)
        assert w.asked(posterior, draws) == []
        assert np.allclose(w.shares(draws).mean(axis=0), 1 / len(names), atol=0.01)


def test_a_pair_chosen_both_ways_moves_the_mean_towards_indifference_alone():
    even = np.array([3.0, -3.0, 1.0, -1.0, 0.5, -0.5])
    posterior = w.fit(np.stack([even, -even] * 5), NAMES, 0.5)
    # The prior's mean is indifferent between responses whose differences sum to 0: it stays.
    assert np.allclose(posterior.mean, 1 / 6, atol=1e-6)
    assert posterior.sd[0] < 0.5 and w.asked(posterior, posterior.draws(1000, 0)) == []
    odd = np.array([3.0, 0, 0, 0, 0, 0])
    posterior = w.fit(np.stack([odd, -odd] * 5), NAMES, 0.5)
    assert 0 < posterior.mean[0] < 1 / 6 and np.allclose(posterior.mean[1:], 1 / 6)


def test_responses_that_no_reward_model_tells_apart_say_nothing():
    posterior = w.fit(np.zeros((50, 6)), NAMES, 0.5)
    assert np.allclose(posterior.mean, 1 / 6) and np.allclose(posterior.covariance, np.eye(6) * 0.25)


def test_permuting_preferences_permutes_the_result():
    differences, order = choices(TRUE, 40, 6), [3, 0, 5, 1, 4, 2]
    one, other = w.fit(differences, NAMES, 0.5), w.fit(differences[:, order], [NAMES[i] for i in order], 0.5)
    assert np.allclose(one.mean[order], other.mean, atol=1e-6)
    assert np.allclose(one.covariance[np.ix_(order, order)], other.covariance, atol=1e-6)
    first, second = one.draws(500, 9), other.draws(500, 9)
    assert np.allclose(first[:, order], second, atol=1e-5)
    assert w.asked(one, first) == w.asked(other, second)
    weights = w.recipe_weights(other, second)
    assert weights == pytest.approx(w.recipe_weights(one, first), abs=1e-5)


def test_the_order_of_the_pairs_does_not_matter():
    differences = choices(TRUE, 40, 6)
    one, other = w.fit(differences, NAMES, 0.5), w.fit(differences[::-1], NAMES, 0.5)
    assert np.allclose(one.mean, other.mean, atol=1e-9)


@pytest.mark.parametrize("scale", [1e3, 1e8, 1e38, 1e300])
@pytest.mark.parametrize("count", [1, 200])
@pytest.mark.filterwarnings("error")
def test_huge_differences_overflow_nowhere(scale: float, count: int):
    posterior = w.fit(choices(TRUE, count, 7, scale=scale), NAMES, 0.5)
    assert np.isfinite(posterior.mean).all() and np.isfinite(posterior.draws(100, 0)).all()
    assert (np.linalg.eigvalsh(posterior.covariance) > 0).all()
    assert np.abs(w.gradient(posterior.mean, choices(TRUE, count, 7, scale=scale).clip(-1e3, 1e3), 0.5)).max() < 1e-2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(bad: float):
    differences = choices(TRUE, 3, 0)
    differences[1, 4] = bad
    with pytest.raises(InputError, match="pair 2: its scores by P3A are no numbers; train that reward model again"):
        w.fit(differences, NAMES, 0.5)


def test_the_seed_decides_the_draws():
    posterior = w.fit(choices(TRUE, 10, 0), NAMES, 0.5)
    assert np.array_equal(posterior.draws(50, 1), posterior.draws(50, 1))
    assert not np.array_equal(posterior.draws(50, 1), posterior.draws(50, 2))
    drawn = posterior.draws(50_000, 0)
    assert np.allclose(drawn.mean(axis=0), posterior.mean, atol=0.02)
    assert np.allclose(np.cov(drawn.T), posterior.covariance, atol=0.01)


# Shares, recipe, and what is asked for.


def test_shares_are_of_positive_weights_and_even_where_there_are_none():
    found = w.shares(np.array([[3.0, 1.0, -2.0], [-1.0, 0.0, -2.0]]))
    assert np.allclose(found, [[0.75, 0.25, 0], [1 / 3, 1 / 3, 1 / 3]])


def test_a_recipe_leaves_small_shares_out_and_sums_to_1():
    mean = np.array([0.6, -0.4, -0.4, 0.004, 0.396, -0.4])
    posterior = w.Posterior(tuple(NAMES), mean, np.eye(6) * 1e-9)
    found = w.recipe_weights(posterior, posterior.draws(1000, 0))
    assert found == pytest.approx({"P1A": 0.6 / 0.996, "P3A": 0.396 / 0.996}, abs=1e-3)
    assert sum(found.values()) == pytest.approx(1, abs=1e-12)


def test_described_is_what_was_computed_by_preference():
    posterior = w.fit(choices(TRUE, 30, 0), NAMES, 0.5)
    draws = posterior.draws(1000, 0)
    found = w.described(posterior, draws)
    share, low, high = summary(posterior, 0)
    assert list(found) == NAMES
    assert found["P3A"]["mean"] == posterior.mean[4] and found["P3A"]["sd"] == posterior.sd[4]
    assert all(row["ci_low"] <= row["share"] <= row["ci_high"] for row in found.values())
    assert sum(row["share"] for row in found.values()) == pytest.approx(1)


def sharp(mean: list[float], sd: list[float], names: list[str] = NAMES) -> list[str]:
    """What is asked for, of independent weights."""
    posterior = w.Posterior(tuple(names), np.array(mean), np.diag(np.array(sd) ** 2))
    return w.asked(posterior, posterior.draws(w.DRAWS, 0))


def test_asked_for_is_who_is_ahead_on_its_axis_in_nine_of_ten_draws():
    # P1A is ahead of P1B by two standard deviations, P2B of P2A by one, P3B of P3A by none.
    assert sharp([0.5, 0.2, 0.1, 0.2, 0.3, 0.3], [0.15 / 2**0.5] * 2 + [0.1 / 2**0.5] * 2 + [0.01] * 2) == ["P1A"]
    assert sharp([0.1, 0.3, 0.1, 0.3, 0.1, 0.3], [0.01] * 6) == ["P1B", "P2B", "P3B"]


def test_who_is_disliked_is_not_asked_for_though_ahead():
    assert sharp([-0.1, -0.5, 0.4, -0.1, 0.2, 0.0], [0.01] * 6) == ["P2A", "P3A"]


def test_who_is_alone_on_an_axis_has_to_be_ahead_of_an_even_spread():
    names = ["P1A", "P2A", "P3A"]
    assert sharp([0.5, 0.3, 0.35], [0.05, 0.01, 0.1], names) == ["P1A"]


def test_axes_come_in_their_order_whatever_the_preferences():
    assert sharp([0.4, 0.0, 0.5, 0.1], [0.01] * 4, ["P3D", "P3A", "P1B", "P1A"]) == ["P1B", "P3D"]
