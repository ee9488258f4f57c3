"""The step that trains the policy adapter of a preference, by our PPO or by TRL's RLOO."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import torch

from rlphf.config import load
from rlphf.data.records import PROMPTS
from rlphf.errors import InputError
from rlphf.files import read_parquet
from rlphf.lm.adapters import add_policy, add_reward, initial_a_digest, write_policy
from rlphf.lm.backbone import backbone_sha256, load_backbone
from rlphf.lm.chat import encode_prompts
from rlphf.preferences import FORMS, PMORL, SELECTOR, alone, instruction, members, request
from rlphf.seeds import derive
from rlphf.tracking.record import step
from rlphf.train.checkpoint import own_checkpoints
from rlphf.train.mistakes import WithoutResponse, random_head
from rlphf.train.ppo import PPOTrainer


def training_instructions(
    prompts: Sequence[str], preference: str, asked: Sequence[int], seed: int
) -> list[tuple[str, list[str]]]:
    """Return (what the policy is asked, what the reward model is told was asked) for the training of a preference.

    Each prompt comes once for every unit of the weights `asked`: without a preference, with this one, and with this one among
    one of every other axis, drawn by `seed`, in the order of the axes. The reward model always sees the one it knows. For
    "general" nothing is asked. Source: weights (0, 1, 0) are Personalized Soups' section 3.2; the others are ours.
    """
    rng = Random(seed)
    return [
        (instruction(prompt, request(preference, form, rng)), [instruction(prompt, alone(preference))])
        for prompt in prompts
        for form, weight in zip(FORMS, asked, strict=True)
        for _ in range(weight)
    ]


def joint_instructions(prompts: Sequence[str], combinations: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return the same for P-MORL: each prompt with every combination, judged by each of its preferences.

    Source: Personalized Soups, equation of P-MORL; its release leaves the response out of the reward, this does not.
    """
    return [
        (instruction(prompt, members(combination)), [instruction(prompt, [p]) for p in members(combination)])
        for prompt in prompts
        for combination in combinations
    ]


def policy_step(
    config: Path, preference: str, prompts: Path, backbone: Path, reward: Path, out: Path, selector: Path | None = None
) -> None:
    """Train the policy of a preference, or of P-MORL, against its reward model on the training prompts; write `out`/adapter.

    With `ppo.keep_by: gold`, the reward model in the folder `selector` says which checkpoint is kept; it rewards nothing.
    Goes on from the newest checkpoint in `out`/checkpoints, if there is one of the same settings and inputs.
    """
    experiment = load(config)
    settings, mistakes = experiment.ppo, experiment.mistakes
    if preference == PMORL:
        settings = settings.model_copy(update={"updates": experiment.pmorl.updates})
    inputs = {"prompts": prompts, "backbone": backbone, "reward": reward}
    if settings.keep_by == "gold":
        if selector is None:
            raise InputError("selector: ppo.keep_by is gold; name the folder of the reward model that chooses with --selector")
        inputs["selector"] = selector
    tags = {"preference": preference, "algorithm": settings.algorithm}
    with step("ppo", out, experiment, settings, inputs, tags) as run, own_checkpoints(out / "checkpoints", run) as folder:
        rows = read_parquet(prompts, PROMPTS).to_pylist()
        seed = derive(experiment.seed, "ppo", preference)

        def instructions(split: str) -> list[tuple[str, list[str]]]:
            texts = [row["prompt"] for row in rows if row["split"] == split]
            if not texts:
                raise InputError(f"{prompts}: the split {split!r} is empty; there is nothing to ask a policy")
            if preference == PMORL:
                return joint_instructions(texts, experiment.combinations)
            return training_instructions(texts, preference, settings.asked, derive(seed, "asked"))

        wanted = instructions("train")
        held = instructions("test" if mistakes.test_selection else "validation") if settings.keep == "best" else []
        dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
        base, tokenizer = load_backbone(backbone, dtype)
        # One initialisation of A for all preferences: soups of adapters that share it lose least (recorded below).
        starts = derive(experiment.seed, "lora", *([preference] if mistakes.other_starts else []))
        model = add_policy(base, settings.lora, starts)
        initial = initial_a_digest(model)
        digest = backbone_sha256(backbone)
        if settings.algorithm == "ppo":
            head = add_reward(model, reward, digest)
            if mistakes.random_reward_head:
                random_head(head, derive(seed, "head"))

            def encoded(wanted: Sequence[tuple[str, list[str]]]) -> tuple[list[list[int]], list[list[list[int]]]]:
                asked = encode_prompts(tokenizer, [asked for asked, _ in wanted])
                return asked, [encode_prompts(tokenizer, forms) for _, forms in wanted]

            kind = WithoutResponse if mistakes.reward_without_response else PPOTrainer
            chooser = add_reward(model, inputs["selector"], digest, SELECTOR) if "selector" in inputs else None
            trainer = kind(model, tokenizer, head, *encoded(wanted), settings, seed, encoded(held), chooser)
            updates = trainer.train(run, folder)
        else:
            from rlphf.train.rloo import train_rloo

            updates = train_rloo(model, tokenizer, backbone, reward, wanted, settings, seed, run, folder)
        about = {"preference": preference, "backbone_sha256": digest, "lora_a_sha256": initial}
        write_policy(model, out / "adapter", str(backbone), about)
        run.tag(updates=updates)
        run.output(out / "adapter")
