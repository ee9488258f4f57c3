"""PPO for one LoRA policy against one reward model, on one backbone in memory.

Policy, reference, reward model and critic are the same frozen weights: with the policy's adapter, with none, with adapter
"reward" and its scalar head, and with a value head on the policy's hidden states. Dropout is off throughout, so
the policy that is trained is the one that sampled: ratio 1 and KL 0 at the start.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from peft import PeftModel
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rlphf.lm.adapters import POLICY, active, score_responses
from rlphf.lm.chat import decode_response
from rlphf.lm.sampling import Batch, hidden_states, join, sample
from rlphf.preferences import SELECTOR
from rlphf.seeds import derive
from rlphf.settings import PPO, Decoding
from rlphf.tracking.record import Run
from rlphf.train import ppo_terms as terms
from rlphf.train.checkpoint import newest_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint

# What a checkpoint's tensors are named after, besides the optimizer's.
PARTS = ("policy/", "value/", "best/")


@dataclass(frozen=True)
class Rollout:
    """A batch of sampled responses with all that an update needs; tensors are (B, T), `scores` and `finished` (B,).

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

    score: float
    policy: dict[str, Tensor]


class PPOTrainer:
    """Trains the policy of `model` on encoded prompts; `judged` are the forms in which the reward model is to see each prompt.

    A response's score is the mean over them: one for a policy of one preference, three for P-MORL. `selection` is such a
    pair of lists, of prompts that are not trained on: with `keep: best`, the checkpoint is kept whose answers to them score best,
    by the reward model, or by the one that is adapter "selector" with the scalar head `selector`.

    `model` holds a policy and adapter "reward" on a frozen backbone (`lm.adapters`), `reward_head` is the reward model's
    scalar head. Every outer step draws its random numbers from (seed, step), so a resumed run goes on as if undisturbed.
    """

    def __init__(
        self,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        reward_head: nn.Linear,
        prompts: Sequence[list[int]],
        judged: Sequence[Sequence[list[int]]],
        settings: PPO,
        seed: int,
        selection: tuple[Sequence[list[int]], Sequence[Sequence[list[int]]]] = ((), ()),
        selector: nn.Linear | None = None,
    ):
        self.model, self.tokenizer, self.reward_head = model, tokenizer, reward_head
        self.prompts, self.judged, self.settings, self.seed = prompts, judged, settings, seed
        self.selection, self.selector, self.best = selection, selector, Best(float("-inf"), {})
        model.eval()
        self.device = reward_head.weight.device
        self.value_head = nn.Linear(reward_head.in_features, 1, device=self.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        trained |= {f"value_head.{name}": p for name, p in self.value_head.named_parameters()}
        self.trained = trained
        self.optimizer = torch.optim.Adam(list(trained.values()), lr=settings.learning_rate)
        self.moments = terms.RunningMoments()
        self.kl = terms.KLController(settings.kl_coefficient, settings.kl_target, settings.kl_horizon, settings.kl_adaptive)

    def train(self, run: Run, folder: Path) -> int:
        """Train to the configured number of outer steps, from the newest checkpoint in `folder` on; return the steps done.

        Logs every outer step to `run`. Stops early when the KL to the backbone exceeds `max_kl`.
        """
        start = self.restore(folder)
        run.resume(start)
        if self.settings.keep == "best" and self.settings.max_kl is not None and not start:
            # There is always one policy within the budget.
            self.consider(run, None)
        done = max(start, self.settings.updates)
        for step in range(start, self.settings.updates):
            metrics, samples = self.update(step)
            run.log(metrics, step=step)
            if step % self.settings.sample_every == 0 or step == self.settings.updates - 1:
                run.log_samples(samples, step=step)
            over = self.settings.max_kl is not None and metrics["kl"] > self.settings.max_kl
            due = (step + 1) % self.settings.checkpoint_every == 0
            if self.settings.keep == "best" and (due or over or step == self.settings.updates - 1):
                self.consider(run, step)
            if over:
                # No checkpoint is written here: a run that goes on from it would not stop.
                done = step + 1
                break
            if due:
                self.checkpoint(folder, step + 1)
        if self.best.policy:
            set_peft_model_state_dict(self.model, self.best.policy, adapter_name=POLICY)
        return done

    def update(self, step: int) -> tuple[dict[str, float], list[dict[str, object]]]:
        """Do outer step `step`; return its metrics and four sample responses."""
        settings = self.settings
        seed = derive(self.seed, "update", step)
        # 1. Draw prompts: shuffled passes over all of them.
        drawn = self._draw(step)
        prompts = [self.prompts[i] for i in drawn]
        # 2. Sample responses from the policy as it is.
        limit = settings.max_new_tokens
        if settings.min_new_tokens is not None:
            limit = Random(seed).randint(settings.min_new_tokens, settings.max_new_tokens)
        decoding = Decoding(temperature=settings.temperature, max_new_tokens=limit, batch_size=settings.batch_size)
        with active(self.model, POLICY):
            eos, padding = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
            responses = sample(self.model, prompts, decoding, eos, padding, seed)
        # 3. Score them, and compute old log-probabilities, values, rewards and advantages.
        rollout = self.evaluate(prompts, responses, [self.judged[i] for i in drawn])
        # 4. Optimise on the batch.
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * min(1.0, (step + 1) / max(1, settings.warmup_updates))
        losses = self.optimise(rollout, seed)
        # 5. Move the weight of the KL penalty.
        metrics = self._metrics(rollout, losses)
        self.kl.update(metrics["kl"], len(prompts))
        return metrics, self._samples(prompts, responses, rollout)

    def consider(self, run: Run, step: int | None) -> None:
        """Note the policy if its answers to the prompts of the selection score best so far; every step draws alike.

        With `max_kl`, a policy whose answers exceed it is passed over. `step` is None before the first one.
        """
        settings = self.settings
        prompts, judged = self.selection
        decoding = Decoding(temperature=settings.temperature, max_new_tokens=settings.max_new_tokens, batch_size=len(prompts))
        eos, padding = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        with active(self.model, POLICY):
            responses = sample(self.model, prompts, decoding, eos, padding, derive(self.seed, "selection"))
        if self.selector is None:
            scores = self.score(judged, responses)
        else:
            scores = score_responses(self.model, self.selector, judged, responses, padding, SELECTOR)
        score, kl = float(scores.mean()), self.divergence(prompts, responses) if settings.max_kl is not None else 0.0
        known = {"score": score} | ({"kl": kl} if settings.max_kl is not None else {})
        kind = "start" if step is None else "selection"
        run.log({f"{kind}_{name}": value for name, value in known.items()}, step=step or 0)
        if score > self.best.score and (settings.max_kl is None or kl <= settings.max_kl):
            self.best = Best(score, {name: value.clone() for name, value in self._policy().items()})

    @torch.no_grad()
    def evaluate(
        self, prompts: Sequence[list[int]], responses: Sequence[list[int]], judged: Sequence[Sequence[list[int]]]
    ) -> Rollout:
        """Return the rollout of sampled responses: everything the update needs, under the policy as it is.

        The reward model scores each response as an answer to each of its prompts in `judged`.
        """
        settings = self.settings
        batch = join(prompts, responses, self.tokenizer.pad_token_id, self.device)
        hidden, _ = hidden_states(self.model, batch)
        logits = self._logits(hidden, batch)
        entropy = float(terms.entropy(logits).mean())
        logprobs, values = self._logprobs(logits, batch), self._values(hidden)
        reference = self._reference(batch)
        scores = self.score(judged, responses)
        finished = torch.tensor([r[-1] == self.tokenizer.eos_token_id for r in responses], device=self.device)
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

    def score(self, judged: Sequence[Sequence[list[int]]], responses: Sequence[list[int]]) -> Tensor:
        """Return the reward model's score (B,) of each response, the mean over its prompts in `judged`."""
        return score_responses(self.model, self.reward_head, judged, responses, self.tokenizer.pad_token_id)

    @torch.no_grad()
    def divergence(self, prompts: Sequence[list[int]], responses: Sequence[list[int]]) -> float:
        """Return the KL of the policy to the backbone on its own responses, in nats per response: the mean sum of log-ratios."""
        batch = join(prompts, responses, self.tokenizer.pad_token_id, self.device)
        own = self._logprobs(self._logits(hidden_states(self.model, batch)[0], batch), batch)
        return float(((own - self._reference(batch)) * batch.mask).sum(1).mean())

    def optimise(self, rollout: Rollout, seed: int) -> dict[str, float]:
        """Pass over the rollout in mini-batches; return the mean of the losses' parts and how many steps were taken."""
        settings = self.settings
        generator = torch.Generator().manual_seed(seed)
        size = len(rollout.scores)
        totals: dict[str, float] = {}
        steps = 0
        for _ in range(settings.inner_epochs):
            order = torch.randperm(size, generator=generator)
            for start in range(0, size, settings.mini_batch_size):
                parts = self.losses(rollout, order[start : start + settings.mini_batch_size].to(self.device))
                stop = settings.early_stop_kl is not None and float(parts["policy_kl"].detach()) > 1.5 * settings.early_stop_kl
                if stop:
                    return {**{k: v / max(1, steps) for k, v in totals.items()}, "optimizer_steps": steps, "stopped_early": 1.0}
                self.optimizer.zero_grad(set_to_none=True)
                (parts["policy_loss"] + settings.value_coefficient * parts["value_loss"]).backward()
                norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), settings.max_grad_norm or float("inf"))
                self.optimizer.step()
                steps += 1
                for name, value in {**parts, "grad_norm": norm}.items():
                    totals[name] = totals.get(name, 0.0) + float(value.detach())
        return {**{k: v / steps for k, v in totals.items()}, "optimizer_steps": steps, "stopped_early": 0.0}

    def losses(self, rollout: Rollout, index: Tensor) -> dict[str, Tensor]:
        """Return the parts of the loss on the rollout's rows `index`, scalars; two of them carry gradients."""
        settings = self.settings
        batch = rollout.batch.rows(index)
        width = batch.mask.shape[1]
        old, old_values = rollout.logprobs[index, :width], rollout.values[index, :width]
        hidden, _ = hidden_states(self.model, batch)
        new, values = self._logprobs(self._logits(hidden, batch), batch), self._values(hidden)
        policy, clipped = terms.policy_loss(new, old, rollout.advantages[index, :width], batch.mask, settings.clip)
        value = terms.value_loss(values, old_values, rollout.returns[index, :width], batch.mask, settings.value_clip)
        return {
            "policy_loss": policy,
            "value_loss": value,
            "clip_fraction": clipped,
            "policy_kl": terms.masked_mean(old - new, batch.mask),
        }

    def _logits(self, hidden: Tensor, batch: Batch) -> Tensor:
        """Return tempered logits (N, V) of the N response tokens alone: half of (B, T) is padding, and V is large."""
        logits = self.model.get_output_embeddings()(hidden[batch.mask.bool()]).float()
        return logits.div_(self.settings.temperature)

    def _logprobs(self, logits: Tensor, batch: Batch) -> Tensor:
        keep = batch.mask.bool()
        flat = terms.token_logprobs(logits, batch.responses[keep])
        return torch.zeros_like(batch.mask).masked_scatter(keep, flat)

    def _reference(self, batch: Batch) -> Tensor:
        """Return the log-probabilities (B, T) of the response tokens under the bare backbone."""
        with active(self.model, None):
            return self._logprobs(self._logits(hidden_states(self.model, batch)[0], batch), batch)

    def _values(self, hidden: Tensor) -> Tensor:
        return self.value_head(hidden.float()).squeeze(-1)

    def _draw(self, step: int) -> list[int]:
        size, total = self.settings.batch_size, len(self.prompts)
        chosen = []
        for position in range(step * size, (step + 1) * size):
            order = list(range(total))
            Random(derive(self.seed, "pass", position // total)).shuffle(order)
            chosen.append(order[position % total])
        return chosen

    def _metrics(self, rollout: Rollout, losses: dict[str, float]) -> dict[str, float]:
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

    def _samples(self, prompts: Sequence[list[int]], responses: Sequence[list[int]], rollout: Rollout) -> list[dict[str, object]]:
        return [
            {
                "prompt": str(self.tokenizer.decode(prompts[i], skip_special_tokens=True)).strip(),
                "response": decode_response(self.tokenizer, responses[i])[0],
                "score": float(rollout.scores[i]),
            }
            for i in range(min(4, len(prompts)))
        ]

    def checkpoint(self, folder: Path, step: int) -> None:
        """Write all that a resumed run needs: policy, value head, optimizer, moments of the scores, and kappa."""
        tensors = {f"policy/{k}": v for k, v in self._policy().items()}
        tensors |= {f"best/{k}": v for k, v in self.best.policy.items()}
        tensors |= {f"value/{k}": v for k, v in self.value_head.state_dict().items()}
        tensors |= optimizer_tensors(self.optimizer, list(self.trained))
        moments = {"mean": self.moments.mean, "variance": self.moments.variance, "count": self.moments.count}
        state = {"moments": moments, "kl_coefficient": self.kl.coefficient}
        save_checkpoint(folder, step, tensors, state | ({"best_score": self.best.score} if self.best.policy else {}))

    def restore(self, folder: Path) -> int:
        """Take up the newest checkpoint in `folder`; return the outer step to go on from, 0 without one."""
        found = newest_checkpoint(folder)
        if found is None:
            return 0
        tensors, state = found
        part = {name: {k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)} for name in PARTS}
        set_peft_model_state_dict(self.model, part["policy/"], adapter_name=POLICY)
        self.value_head.load_state_dict(part["value/"])
        if part["best/"]:
            self.best = Best(state["best_score"], part["best/"])
        restore_optimizer(self.optimizer, list(self.trained), tensors)
        self.moments = terms.RunningMoments(**state["moments"])
        self.kl.coefficient = state["kl_coefficient"]
        return state["step"]

    def _policy(self) -> dict[str, Tensor]:
        return get_peft_model_state_dict(self.model, adapter_name=POLICY)
