"""Percentile bootstrap over prompts: 95 % intervals of means and of ratios of sums."""

from collections.abc import Hashable, Sequence

import numpy as np

from rlphf.evaluate.scores import Floats
from rlphf.seeds import derive

COVERAGE = 0.95


class Bootstrap:
    """Draws the same resamples for all quantities over equally many prompts, so their intervals are comparable."""

    def __init__(self, seed: int, resamples: int):
        self.seed, self.resamples = seed, resamples
        self._counts: dict[int, Floats] = {}

    def counts(self, n: int) -> Floats:
        """Return how often each of `n` prompts occurs in each resample, (resamples, n)."""
        if n not in self._counts:
            drawn = np.random.default_rng(derive(self.seed, "bootstrap", n)).integers(n, size=(self.resamples, n))
            cells = drawn + n * np.arange(self.resamples)[:, None]
            counts = np.bincount(cells.ravel(), minlength=self.resamples * n).reshape(self.resamples, n)
            self._counts[n] = counts.astype(np.float64)
        return self._counts[n]

    def interval(self, values: Floats, weights: Floats | None = None) -> tuple[float, float]:
        """Return the 95 % interval of the mean of `values` (n,), one per prompt.

        With `weights` (n,), of sum(values) / sum(weights): for prompts of unequal numbers of pairs, values are sums
        over a prompt's pairs and weights say how many these are. A resample of no weight at all is left out.
        Source: Efron and Tibshirani 1993, percentile method.
        """
        means = self.draws(values, weights)
        return self.quantiles(means[~np.isnan(means)])

    def draws(self, values: Floats, weights: Floats | None = None) -> Floats:
        """Return the mean of `values` in each resample (resamples,); NaN in one of no weight at all."""
        counts = self.counts(len(values))
        if weights is None:
            return counts @ values / len(values)
        totals = counts @ weights
        return np.divide(counts @ values, totals, out=np.full(self.resamples, np.nan), where=totals > 0)

    @staticmethod
    def quantiles(means: Floats) -> tuple[float, float]:
        """Return the ends of the central 95 % of the resamples' means."""
        tail = (1 - COVERAGE) / 2
        low, high = np.quantile(means, (tail, 1 - tail))
        return _clean(low), _clean(high)


def by_group(values: Floats, keys: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """Return (sums, sizes) of `values` (n,) within the groups that `keys` name, for intervals over groups."""
    index = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    groups = np.array([index[key] for key in keys])
    sums, sizes = np.zeros((2, len(index)))
    np.add.at(sums, groups, values)
    np.add.at(sizes, groups, 1)
    return sums, sizes


def mean(values: Floats) -> float:
    """Return the mean of `values`."""
    return _clean(values.mean())


def _clean(value: np.floating) -> float:
    # The order of summation differs between machines; it must not show in a table's bytes.
    return round(float(value), 12)
