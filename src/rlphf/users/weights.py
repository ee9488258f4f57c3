"""What a person weighs, inferred from pairs that the person chose between, with how sure that is. No model is in here.

P(chosen over rejected) = s(sum_p w_p d_p), where d_p is the reward model of preference p's score of the chosen response less
that of the rejected one. Each reward model was trained by Bradley-Terry on choices by its own preference, so d_p is in the
units of such a choice: who decides by P1A alone has w = 1 for P1A, and who weighs preferences by shares that sum to 1 has these
shares as w.

The prior knows no preference from another: w_p ~ N(1/P, sd^2), each by itself. Choices say nothing of what they do not differ in;
there the prior stays. Source: ours, Laplace's approximation of a Bayesian logistic regression (Bishop 2006, section 4.5).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from rlphf.errors import InputError
from rlphf.preferences import AXES, preference
from rlphf.seeds import derive

Floats = NDArray[np.float64]
# Draws behind a share: the error that they leave in it is below 0.005.
DRAWS = 10_000
COVERAGE = 0.95
# A preference is asked for when this share of the draws has it ahead of its rivals.
SURE = 0.9
# A preference with less than this share is left out of the recipe.
LEAST = 0.01
# Differences are taken as at most this large: odds of e^1000. Beyond, rounding keeps the search for the mode from its end.
LARGEST = 1e3


@dataclass(frozen=True)
class Posterior:
    """What is known of the weights of `preferences`: N(mean (P,), covariance (P, P))."""

    preferences: tuple[str, ...]
    mean: Floats
    covariance: Floats

    @property
    def sd(self) -> Floats:
        """Standard deviation of each weight (P,)."""
        return np.sqrt(np.diag(self.covariance))

    def draws(self, count: int, seed: int) -> Floats:
        """Return weights (count, P), drawn by `seed`.

        Each preference has a stream of its own and the covariance's root is the symmetric one, so the order of the preferences
        does not matter.
        """
        values, vectors = np.linalg.eigh(self.covariance)
        root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
        streams = [np.random.default_rng(derive(seed, "weights", name)) for name in self.preferences]
        return self.mean + np.stack([stream.standard_normal(count) for stream in streams], axis=1) @ root


def loss(weights: Floats, differences: Floats, sd: float) -> float:
    """Return -log of the posterior density of weights (P,) but a constant: sum_i log(1 + exp(-d_i w)) + |w - 1/P|^2 / 2 sd^2."""
    off = weights - 1 / len(weights)
    return float(np.logaddexp(0, -(differences @ weights)).sum() + off @ off / (2 * sd**2))


def gradient(weights: Floats, differences: Floats, sd: float) -> Floats:
    """Return the gradient (P,) of `loss`: -sum_i s(-d_i w) d_i + (w - 1/P) / sd^2."""
    return -(expit(-(differences @ weights)) @ differences) + (weights - 1 / len(weights)) / sd**2


def hessian(weights: Floats, differences: Floats, sd: float) -> Floats:
    """Return the Hessian (P, P) of `loss`: sum_i s(d_i w) s(-d_i w) d_i d_i^T + 1 / sd^2; positive definite everywhere."""
    logits = differences @ weights
    scaled = np.sqrt(expit(logits) * expit(-logits))[:, None] * differences
    return scaled.T @ scaled + np.eye(len(weights)) / sd**2


def fit(differences: Floats, preferences: Sequence[str], sd: float) -> Posterior:
    """Return the posterior after choices with `differences` (n, P), one column per preference; without choices it is the prior.

    Its mean is the mode (MAP), its covariance the inverse Hessian there. Raises InputError for differences that are no numbers.
    """
    count = len(preferences)
    differences = np.asarray(differences, dtype=np.float64).reshape(-1, count)
    if not np.isfinite(differences).all():
        row, column = np.argwhere(~np.isfinite(differences))[0]
        raise InputError(f"pair {row + 1}: its scores by {preferences[column]} are no numbers; train that reward model again")
    differences = differences.clip(-LARGEST, LARGEST)
    even = np.full(count, 1 / count)
    if not len(differences):
        return Posterior(tuple(preferences), even, np.eye(count) * sd**2)
    found = minimize(loss, even, (differences, sd), method="trust-exact", jac=gradient, hess=hessian, options={"gtol": 1e-6})
    covariance = np.linalg.inv(hessian(found.x, differences, sd))
    return Posterior(tuple(preferences), found.x, (covariance + covariance.T) / 2)


def shares(weights: Floats) -> Floats:
    """Return what weights (D, P) are as shares: max(w, 0) / sum max(w, 0), and 1/P each where none is positive."""
    positive = weights.clip(min=0)
    total = positive.sum(axis=1, keepdims=True)
    return np.divide(positive, total, out=np.full_like(positive, 1 / weights.shape[1]), where=total > 0)


def intervals(values: Floats) -> tuple[Floats, Floats]:
    """Return both ends (P,) of the central 95 % of draws (D, P)."""
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(values, (tail, 1 - tail), axis=0)
    return low, high


def described(posterior: Posterior, draws: Floats) -> dict[str, dict[str, float]]:
    """Return {preference: {mean, sd, share, ci_low, ci_high}}: of the weight, and of the share in `draws` (D, P) of weights."""
    each = shares(draws)
    low, high = intervals(each)
    columns = {"mean": posterior.mean, "sd": posterior.sd, "share": each.mean(axis=0), "ci_low": low, "ci_high": high}
    return {name: {key: float(values[i]) for key, values in columns.items()} for i, name in enumerate(posterior.preferences)}


def recipe_weights(posterior: Posterior, draws: Floats) -> dict[str, float]:
    """Return {preference: weight} of the person's soup: mean shares in `draws` (D, P), small ones left out; they sum to 1."""
    mean = shares(draws).mean(axis=0)
    kept = {name: float(share) for name, share in zip(posterior.preferences, mean, strict=True) if share >= LEAST}
    return {name: share / sum(kept.values()) for name, share in kept.items()}


def asked(posterior: Posterior, draws: Floats) -> list[str]:
    """Return the preferences that the soup is to be asked for, at most one per axis, in the order of the axes.

    It is the preference of the largest mean weight of its axis, if that is positive, and if in at least 90 % of the `draws`
    (D, P) its weight is ahead of all others of its axis; one that is alone on its axis has to be ahead of an even spread's 1/P.
    The prior asks for none: before any choice, no preference is ahead of another more often than not.
    """
    names, mean = posterior.preferences, posterior.mean
    found = []
    for axis in AXES:
        members = [i for i, name in enumerate(names) if preference(name).axis == axis]
        if not members:
            continue
        best = max(members, key=lambda i: (mean[i], names[i]))
        rivals = [i for i in members if i != best]
        ahead = draws[:, best] > (draws[:, rivals].max(axis=1) if rivals else 1 / len(names))
        if mean[best] > 0 and ahead.mean() >= SURE:
            found.append(names[best])
    return found
