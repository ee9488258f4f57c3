"""One policy while PPO trains it: its task, critic and optimizer, and the losses on its own rows of a batch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from rlphf.errors import InputError
from rlphf.lm.batches import Batch
from rlphf.seeds import derive
from rlphf.settings import PPO
from rlphf.train import ppo_terms as terms
from rlphf.train.checkpoint import optimizer_tensors, restore_optimizer

# Prefixes of the names of a checkpoint's tensors, besides the optimizer's.
PARTS = ("policy/", "value/", "best/")


@dataclass(frozen=True)
class Task:
    """What a policy is to learn: encoded `prompts`, and in `judged` the forms in which the reward model is to see each of them.

    A response's score is the mean over its prompt's forms: one for a policy of one preference, three for P-MORL. `selection` is
    such a pair of lists, of prompts that are not trained on, for `keep: best`. Every outer step draws its random numbers from
    (`seed`, step), so a resumed run goes on as if undisturbed.
    """

    prompts: Sequence[list[int]]
    judged: Sequence[Sequence[list[int]]]
    seed: int
    selection: tuple[Sequence[list[int]], Sequence[Sequence[list[int]]]] = ((), ())


@dataclass(frozen=True)
class Rollout:
    """A policy's sampled responses with all that an update needs; tensors are (B, T), `scores` and `finished` (B,).

    `entropy` is the mean over response tokens of the sampling policy's, in nats.
    """

    batch: Batch
    logprobs: Tensor
    reference: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    scores: Tensor
    finished: Tensor
    entropy: float


@dataclass(frozen=True)
class Best:
    """The policy that scored best on the prompts of the selection, and its score; empty before the first one."""

    score: float = float("-inf")
    policy: dict[str, Tensor] = field(default_factory=dict)


class Learner:
    """A policy in training: `policy` are its factors, by PEFT's names, on a backbone of hidden size `width`."""

    def __init__(self, task: Task, policy: Mapping[str, nn.Parameter], width: int, settings: PPO):
        self.task, self.policy, self.settings = task, policy, settings
        device = next(iter(policy.values())).device
        self.value_head = nn.Linear(width, 1, device=device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.trained = {**policy, **{f"value_head.{name}": p for name, p in self.value_head.named_parameters()}}
        self.optimizer = torch.optim.Adam(list(self.trained.values()), lr=settings.learning_rate)
        self.moments = terms.RunningMoments()
        self.kl = terms.KLController(settings.kl_coefficient, settings.kl_target, settings.kl_horizon, settings.kl_adaptive)
        self.best = Best()
        # The outer steps that were done when it stopped early.
        self.stopped: int | None = None

    def draw(self, step: int) -> list[int]:
        """Return the numbers of the prompts of outer step `step`: shuffled passes over all of them."""
        size, total = self.settings.batch_size, len(self.task.prompts)
        first, last = step * size // total, ((step + 1) * size - 1) // total
        drawn: list[int] = []
        for number in range(first, last + 1):
            order = list(range(total))
            Random(derive(self.task.seed, "pass", number)).shuffle(order)
            drawn += order
        start = step * size - first * total
        return drawn[start : start + size]

    def values(self, hidden: Tensor) -> Tensor:
        """Return the critic's values (B, T) of the hidden states (B, T, H) of its policy."""
        return self.value_head(hidden.float()).squeeze(-1)

    @torch.no_grad()
    def rollout(
        self,
        batch: Batch,
        hidden: Tensor,
        logprobs: Tensor,
        reference: Tensor,
        scores: Tensor,
        finished: Tensor,
        entropy: float,
    ) -> Rollout:
        """Return the rollout of responses with hidden states (B, T, H): rewards, values, advantages; moves the moments."""
        settings = self.settings
        values = self.values(hidden)
        if settings.missing_eos_penalty is not None:
            scores = torch.where(finished, scores, torch.full_like(scores, settings.missing_eos_penalty))
        scaled = scores
        if settings.score_scaling:
            self.moments.update(scores)
            scaled = terms.scale_scores(scores, self.moments, settings.score_norm, settings.score_clip)
        rewards = terms.token_rewards(scaled, logprobs, reference, batch.mask, self.kl.coefficient)
        advantages, returns = terms.advantages_and_returns(rewards, values, batch.mask, settings.gamma, settings.lam)
        if settings.whiten_advantages:
            advantages = terms.masked_whiten(advantages, batch.mask)
        return Rollout(batch, logprobs, reference, values, advantages, returns, scores, finished, entropy)

    def losses(self, rollout: Rollout, index: Tensor, hidden: Tensor, logprobs: Tensor, count: Tensor) -> dict[str, Tensor]:
        """Return the parts of the loss on the rollout's rows `index` (b,), scalars; two of them carry gradients.

        `hidden` (b, T, H) and `logprobs` (b, T) are computed under the current policy; T may differ from the rollout's, because
        rows of several policies share a batch. `count` is the number of tokens of the mini-batch: over its micro-batches the
        parts add up.
        """
        settings = self.settings
        width = min(logprobs.shape[1], rollout.logprobs.shape[1])
        new, values = logprobs[:, :width], self.values(hidden[:, :width])
        old, old_values, mask = (part[index, :width] for part in (rollout.logprobs, rollout.values, rollout.batch.mask))
        advantages, returns = rollout.advantages[index, :width], rollout.returns[index, :width]
        policy, clipped = terms.policy_loss(new, old, advantages, mask, settings.clip, count)
        return {
            "policy_loss": policy,
            "value_loss": terms.value_loss(values, old_values, returns, mask, settings.value_clip, count),
            "clip_fraction": clipped,
            "policy_kl": terms.masked_mean(old - new, mask, count),
        }

    def start(self, step: int) -> None:
        """Set the learning rate of outer step `step`."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * min(1.0, (step + 1) / max(1, self.settings.warmup_updates))

    def descend(self) -> float:
        """Take an optimizer step down the gradients; return their norm before clipping.

        Raises InputError where it is no finite number: every later update would be lost.
        """
        norm = float(nn.utils.clip_grad_norm_(self.trained.values(), self.settings.max_grad_norm or float("inf")))
        if not math.isfinite(norm):
            raise InputError("the policy's gradients are no finite numbers any more; lower ppo.learning_rate, or clip them lower")
        self.optimizer.step()
        return norm

    def metrics(self, rollout: Rollout, losses: dict[str, float]) -> dict[str, float]:
        """Return the metrics of an update."""
        mask = rollout.batch.mask
        return {
            "score": float(rollout.scores.mean()),
            "score_std": float(rollout.scores.std(unbiased=False)),
            "kl": float(((rollout.logprobs - rollout.reference) * mask).sum(1).mean()),
            "kl_coefficient": self.kl.coefficient,
            "length": float(mask.sum(1).mean()),
            "finished": float(rollout.finished.float().mean()),
            "entropy": rollout.entropy,
            "explained_variance": terms.explained_variance(rollout.values, rollout.returns, mask),
            **losses,
        }

    def consider(self, score: float) -> None:
        """Note the policy as it is, if it scores best so far."""
        if score > self.best.score:
            self.best = Best(score, {name: value.detach().clone() for name, value in self.policy.items()})

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that a resumed run needs: policy, best policy, value head, optimizer."""
        found = {f"policy/{name}": value.detach() for name, value in self.policy.items()}
        found |= {f"best/{name}": value for name, value in self.best.policy.items()}
        found |= {f"value/{name}": value for name, value in self.value_head.state_dict().items()}
        return found | optimizer_tensors(self.optimizer, list(self.trained))

    def state(self) -> dict[str, Any]:
        """Return the rest of what a resumed run needs: moments of the scores, kappa, the step it stopped at, the best score."""
        moments = {"mean": self.moments.mean, "variance": self.moments.variance, "count": self.moments.count}
        found: dict[str, Any] = {"moments": moments, "kl_coefficient": self.kl.coefficient, "stopped": self.stopped}
        return found | ({"best_score": self.best.score} if self.best.policy else {})

    def restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Restore what `tensors` and `state` returned."""
        part = {name: {k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)} for name in PARTS}
        self.take(part["policy/"])
        self.value_head.load_state_dict(part["value/"])
        if part["best/"]:
            self.best = Best(state["best_score"], part["best/"])
        restore_optimizer(self.optimizer, list(self.trained), dict(tensors))
        self.moments = terms.RunningMoments(**state["moments"])
        self.kl.coefficient, self.stopped = state["kl_coefficient"], state["stopped"]

    @torch.no_grad()
    def take(self, policy: Mapping[str, Tensor]) -> None:
        """Make `policy` the policy."""
        for name, parameter in self.policy.items():
            parameter.copy_(policy[name])
