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


def test_groups_are_summed_and_counted_in_order_of_appearance():
    sums, sizes = by_group(np.array([1.0, 2.0, 4.0]), ["b", "a", "b"])
    assert (list(sums), list(sizes)) == ([5.0, 2.0], [2.0, 1.0])


def test_order_of_summation_does_not_show_in_a_mean():
    values = np.random.default_rng(7).random(1000)
    assert mean(values) == mean(values[::-1])
