"""Percentile bootstrap over prompts, or over users and prompts: 95 % intervals of means and of ratios of sums."""

from collections.abc import Hashable, Sequence

import numpy as np

from rlphf.evaluate.scores import Floats
from rlphf.seeds import derive

COVERAGE = 0.95
# Number of sets of users and prompts whose resamples are kept: a table's populations recur in turn.
KEPT = 4


class Bootstrap:
    """Draws the same resamples for all quantities over equally many prompts (and users), so their intervals are comparable."""

    def __init__(self, seed: int, resamples: int):
        self.seed, self.resamples = seed, resamples
        self._counts: dict[tuple[str | int, ...], Floats] = {}
        self._shares: dict[Hashable, Floats] = {}

    def counts(self, n: int, *stream: str) -> Floats:
        """Return how often each of `n` prompts occurs in each resample, (resamples, n); each `stream` is drawn independently."""
        key: tuple[str | int, ...] = (*stream, n)
        if key not in self._counts:
            drawn = np.random.default_rng(derive(self.seed, "bootstrap", *key)).integers(n, size=(self.resamples, n))
            cells = drawn + n * np.arange(self.resamples)[:, None]
            counts = np.bincount(cells.ravel(), minlength=self.resamples * n).reshape(self.resamples, n)
            self._counts[key] = counts.astype(np.float64)
        return self._counts[key]

    def interval(self, values: Floats, weights: Floats | None = None) -> tuple[float, float]:
        """Return the 95 % interval of the mean of `values` (n,), one per prompt.

        With `weights` (n,), of sum(values) / sum(weights): where prompts have unequal numbers of pairs, values are
        sums over a prompt's pairs and weights their numbers. Resamples whose weights sum to 0 are left out.
        Source: Efron and Tibshirani 1993, percentile method.
        """
        means = self.draws(values, weights)
        return self.quantiles(means[~np.isnan(means)])

    def draws(self, values: Floats, weights: Floats | None = None, *stream: str) -> Floats:
        """Return the mean of `values` in each resample (resamples,), drawn for this `stream`; NaN where the weights sum to 0."""
        counts = self.counts(len(values), *stream)
        if weights is None:
            return counts @ values / len(values)
        totals = counts @ weights
        return np.divide(counts @ values, totals, out=np.full(self.resamples, np.nan), where=totals > 0)

    def crossed(self, values: Floats, users: Sequence[int], prompts: Sequence[str]) -> tuple[float, float]:
        """Return the 95 % interval of the mean of `values` (n,), each of a user and a prompt, where both are drawn.

        Users and prompts are drawn independently; a value's weight is how often its user was drawn times how often its prompt
        was. With a single user only prompts are drawn. The interval errs on the wide side: variance that neither the user nor the
        prompt explains counts up to three times. Source: Owen 2007, the pigeonhole bootstrap.
        """
        return self.quantiles(self.shares(users, prompts) @ values)

    def shares(self, users: Sequence[int], prompts: Sequence[str]) -> Floats:
        """Return the share (resamples, n) of each of n values in the mean of each resample of their users and prompts.

        A resample in which no drawn user meets a drawn prompt is left out.
        """
        key = (tuple(users), tuple(prompts))
        if key not in self._shares:
            who, what = (np.unique(names, return_inverse=True)[1] for names in (users, prompts))
            weights = self.counts(who.max() + 1, "users")[:, who]
            weights *= self.counts(what.max() + 1)[:, what]
            totals = weights.sum(axis=1, keepdims=True)
            if len(self._shares) == KEPT:
                del self._shares[next(iter(self._shares))]
            self._shares[key] = weights[totals[:, 0] > 0] / totals[totals > 0][:, None]
        return self._shares[key]

    @staticmethod
    def quantiles(means: Floats) -> tuple[float, float]:
        """Return the ends of the central 95 % of the resamples' means."""
        tail = (1 - COVERAGE) / 2
        low, high = np.quantile(means, (tail, 1 - tail))
        return clean(low), clean(high)


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
    return clean(values.mean())


def clean(value: np.floating) -> float:
    """Return a measured number to 12 places."""
    # The order of summation differs between machines; it must not show in a table's bytes.
    return round(float(value), 12)
