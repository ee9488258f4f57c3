"""The step that trains the policy adapter of a preference, by our PPO or by TRL's RLOO."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from random import Random

import torch

from rlphf.cards import adapter_card
from rlphf.config import load
from rlphf.data.learned import rewarding
from rlphf.data.own_rules import rule_of
from rlphf.data.records import PROMPTS
from rlphf.derived import combinations_of, own_rules
from rlphf.errors import InputError
from rlphf.files import read_parquet
from rlphf.lm.adapters import add_policy, initial_a_digest, new_policy, write_adapter, write_policy
from rlphf.lm.backbone import backbone_sha256, load_backbone, training_dtype
from rlphf.lm.rewards import RewardModels, Rewards, check_rewards
from rlphf.lm.sampling import encode_answerable
from rlphf.lm.stack import Stack
from rlphf.preferences import FORMS, GENERAL, PMORL, SELECTOR, alone, instruction, members, request
from rlphf.processes import in_one, is_first
from rlphf.seeds import derive
from rlphf.settings import Decoding
from rlphf.tracking.record import step
from rlphf.train.checkpoint import own_checkpoints
from rlphf.train.learner import Task
from rlphf.train.mistakes import WithoutResponse, random_head
from rlphf.train.ppo import PPOTrainer
from rlphf.train.rule_rewards import RuleRewards


def training_instructions(
    prompts: Sequence[str], preference: str, asked: Sequence[int], seed: int
) -> list[tuple[str, list[str]]]:
    """Return (the policy's instruction, the reward model's instructions) for each training prompt of a preference.

    Each prompt comes once for every unit of the weights `asked`: asking for no preference, for this one, and for this one with
    one of every other axis, drawn by `seed`, in the order of the axes. The reward model always sees the one that it knows. For
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
    config: Path,
    preference: Sequence[str],
    prompts: Path,
    backbone: Path,
    reward: Sequence[Path] | None,
    out: Sequence[Path],
    selector: Path | None = None,
) -> None:
    """Train the policy of each preference, or of P-MORL, on the training prompts; write `out`/adapter.

    `reward` are the reward models' folders, None where text rules reward the policies (`ppo.reward`). `preference`, `reward`
    and `out` are in the same order: several policies train together, in one process, and each learns what it would alone
    (`train.ppo`). With `ppo.keep_by: gold`, the reward model in the folder `selector` says which checkpoint of
    each is kept; it rewards nothing. Goes on from the newest checkpoint in the first `out`/checkpoints, if there is one of the
    same settings and inputs. Raises InputError where several processes share a training by our PPO, for a reward model that is
    another preference's, and for a prompt that leaves no room for a response in the context.
    """
    experiment = load(config)
    settings = experiment.ppo
    if settings.algorithm == "ppo":
        in_one("ppo.algorithm: ppo")
    needed, models = [model for name in preference for model in rewarding(name, experiment)], list(reward or [])
    if not (len(preference) == len(out) and len(needed) == len(models)):
        counts = f"{len(preference)}, {len(models)}, {len(out)} given"
        advice = "give one of each" if needed else "ppo.reward is rule: give no --reward, and as many of the others"
        raise InputError(f"--preference, --reward, --out: {counts}; {advice}")
    if len({folder.resolve() for folder in out}) < len(out):
        raise InputError(f"--out: {' '.join(map(str, out))} names a folder twice; give each policy one of its own")
    if len(preference) > 1 and (settings.algorithm != "ppo" or {GENERAL, PMORL} & set(preference)):
        raise InputError(f"--preference {' '.join(preference)}: only policies of single preferences train together, by ppo")
    if PMORL in preference:
        settings = settings.model_copy(update={"updates": experiment.pmorl.updates})
    chooses = settings.keep_by == "gold"
    if chooses and selector is None:
        raise InputError("selector: ppo.keep_by is gold; name the folder of the reward model that chooses with --selector")
    choosing = [(SELECTOR, selector)] if chooses and selector else []
    with ExitStack() as stack:
        runs = []
        for i, (name, folder) in enumerate(zip(preference, out, strict=True)):
            inputs = {"prompts": prompts, "backbone": backbone, **({"reward": models[i]} if models else {}), **dict(choosing)}
            tags = {"preference": name, "algorithm": settings.algorithm}
            tags |= {"together": " ".join(preference)} if len(preference) > 1 else {}
            runs.append(stack.enter_context(step("ppo", folder, experiment, settings, inputs, tags)))
        checkpoints = stack.enter_context(own_checkpoints(out[0] / "checkpoints", *runs))
        rows = read_parquet(prompts, PROMPTS).to_pylist()
        seeds = [derive(experiment.seed, "ppo", name) for name in preference]

        def instructions(name: str, seed: int, split: str) -> list[tuple[str, list[str]]]:
            texts = [row["prompt"] for row in rows if row["split"] == split]
            if not texts:
                raise InputError(f"{prompts}: the split {split!r} is empty; there is nothing to ask a policy")
            if name == PMORL:
                return joint_instructions(texts, combinations_of(experiment))
            return training_instructions(texts, name, settings.asked, derive(seed, "asked"))

        selection = "test" if experiment.mistakes.test_selection else "validation"
        wanted = [instructions(name, seed, "train") for name, seed in zip(preference, seeds, strict=True)]
        held = [
            instructions(name, seed, selection) if settings.keep == "best" else []
            for name, seed in zip(preference, seeds, strict=True)
        ]
        base, tokenizer = load_backbone(backbone, training_dtype(backbone))
        digest = backbone_sha256(backbone)
        check_rewards([*zip(needed, models, strict=True), *choosing], digest)
        # All policies start from the same A, with which soups lose least; its digest goes into adapter.json.
        other_starts = experiment.mistakes.other_starts
        starts = [derive(experiment.seed, "lora", *([name] if other_starts else [])) for name in preference]
        abouts = [{"preference": name, "backbone_sha256": digest} for name in preference]
        rewards: Rewards
        if needed:
            rewards = RewardModels(base, models, digest)
            if experiment.mistakes.random_reward_head:
                width = rewards.heads.shape[1]
                rewards.heads = torch.stack([random_head(width, derive(seed, "head")) for seed in seeds]).to(base.device)
        else:
            rewards = RuleRewards(tokenizer, [rule_of(name, own_rules(experiment)) for name in preference], base.device)

        def encoded(wanted: Sequence[tuple[str, list[str]]]) -> tuple[list[list[int]], list[list[list[int]]]]:
            decoding = Decoding(max_new_tokens=settings.max_new_tokens)
            asked = encode_answerable(base, tokenizer, [asked for asked, _ in wanted], decoding)
            return asked, [encode_answerable(base, tokenizer, forms, decoding) for _, forms in wanted]

        # Of both algorithms, so that neither is given a prompt that leaves no room for a response.
        tasks = [Task(*encoded(w), seed, encoded(h)) for w, seed, h in zip(wanted, seeds, held, strict=True)]
        if settings.algorithm == "ppo":
            fresh = [new_policy(base, settings.lora, start) for start in starts]
            policies = Stack(
                base, [p.factors for p in fresh], [settings.lora.alpha / settings.lora.rank] * len(fresh), trained=True
            )

            # A text rule reads nothing but the response.
            kind = WithoutResponse if needed and experiment.mistakes.reward_without_response else PPOTrainer
            chooser = RewardModels(base, [folder for _, folder in choosing], digest) if choosing else None
            updates = kind(base, tokenizer, policies, rewards, tasks, settings, chooser).train(runs, checkpoints)
            for i, folder in enumerate(out):
                about = {"kind": "policy", **abouts[i], "lora_a_sha256": fresh[i].initial_a_sha256}
                card = adapter_card(runs[i], experiment, about, backbone)
                write_adapter(folder / "adapter", policies.parameters(i), fresh[i].config, str(backbone), about, card)
        else:
            from rlphf.train.rloo import train_rloo

            model = add_policy(base, settings.lora, starts[0])
            initial = initial_a_digest(model)
            updates = [train_rloo(model, tokenizer, rewards, wanted[0], settings, seeds[0], runs[0], checkpoints)]
            if not is_first():
                return
            card = adapter_card(runs[0], experiment, abouts[0], backbone)
            write_policy(model, out[0] / "adapter", str(backbone), {**abouts[0], "lora_a_sha256": initial}, card)
        for run, folder, done in zip(runs, out, updates, strict=True):
            run.tag(updates=done)
            run.output(folder / "adapter")
