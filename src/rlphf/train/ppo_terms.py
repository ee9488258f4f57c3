"""The formulas of PPO for language models, as pure functions; no model and no loop is in here.

Tensors are (B, T), where nothing else is said: B responses, T positions of response tokens. `mask` is 1 where a token belongs
to the response (its end token included) and 0 on padding, which lies to the right.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# Deviations of scores up to it are rounding.
EPSILON = 1e-8


def masked_mean(values: Tensor, mask: Tensor, count: Tensor | None = None) -> Tensor:
    """Return the mean over the positions where `mask` is 1, a scalar.

    With `count` it is this part's share in a mean over so many positions: shares of the parts of a batch add up to its mean.
    """
    return (values * mask).sum() / (mask.sum() if count is None else count)


def masked_whiten(values: Tensor, mask: Tensor) -> Tensor:
    """Return values shifted and scaled to mean 0 and (unbiased) variance 1 over the masked positions; 0 elsewhere."""
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean) ** 2, mask)
    count = mask.sum()
    variance = variance * count / (count - 1).clamp(min=1)
    return (values - mean) * torch.rsqrt(variance + 1e-8) * mask


def token_rewards(scores: Tensor, logprobs: Tensor, reference: Tensor, mask: Tensor, kl_coefficient: float) -> Tensor:
    """Return r_t = -kappa (log pi - log pi_0)(y_t) + 1[t = T] s, (B, T).

    `scores` (B,) go to the last token of each response: its end token, or the last one before the length limit.
    Source: Ziegler et al. 2019, section 2; Personalized Soups as released.
    """
    rewards = -kl_coefficient * (logprobs - reference) * mask
    last = mask.sum(1).long() - 1
    rewards[torch.arange(len(scores), device=scores.device), last] += scores
    return rewards


def advantages_and_returns(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Return generalised advantage estimates and returns (B, T), 0 on padding.

    A_t = sum_k (gamma lam)^k delta_{t+k} with delta_t = r_t + gamma V_{t+1} - V_t, and V = 0 after the last token.
    Source: Schulman et al. 2016, equation 16.
    """
    values = values * mask
    following = torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], 1)
    deltas = (rewards + gamma * following - values) * mask
    advantage = torch.zeros_like(deltas[:, 0])
    reversed_advantages = []
    for t in range(rewards.shape[1] - 1, -1, -1):
        advantage = deltas[:, t] + gamma * lam * advantage
        reversed_advantages.append(advantage)
    advantages = torch.stack(reversed_advantages[::-1], 1) * mask
    return advantages, (advantages + values) * mask


def policy_loss(
    new: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, clip: float, count: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the clipped surrogate loss and the share of tokens at which the clip binds, scalars (`count` as in `masked_mean`).

    Source: Schulman et al. 2017, equation 7, negated.
    """
    ratio = torch.exp((new - old) * mask)
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + clip)
    return masked_mean(torch.maximum(plain, clipped), mask, count), masked_mean((clipped > plain).float(), mask, count)


def value_loss(new: Tensor, old: Tensor, returns: Tensor, mask: Tensor, clip: float, count: Tensor | None = None) -> Tensor:
    """Return half the larger of the squared errors of the value and of the value kept within `clip` of the old one.

    Source: Personalized Soups as released; `count` as in `masked_mean`.
    """
    kept = torch.maximum(torch.minimum(new, old + clip), old - clip)
    return 0.5 * masked_mean(torch.maximum((new - returns) ** 2, (kept - returns) ** 2), mask, count)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """Return 1 - Var(returns - values) / Var(returns) over the masked positions; 0 when the returns are constant."""
    keep = mask.bool()
    spread = returns[keep].var(unbiased=False)
    if spread == 0:
        return 0.0
    return float(1 - (returns[keep] - values[keep]).var(unbiased=False) / spread)


@dataclass
class RunningMoments:
    """Mean and standard deviation of all scores seen so far (Chan et al.'s parallel update)."""

    mean: float = 0.0
    variance: float = 1.0
    count: float = 1e-24

    def update(self, scores: Tensor) -> None:
        """Take in a batch of scores (B,)."""
        size = scores.numel()
        new_mean, new_variance = float(scores.double().mean()), float(scores.double().var(unbiased=False))
        shift, total = new_mean - self.mean, self.count + size
        squares = self.variance * self.count + new_variance * size + shift**2 * self.count * size / total
        self.mean, self.variance, self.count = self.mean + shift * size / total, squares / total, total

    @property
    def std(self) -> float:
        """The unbiased standard deviation."""
        return (self.variance * self.count / max(self.count - 1, 1e-8)) ** 0.5 if self.count > 1 else self.variance**0.5


def scale_scores(scores: Tensor, moments: RunningMoments, norm: bool, clip: float | None) -> Tensor:
    """Return scores (B,) divided by their running deviation, after subtracting the running mean if `norm`, clipped.

    While all scores are equal, up to rounding in double precision, they are divided by 1. Source: Personalized Soups as released
    (`use_score_scaling`, `use_score_norm`).
    """
    deviation = moments.std + EPSILON if moments.std > EPSILON else 1.0
    scaled = (scores - moments.mean if norm else scores) / deviation
    return scaled if clip is None else scaled.clamp(-clip, clip)


@dataclass
class KLController:
    """The weight kappa of the KL penalty. Source: Ziegler et al. 2019, section 2.2."""

    coefficient: float
    target: float
    horizon: int
    adaptive: bool = True

    def update(self, kl: float, samples: int) -> None:
        """Move kappa after `samples` responses of mean KL `kl` (nats): kappa (1 + clip(kl/target - 1, +-0.2) samples/horizon)."""
        if self.adaptive:
            error = min(max(kl / self.target - 1, -0.2), 0.2)
            self.coefficient *= 1 + error * samples / self.horizon
