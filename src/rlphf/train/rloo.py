"""RLOO for one LoRA policy against one reward model or rule: TRL's RLOOTrainer in the place of our PPO, under PPO's settings."""

from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from trl import RLOOConfig, RLOOTrainer

from rlphf.derived import RLOO_GROUP as GROUP
from rlphf.lm.adapters import active
from rlphf.lm.chat import encode_prompts
from rlphf.lm.rewards import Rewards
from rlphf.processes import gathered, share
from rlphf.seeds import derive
from rlphf.settings import PPO
from rlphf.tracking.record import Run
from rlphf.train import ppo_terms as terms
from rlphf.train.arguments import train_in_float32
from rlphf.train.resumable import Resumable


class Scorer(TrainerCallback, ExportableState):
    """TRL's reward function, and what PPO does around scores: running moments, kappa, metrics under PPO's names.

    `judged` gives the forms in which the reward model is to see each instruction. One outer step is `steps` optimizer steps.
    The moments of the scores and kappa are in the Trainer's checkpoints. The scorer sets the KL weight of `trainer`, which is
    assigned afterwards, because making the Trainer takes the scorer.
    """

    trainer: "_Trainer"

    def __init__(
        self,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        rewards: Rewards,
        judged: dict[str, list[str]],
        settings: PPO,
        steps: int,
        run: Run,
    ):
        self.model, self.tokenizer, self.rewards, self.judged = model, tokenizer, rewards, judged
        self.settings, self.steps, self.run = settings, steps, run
        self.moments = terms.RunningMoments()
        self.kl = terms.KLController(settings.kl_coefficient, settings.kl_target, settings.kl_horizon, settings.kl_adaptive)

    @torch.no_grad()
    def __call__(
        self, prompts, completions, completion_ids, trainer_state: TrainerState, log_metric, **_: Any
    ) -> list[float | None]:
        """Return the scaled score of each response: that of its tokens behind its prompt, the text that PPO scores too."""
        settings = self.settings
        instructions = [messages[-1]["content"] for messages in prompts]
        judged = [encode_prompts(self.tokenizer, self.judged[text]) for text in instructions]
        with active(self.model, None):
            scores = self.rewards.score(judged, completion_ids, [0] * len(judged), self.tokenizer.pad_token_id)
        finished = torch.tensor([ids[-1] == self.tokenizer.eos_token_id for ids in completion_ids], device=scores.device)
        if settings.missing_eos_penalty is not None:
            scores = torch.where(finished, scores, torch.full_like(scores, settings.missing_eos_penalty))
        log_metric("score", float(scores.mean()))
        log_metric("score_std", float(scores.std(unbiased=False)))
        update = trainer_state.global_step // self.steps
        if update % settings.sample_every == 0 or update == settings.updates - 1:
            rows = zip(instructions[::GROUP], completions[::GROUP], scores[::GROUP].tolist(), strict=True)
            samples = [{"prompt": p, "response": c[-1]["content"].strip(), "score": s} for p, c, s in rows]
            self.run.log_samples(samples[:4], step=update)
        if settings.score_scaling:
            self.moments.update(gathered(scores))
            scores = terms.scale_scores(scores, self.moments, settings.score_norm, settings.score_clip)
        return scores.tolist()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Take up moments, kappa and metrics from the checkpoint that the Trainer starts from."""
        if state.global_step:
            callbacks: Any = state.stateful_callbacks
            saved = callbacks["Scorer"]["attributes"]
            self.moments, self.kl.coefficient = terms.RunningMoments(**saved["moments"]), saved["kl_coefficient"]
        self.run.resume(state.global_step // self.steps)
        self.trainer.beta = self.kl.coefficient

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any] | None = None, **_: Any
    ) -> None:
        """Log an outer step and move kappa; stop where the KL exceeds `max_kl`."""
        if not logs or "score" not in logs:
            return
        length = logs["completions/mean_length"]
        metrics = {
            "score": logs["score"],
            "score_std": logs["score_std"],
            "kl_coefficient": self.kl.coefficient,
            "length": length,
            "finished": 1 - logs["completions/clipped_ratio"],
            "policy_loss": logs["loss"],
            "clip_fraction": logs["clip_ratio/region_mean"],
            "entropy": logs["entropy"],
            "grad_norm": logs["grad_norm"],
            "optimizer_steps": self.steps,
        }
        # TRL computes no KL without a penalty, and logs its mean over tokens, not over responses.
        if "kl" in logs:
            metrics["kl"] = logs["kl"] * length
            self.kl.update(metrics["kl"], self.settings.batch_size)
            self.trainer.beta = self.kl.coefficient
            if self.settings.max_kl is not None and metrics["kl"] > self.settings.max_kl:
                # No checkpoint is written here: a run that goes on from it would not stop.
                control.should_training_stop, control.should_save = True, False
        self.run.log(metrics, step=state.global_step // self.steps - 1)

    def state(self) -> dict[str, Any]:
        """What checkpoints keep."""
        moments = {"mean": self.moments.mean, "variance": self.moments.variance, "count": self.moments.count}
        return {"args": {}, "attributes": {"moments": moments, "kl_coefficient": self.kl.coefficient}}


class _Trainer(Resumable, RLOOTrainer):
    """TRL's, with checkpoints of ours, which reads prompts as every step does."""

    def _tokenize_prompts(self, prompts: list) -> tuple[list[list[int]], None, dict[str, Any]]:
        tokenizer: Any = self.processing_class
        return encode_prompts(tokenizer, [messages[-1]["content"] for messages in prompts]), None, {}


