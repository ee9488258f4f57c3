import math

import numpy as np
import pytest

from rlphf.evaluate.bootstrap import Bootstrap, by_group, mean
from rlphf.seeds import derive


def percentile(values, share):
    """The plain definition with linear interpolation between neighbours."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def resampled(seed, resamples, values, statistic):
    """The plain loop: draw prompts with replacement, compute, repeat."""
    drawn = np.random.default_rng(derive(seed, "bootstrap", len(values))).integers(len(values), size=(resamples, len(values)))
    found = [statistic([values[i] for i in row]) for row in drawn]
    return percentile(found, 0.025), percentile(found, 0.975)


def test_interval_of_a_mean_equals_the_plain_loop():
    values = np.random.default_rng(1).normal(size=13)
    low, high = resampled(5, 300, list(values), lambda drawn: sum(drawn) / len(drawn))
    assert Bootstrap(5, 300).interval(values) == pytest.approx((low, high), abs=1e-9)


def test_interval_of_a_ratio_of_sums_equals_the_plain_loop():
    rng = np.random.default_rng(2)
    sizes = rng.integers(1, 6, size=11).astype(float)
    sums = sizes * rng.random(11)
    low, high = resampled(5, 300, list(zip(sums, sizes, strict=True)), lambda d: sum(s for s, _ in d) / sum(n for _, n in d))
    assert Bootstrap(5, 300).interval(sums, sizes) == pytest.approx((low, high), abs=1e-9)


def test_intervals_cover_the_true_mean_about_95_times_in_100():
    rng = np.random.default_rng(3)
    hits = 0
    for dataset in range(300):
        low, high = Bootstrap(dataset, 400).interval(rng.exponential(size=60))
        hits += low <= 1 <= high
    assert 0.89 <= hits / 300 <= 0.985


def test_intervals_narrow_with_the_root_of_the_number_of_prompts():
    rng = np.random.default_rng(4)
    few, many = (np.subtract(*Bootstrap(1, 1000).interval(rng.normal(size=n))[::-1]) for n in (50, 5000))
    assert few / many == pytest.approx(10, rel=0.35)


def test_interval_of_a_constant_is_the_constant():
    assert Bootstrap(1, 50).interval(np.full(7, 0.3)) == (0.3, 0.3)


def test_seed_decides_the_resamples():
    values = np.random.default_rng(5).normal(size=20)
    assert Bootstrap(1, 100).interval(values) == Bootstrap(1, 100).interval(values)
    assert Bootstrap(1, 100).interval(values) != Bootstrap(2, 100).interval(values)


def test_copies_of_a_pair_add_no_certainty_when_prompts_are_drawn():
    right = np.random.default_rng(6).integers(0, 2, size=30).astype(float)
    copied, prompts = np.repeat(right, 5), np.repeat(np.arange(30), 5)
    assert Bootstrap(1, 500).interval(*by_group(copied, list(prompts))) == Bootstrap(1, 500).interval(right)


def table(users, prompts, seed=8):
    """A value for every user and prompt, and what each is of."""
    values = np.random.default_rng(seed).normal(size=(users, prompts))
    return values, np.repeat(np.arange(users), prompts).tolist(), [f"q{j:02d}" for j in range(prompts)] * users


def test_interval_over_users_and_prompts_equals_the_plain_loop():
    # Cells of unequal number, some without any; in some resamples nothing meets.
    rows = [(1, "b", 0.5), (1, "b", 1.0), (1, "a", 0.0), (4, "c", 1.0), (4, "a", 0.25), (7, "c", 0.75), (7, "c", 0.0)]
    draws = {}
    for name, known, stream in (("users", [1, 4, 7], ("users",)), ("prompts", ["a", "b", "c"], ())):
        rng = np.random.default_rng(derive(5, "bootstrap", *stream, 3))
        draws[name] = [[known[i] for i in row] for row in rng.integers(3, size=(300, 3))]
    means = []
    for users, prompts in zip(draws["users"], draws["prompts"], strict=True):
        drawn = [value for u in users for p in prompts for user, prompt, value in rows if (user, prompt) == (u, p)]
        means += [sum(drawn) / len(drawn)] if drawn else []
    assert 200 < len(means) < 300
    users, prompts, values = zip(*rows, strict=True)
    expected = percentile(means, 0.025), percentile(means, 0.975)
    assert Bootstrap(5, 300).crossed(np.array(values), users, prompts) == pytest.approx(expected, abs=1e-9)


def test_users_who_differ_make_the_interval_wider_than_prompts_alone():
    values, users, prompts = table(5, 40)
    values += np.array([-2, -1, 0, 1, 2])[:, None]
    width = np.subtract(*Bootstrap(1, 500).crossed(values.ravel(), users, prompts)[::-1])
    alone = np.subtract(*Bootstrap(1, 500).interval(values.mean(0))[::-1])
    # Of five users with a standard deviation of 1.4 a mean is known to 1.96 * 1.4 / sqrt(5) in each direction.
    assert alone < 0.5 and width == pytest.approx(2 * 1.96 * 2**0.5 / 5**0.5, rel=0.15)


def test_one_user_alone_is_drawn_over_prompts_alone():
    values, users, prompts = table(1, 12)
    assert Bootstrap(1, 300).crossed(values[0], users, prompts) == Bootstrap(1, 300).interval(values[0])


def test_users_and_prompts_are_drawn_apart():
    bootstrap = Bootstrap(1, 100)
    assert not np.array_equal(bootstrap.counts(9), bootstrap.counts(9, "users"))


def test_interval_over_users_does_not_depend_on_the_order_of_values_or_on_what_was_asked_before():
    values, users, prompts = table(3, 8)
    once = Bootstrap(1, 200).crossed(values.ravel(), users, prompts)
    used = Bootstrap(1, 200)
    for n in range(1, 8):
        used.crossed(*(found[::-1] for found in (values[:, :n].ravel(), users[: 3 * n], prompts[: 3 * n])))
    assert used.crossed(values.ravel()[::-1], users[::-1], prompts[::-1]) == once


def test_groups_are_summed_and_counted_in_order_of_appearance():
    sums, sizes = by_group(np.array([1.0, 2.0, 4.0]), ["b", "a", "b"])
    assert (list(sums), list(sizes)) == ([5.0, 2.0], [2.0, 1.0])


def test_order_of_summation_does_not_show_in_a_mean():
    values = np.random.default_rng(7).random(1000)
    assert mean(values) == mean(values[::-1])
