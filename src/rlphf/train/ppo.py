"""PPO for LoRA policies against reward models, on one backbone in memory.

Policy, reference, reward model and critic are the same frozen weights: with the policy's adapter, with none, with the reward
model's adapter and its scalar head, and with a value head on the policy's hidden states. Dropout is off throughout, so the policy
that is trained is the one that sampled: ratio 1 and KL 0 at the start.

Several policies may learn together: their rows share every batch, each through its own adapters, and what each learns is what it
would learn alone, but for rounding.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlphf.lm.backbone import sampled_in_float32
from rlphf.lm.batches import Batch, hidden_states, join
from rlphf.lm.chat import decode_response
from rlphf.lm.logprobs import logprobs_and_entropies, token_logprobs
from rlphf.lm.rewards import Rewards
from rlphf.lm.sampling import sample
from rlphf.lm.stack import Stack, one_each
from rlphf.progress import bar
from rlphf.seeds import derive
from rlphf.settings import PPO, Decoding
from rlphf.tracking.record import Run
from rlphf.train.checkpoint import check_room, newest_checkpoint, save_checkpoint
from rlphf.train.learner import Learner, Rollout, Task

Samples = list[dict[str, object]]
T = TypeVar("T")


class PPOTrainer:
    """Trains the adapters of `policies`, one for each of the `tasks`, against `rewards` of the same order: models or rules.

    `policies` and reward models lie on the frozen backbone `model`. All tasks have the same `settings`. With
    `keep: best` a policy keeps the checkpoint whose answers to its task's selection prompts score best, by its own reward
    or by the `selector`.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        policies: Stack,
        rewards: Rewards,
        tasks: Sequence[Task],
        settings: PPO,
        selector: Rewards | None = None,
    ):
        self.model, self.tokenizer, self.policies, self.rewards = model, tokenizer, policies, rewards
        self.settings, self.selector = settings, selector
        model.eval()
        self.device, self.head = model.device, model.get_output_embeddings()
        width = model.config.hidden_size
        self.learners = [Learner(task, policies.parameters(i), width, settings) for i, task in enumerate(tasks)]

    def train(self, runs: Sequence[Run], folder: Path) -> list[int]:
        """Train to the configured number of outer steps, from the newest checkpoint in `folder` on; return each policy's steps.

        Logs every outer step of a policy to its run. A policy stops early when its KL to the backbone exceeds `max_kl`.
        """
        check_room(folder, [parameter for learner in self.learners for parameter in learner.trained.values()])
        settings, start = self.settings, self.restore(folder)
        for run in runs:
            run.resume(start)
        if settings.keep == "best" and settings.max_kl is not None and not start:
            # There is always one policy within the budget.
            self.consider(range(len(runs)), runs, None)
        with bar(settings.updates, "updates", start) as done:
            for step in range(start, settings.updates):
                if not (going := [i for i, learner in enumerate(self.learners) if learner.stopped is None]):
                    break
                last = step == settings.updates - 1
                results = self.update(step, going)
                for i, (metrics, samples) in results.items():
                    runs[i].log(metrics, step=step)
                    if step % settings.sample_every == 0 or last:
                        runs[i].log_samples(samples, step=step)
                    if settings.max_kl is not None and metrics["kl"] > settings.max_kl:
                        self.learners[i].stopped = step + 1
                due = (step + 1) % settings.checkpoint_every == 0 or last
                if settings.keep == "best":
                    self.consider([i for i in going if due or self.learners[i].stopped], runs, step)
                if due or all(learner.stopped for learner in self.learners):
                    self.checkpoint(folder, step + 1)
                done(1)
        for learner in self.learners:
            if learner.best.policy:
                learner.take(learner.best.policy)
        return [learner.stopped or max(start, settings.updates) for learner in self.learners]

    def update(self, step: int, going: Sequence[int]) -> dict[int, tuple[dict[str, float], Samples]]:
        """Do outer step `step` of the policies `going`; return {policy: (its metrics, four sample responses)}."""
        settings = self.settings
        seeds = {i: derive(self.learners[i].task.seed, "update", step) for i in going}
        # 1. Draw prompts.
        drawn = {i: self.learners[i].draw(step) for i in going}
        prompts = {i: [self.learners[i].task.prompts[k] for k in drawn[i]] for i in going}
        # 2. Sample responses from the policies as they are.
        least, most = settings.min_new_tokens, settings.max_new_tokens
        limits = {i: Random(seed).randint(least, most) if least is not None else most for i, seed in seeds.items()}
        responses = self.respond(prompts, seeds, limits)
        # 3. Score them, and compute old log-probabilities, values, rewards and advantages.
        judged = {i: [self.learners[i].task.judged[k] for k in drawn[i]] for i in going}
        rollouts = self.evaluate(prompts, responses, judged)
        # 4. Optimise on the batch.
        for i in going:
            self.learners[i].start(step)
        losses = self.optimise(rollouts, seeds)
        # 5. Move the weights of the KL penalties.
        results = {}
        for i in going:
            metrics = self.learners[i].metrics(rollouts[i], losses[i])
            self.learners[i].kl.update(metrics["kl"], len(prompts[i]))
            results[i] = metrics, self._samples(prompts[i], responses[i], rollouts[i])
        return results

    def respond(
        self, prompts: Mapping[int, Sequence[list[int]]], seeds: Mapping[int, int], limits: Mapping[int, int]
    ) -> dict[int, list[list[int]]]:
        """Sample a response of at most `limits` tokens to each of the policies' `prompts`; all have equally many prompts.

        At most as many are sampled at once as a batch of training has.
        """
        asked, which = _together(prompts)
        longest, most = max(limits.values()), self.settings.batch_size * len(prompts)
        decoding = Decoding(temperature=self.settings.temperature, max_new_tokens=longest, batch_size=most)
        eos, padding = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        with sampled_in_float32(self.model):
            if len(self.policies) == 1 and self.model.dtype == torch.float32:
                with self.policies.merged(0):
                    sampled = sample(self.model, asked, decoding, eos, padding, list(seeds.values()))
            else:
                with self.policies.mixing(one_each(which, len(self.policies), self.device)) as select_rows:
                    sampled = sample(self.model, asked, decoding, eos, padding, list(seeds.values()), select_rows=select_rows)
        return {i: [row[: limits[i]] for row, owner in zip(sampled, which, strict=True) if owner == i] for i in prompts}

    @torch.no_grad()
    def evaluate(
        self,
        prompts: Mapping[int, Sequence[list[int]]],
        responses: Mapping[int, Sequence[list[int]]],
        judged: Mapping[int, Sequence[Sequence[list[int]]]],
    ) -> dict[int, Rollout]:
        """Return the rollouts of the policies' sampled responses: everything the update needs, under the policies as they are.

        Reward models score each response as an answer to each of its prompts in `judged`.
        """
        answers, which = _together(responses)
        batch = join(_together(prompts)[0], answers, self.tokenizer.pad_token_id, self.device)
        hidden = self._policy_states(batch, which)
        # The reference reads the very batches that the policies did: in bfloat16, others would round otherwise, and KL not be 0.
        reference, _ = hidden_states(self.model, batch)
        scores = self.score(_together(judged)[0], answers, which)
        finished = torch.tensor([row[-1] == self.tokenizer.eos_token_id for row in answers], device=self.device)
        rollouts = {}
        for i, index in _rows(which, self.device):
            own = batch.rows(index)
            width = own.mask.shape[1]
            (logprobs, entropy), (base, _) = (self._logprobs(states[index, :width], own) for states in (hidden, reference))
            rollouts[i] = self.learners[i].rollout(
                own, hidden[index, :width], logprobs, base, scores[index], finished[index], entropy
            )
        return rollouts

    def score(self, judged: Sequence[Sequence[list[int]]], responses: Sequence[list[int]], which: Sequence[int]) -> Tensor:
        """Return the reward (B,) of each response by its policy's own source `which[i]`."""
        return self.rewards.score(judged, responses, which, self.tokenizer.pad_token_id)

    def optimise(self, rollouts: Mapping[int, Rollout], seeds: Mapping[int, int]) -> dict[int, dict[str, float]]:
        """Pass over the rollouts in mini-batches; return the means of the losses' parts and how many steps were taken."""
        settings = self.settings
        generators = {i: torch.Generator().manual_seed(seed) for i, seed in seeds.items()}
        totals: dict[int, dict[str, float]] = {i: {} for i in rollouts}
        steps, early = dict.fromkeys(rollouts, 0), dict.fromkeys(rollouts, 0.0)
        for _ in range(settings.inner_epochs):
            if all(early.values()):
                break
            orders = {i: torch.randperm(len(rollouts[i].scores), generator=generators[i]) for i in rollouts}
            for start in range(0, settings.batch_size, settings.mini_batch_size):
                selected = {
                    i: o[start : start + settings.mini_batch_size].to(self.device) for i, o in orders.items() if not early[i]
                }
                for i, parts in self.gradients(rollouts, selected).items():
                    if settings.early_stop_kl is not None and parts["policy_kl"] > 1.5 * settings.early_stop_kl:
                        early[i] = 1.0
                        continue
                    parts["grad_norm"] = self.learners[i].descend()
                    steps[i] += 1
                    for name, value in parts.items():
                        totals[i][name] = totals[i].get(name, 0.0) + value
        return {
            i: {k: v / max(1, steps[i]) for k, v in totals[i].items()} | {"optimizer_steps": steps[i], "stopped_early": early[i]}
            for i in rollouts
        }

    def gradients(self, rollouts: Mapping[int, Rollout], selected: Mapping[int, Tensor]) -> dict[int, dict[str, float]]:
        """Set the gradients of the policies' losses on the rows `selected` of their rollouts; return the parts of the losses."""
        totals: dict[int, dict[str, float]] = {i: {} for i in selected}
        if not selected:
            return totals
        counts = {i: rollouts[i].batch.mask[index].sum() for i, index in selected.items()}
        for i in selected:
            self.learners[i].optimizer.zero_grad(set_to_none=True)
        for micro in self._micro_batches(rollouts, selected):
            loss = torch.zeros((), device=self.device)
            for i, parts in self.losses(rollouts, micro, counts).items():
                loss = loss + parts["policy_loss"] + self.settings.value_coefficient * parts["value_loss"]
                for name, value in parts.items():
                    totals[i][name] = totals[i].get(name, 0.0) + float(value.detach())
            loss.backward()
        return totals

    def losses(
        self, rollouts: Mapping[int, Rollout], selected: Mapping[int, Tensor], counts: Mapping[int, Tensor]
    ) -> dict[int, dict[str, Tensor]]:
        """Return the parts of the losses on the rows `selected` of the rollouts, in one forward pass.

        `counts` are the numbers of tokens of the mini-batches.
        """
        which = [i for i, index in selected.items() for _ in index]
        batch = Batch.of([rollouts[i].batch.rows(index) for i, index in selected.items()], self.tokenizer.pad_token_id)
        hidden = self._policy_states(batch, which)
        keep = batch.mask.bool()
        flat = token_logprobs(self.head, hidden[keep], batch.responses[keep], self.settings.temperature)
        logprobs = torch.zeros_like(batch.mask).masked_scatter(keep, flat)
        return {
            i: self.learners[i].losses(rollouts[i], selected[i], hidden[index], logprobs[index], counts[i])
            for i, index in _rows(which, self.device)
        }

    def consider(self, considered: Sequence[int], runs: Sequence[Run], step: int | None) -> None:
        """Score policies' answers to their selection prompts, with the same random numbers at every step; each notes its best.

        In parts of the size of a batch, so that it needs no more memory than training does. With `max_kl`, a policy whose answers
        exceed it is passed over. `step` is None before the first one.
        """
        if not considered:
            return
        prompts = {i: self.learners[i].task.selection[0] for i in considered}
        judged = {i: self.learners[i].task.selection[1] for i in considered}
        seeds = {i: derive(self.learners[i].task.seed, "selection") for i in considered}
        responses = self.respond(prompts, seeds, dict.fromkeys(considered, self.settings.max_new_tokens))
        limit, size = self.settings.max_kl, self.settings.batch_size
        measured: dict[int, dict[str, list[Tensor]]] = {i: {} for i in considered}
        for start in range(0, max(map(len, responses.values())), size):
            asked, given = _part(prompts, start, size), _part(responses, start, size)
            forms, _ = _together(_part(judged, start, size))
            answers, which = _together(given)
            if self.selector is None:
                scores = self.score(forms, answers, which)
            else:
                scores = self.selector.score(forms, answers, [0] * len(answers), self.tokenizer.pad_token_id)
            parts = {"score": scores} | ({} if limit is None else {"kl": self.log_ratios(asked, given)})
            for i, index in _rows(which, self.device):
                for name, values in parts.items():
                    measured[i].setdefault(name, []).append(values[index])
        kind = "start" if step is None else "selection"
        for i, own in measured.items():
            means = {name: float(torch.cat(values).mean()) for name, values in own.items()}
            runs[i].log({f"{kind}_{name}": mean for name, mean in means.items()}, step=step or 0)
            if limit is None or means["kl"] <= limit:
                self.learners[i].consider(means["score"])

    @torch.no_grad()
    def log_ratios(self, prompts: Mapping[int, Sequence[list[int]]], responses: Mapping[int, Sequence[list[int]]]) -> Tensor:
        """Return log pi(response) - log pi_ref(response) (B,) of policies' own responses; the mean estimates the KL, in nats."""
        answers, which = _together(responses)
        batch = join(_together(prompts)[0], answers, self.tokenizer.pad_token_id, self.device)
        own, _ = self._logprobs(self._policy_states(batch, which), batch)
        reference, _ = self._logprobs(hidden_states(self.model, batch)[0], batch)
        return ((own - reference) * batch.mask).sum(1)

    def checkpoint(self, folder: Path, step: int) -> None:
        """Write all that a resumed run needs of every policy."""
        tensors = {f"{i}/{name}": value for i, learner in enumerate(self.learners) for name, value in learner.tensors().items()}
        save_checkpoint(folder, step, tensors, {"policies": [learner.state() for learner in self.learners]})

    def restore(self, folder: Path) -> int:
        """Take up the newest checkpoint in `folder`; return the outer step to go on from, 0 without one."""
        saved = newest_checkpoint(folder)
        if saved is None:
            return 0
        tensors, state = saved
        for i, learner in enumerate(self.learners):
            own = {name.removeprefix(f"{i}/"): value for name, value in tensors.items() if name.startswith(f"{i}/")}
            learner.restore(own, state["policies"][i])
        return state["step"]

    def _policy_states(self, batch: Batch, which: Sequence[int]) -> Tensor:
        """Return the hidden states (B, T, H) that predict the responses of a batch whose row i is policy `which[i]`'s."""
        with self.policies.mixing(one_each(which, len(self.policies), self.device)) as select_rows:
            return hidden_states(self.model, batch, select_rows=select_rows)[0]

    def _logprobs(self, hidden: Tensor, batch: Batch) -> tuple[Tensor, float]:
        """Return the log-probabilities (B, T) of the response tokens that `hidden` (B, T, H) predicts, and the mean entropy."""
        keep = batch.mask.bool()
        logprobs, entropy = logprobs_and_entropies(self.head, hidden[keep], batch.responses[keep], self.settings.temperature)
        return torch.zeros_like(batch.mask).masked_scatter(keep, logprobs), float(entropy.mean())

    def _micro_batches(self, rollouts: Mapping[int, Rollout], selected: Mapping[int, Tensor]) -> Iterator[dict[int, Tensor]]:
        """Yield the rows `selected` in parts of at most `micro_batch_tokens` tokens with padding, or one row; or all at once."""
        budget = self.settings.micro_batch_tokens
        if budget is None:
            yield dict(selected)
            return
        lengths = {i: rollouts[i].batch.attention.sum(1).tolist() for i in selected}
        ordered = sorted((lengths[i][row], i, row) for i, index in selected.items() for row in index.tolist())
        part: dict[int, list[int]] = {}
        for length, i, row in ordered:
            if part and length * (sum(map(len, part.values())) + 1) > budget:
                yield {k: torch.tensor(rows, device=self.device) for k, rows in part.items()}
                part = {}
            part.setdefault(i, []).append(row)
        if part:
            yield {k: torch.tensor(rows, device=self.device) for k, rows in part.items()}

    def _samples(self, prompts: Sequence[list[int]], responses: Sequence[list[int]], rollout: Rollout) -> Samples:
        return [
            {
                "prompt": str(self.tokenizer.decode(prompts[i], skip_special_tokens=True)).strip(),
                "response": decode_response(self.tokenizer, responses[i])[0],
                "score": float(rollout.scores[i]),
            }
            for i in range(min(4, len(prompts)))
        ]


def _together(parts: Mapping[int, Sequence[T]]) -> tuple[list[T], list[int]]:
    """Return the items of all policies in `parts` as one list, and the policy of each item."""
    return [one for own in parts.values() for one in own], [i for i, own in parts.items() for _ in own]


def _part(parts: Mapping[int, Sequence[T]], start: int, size: int) -> dict[int, Sequence[T]]:
    """Return at most `size` items of each policy in `parts`, from `start` on."""
    return {i: own[start : start + size] for i, own in parts.items()}


def _rows(which: Sequence[int], device: torch.device) -> Iterator[tuple[int, Tensor]]:
    """Yield each policy with the indices of its rows; row i belongs to policy `which[i]`."""
    for i in dict.fromkeys(which):
        yield i, torch.tensor([row for row, owner in enumerate(which) if owner == i], device=device)