def train_rloo(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rewards: Rewards,
    instructions: Sequence[tuple[str, list[str]]],
    settings: PPO,
    seed: int,
    run: Run,
    folder: Path,
) -> int:
    """Train the policy of `model` on `instructions` against the first of `rewards`; return the outer steps done.

    An instruction is given as the policy sees it, and in the forms in which the reward model does (the score is their mean).

    An outer step samples `batch_size` responses, GROUP to each of batch_size / GROUP prompts (shuffled passes over all), and
    makes `inner_epochs` passes over them in mini-batches of `mini_batch_size`. The advantage of a response is its reward less
    the mean reward of the other responses to its prompt; the reward is the score less kappa times the log-ratio to the
    backbone, summed over tokens; the ratio to the sampling policy, that of whole responses, is clipped.
    Source: Ahmadian et al. 2024.

    With PPO's meaning: updates, batch_size, mini_batch_size, inner_epochs, learning_rate, max_grad_norm, temperature,
    max_new_tokens, kl_*, max_kl, score_*, missing_eos_penalty, clip (of a response's ratio, not a token's), whiten_advantages
    (over the responses), checkpoint_every, sample_every. warmup_updates rises with every optimizer step. There is no critic,
    so gamma, lam, value_clip and value_coefficient have no part, and neither has early_stop_kl. Dropout is off, as in PPO.

    Batches are those of all processes that share the step. Goes on from the newest checkpoint in `folder`. Raises InputError
    where a mini-batch cannot be divided among them.
    """
    steps = settings.batch_size // settings.mini_batch_size * settings.inner_epochs
    scorer = Scorer(model, tokenizer, rewards, dict(instructions), settings, steps, run)
    arguments = RLOOConfig(
        output_dir=str(folder),
        max_steps=settings.updates * steps,
        generation_batch_size=settings.batch_size,
        num_generations=GROUP,
        per_device_train_batch_size=share("ppo.mini_batch_size", settings.mini_batch_size),
        num_iterations=settings.inner_epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=settings.warmup_updates * steps,
        optim="adamw_torch",
        weight_decay=0.0,
        max_grad_norm=settings.max_grad_norm or 0.0,
        temperature=settings.temperature,
        max_completion_length=settings.max_new_tokens,
        beta=settings.kl_coefficient,
        epsilon=settings.clip,
        normalize_advantages=settings.whiten_advantages,
        disable_dropout=True,
        # The data set holds all that is sampled, in order: one epoch, so a resumed run sees what an undisturbed one does.
        shuffle_dataset=False,
        bf16=False,
        gradient_checkpointing=False,
        logging_steps=steps,
        save_steps=settings.checkpoint_every * steps,
        report_to="none",
        disable_tqdm=True,
        seed=seed,
        use_cpu=not torch.cuda.is_available(),
    )
    prompts = _passes([asked for asked, _ in instructions], settings.updates * settings.batch_size // GROUP, seed)
    data = Dataset.from_dict({"prompt": [[{"role": "user", "content": text}] for text in prompts]})
    trainer = _Trainer(model, scorer, arguments, data, processing_class=tokenizer, callbacks=[scorer])
    train_in_float32(model)
    scorer.trainer = trainer
    return trainer.resume() // steps


def _passes(instructions: Sequence[str], count: int, seed: int) -> list[str]:
    """Return `count` instructions in shuffled passes over all of them."""
    drawn: list[str] = []
    while len(drawn) < count:
        order = list(instructions)
        Random(derive(seed, "pass", len(drawn) // len(order))).shuffle(order)
        drawn += order
    return drawn[:count]
