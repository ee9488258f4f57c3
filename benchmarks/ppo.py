"""PPO: samples per second and peak memory of `train/ppo.py` against TRL 1.12.0's PPOTrainer, the last that TRL had.

Both train a LoRA of one shape on one model against one reward model, with the same prompts, lengths, epochs and mini-batches.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.child import resident_mb, timed
from benchmarks.floor import Shape, rates, update_seconds
from benchmarks.harness import Answer, Options, Side, interleaved, machine, trl_python, versions_of
from benchmarks.models import DTYPES, LORA, SMALL, SMOLLM2, Prepared, rows_of_models
from benchmarks.table import Figure, Row, Target
from rlphf.files import read_json

# Prompts per update, responses per optimizer step, new tokens, and updates that are timed.
SIZES = {SMALL: (64, 32, 96, 4), SMOLLM2: (16, 8, 48, 2)}
TRIAL = (8, 4, 8, 1)
EPOCHS = 2
DIFFERS = [
    "lengths are forced equal: no response ends before the limit, ours because the model has no logit for the end token it is"
    " given, TRL's because it is given no stop token",
    "TRL keeps policy, reward model and value model as three backbones; ours keeps one, and a value head on the policy's states",
    "TRL trains its value model whole, as its own example does; the figures against a frozen value model train only its head",
    "gradient checkpointing is off in both; TRL saves, evaluates and reports nothing here",
]


def rows(options: Options) -> Iterator[Row]:
    """Measure both models on the CPU, and on a machine with CUDA on the GPU."""
    yield from rows_of_models("ppo", "PPO", options, measured)


def measured(row: Row, made: Prepared, options: Options) -> Row:
    """Run both sides, TRL's with a whole and with a frozen value model, and fill in their row."""
    model, dtype = made.name, DTYPES[options.device]
    batch, mini, tokens, updates = TRIAL if options.small else SIZES[model]
    work: dict[str, Any] = {"batch": batch, "mini": mini, "epochs": EPOCHS, "tokens": tokens, "updates": updates, "dtype": dtype}
    sides = [Side("our PPO", "benchmarks.ppo:ours", work | paths(made, "model", "reward"))]
    for critic in ("whole", "frozen"):
        arguments = work | paths(made, "model", "classifier") | {"critic": critic, "folder": str(options.work / "trl")}
        sides.append(Side(f"TRL's PPO, {critic} value model", "benchmarks.ppo_trl:theirs", arguments, trl_python()))
    found = machine(options)
    our, whole, frozen = interleaved(sides, options)
    shape = Shape.of(made.model, dtype)
    floor = update_seconds(shape, rates(options, dtype, shape.weights), made.lengths(batch), tokens, EPOCHS)
    speed = Target("least", 3.0 if options.device == "cpu" else 5.0)
    figures = [
        Figure("samples", "1/s", _rate(our, batch), "TRL", _rate(whole, batch), speed, batch / floor, "multiply-adds and bytes"),
        Figure("samples", "1/s", _rate(our, batch), "TRL, value model frozen", _rate(frozen, batch)),
        Figure("peak memory", "MB", _peak(our), "TRL", _peak(whole), Target("most", 1 / 3)),
        Figure("peak memory", "MB", _peak(our), "TRL, value model frozen", _peak(frozen)),
    ]
    if options.device == "cpu":
        weights = shape.weights / 2**20
        figures.append(Figure("peak memory above libraries", "MB", _above(our), "TRL", _above(whole), None, weights, "weights"))
    settings = {
        "model": model,
        "dtype": dtype,
        "prompts": f"{batch} of {min(made.lengths(batch))} to {max(made.lengths(batch))} tokens",
        "response": f"{tokens} tokens",
        "mini-batch": mini,
        "epochs": EPOCHS,
        "LoRA": f"rank {LORA['rank']} on {' '.join(LORA['targets'])}",
        "updates timed": f"{updates} after one, in each of {options.rounds} rounds",
    }
    names = ("torch", "transformers", "peft", "trl")
    versions = {"ours": versions_of(our[0], *names[:3]), "TRL": versions_of(whole[0], *names)}
    return replace(row, figures=figures, settings=settings, versions=versions, machine=found, differs=DIFFERS)


def ours(
    model: str,
    reward: str,
    prompts: str,
    batch: int,
    mini: int,
    epochs: int,
    tokens: int,
    updates: int,
    dtype: str,
    policies: int = 1,
) -> Answer:
    """Side: updates of our trainer on the first `batch` prompts, of as many policies together as `policies` says."""
    import torch

    from rlphf.lm.adapters import new_policy
    from rlphf.lm.backbone import backbone_sha256, load_backbone
    from rlphf.lm.rewards import RewardModels
    from rlphf.lm.stack import Stack
    from rlphf.settings import PPO, Lora
    from rlphf.train.learner import Task
    from rlphf.train.ppo import PPOTrainer

    libraries = resident_mb()
    base, tokenizer = load_backbone(model, getattr(torch, dtype))
    tokenizer.add_special_tokens({"eos_token": "<|never|>"})
    lora = Lora(**LORA)
    rewards = RewardModels(base, [Path(reward)] * policies, backbone_sha256(model))
    factors = [new_policy(base, lora, seed=0).factors for _ in range(policies)]
    stack = Stack(base, factors, [lora.alpha / lora.rank] * policies, trained=True)
    settings = PPO(
        lora=lora,
        batch_size=batch,
        mini_batch_size=mini,
        inner_epochs=epochs,
        max_new_tokens=tokens,
        learning_rate=1e-5,
        temperature=0.7,
        max_grad_norm=1.0,
        early_stop_kl=None,
    )
    asked = read_json(prompts)[:batch]
    tasks = [Task(asked, [[prompt] for prompt in asked], seed=seed) for seed in range(policies)]
    trainer = PPOTrainer(base, tokenizer, stack, rewards, tasks, settings)
    steps = count()
    lengths: set[float] = set()

    def update() -> None:
        lengths.update(metrics["length"] for metrics, _ in trainer.update(next(steps), range(policies)).values())

    found = timed(update, updates)
    if lengths != {float(tokens)}:
        raise ValueError(f"responses of {tokens} tokens were to be sampled, found {sorted(lengths)}")
    return {**found, "libraries_mb": libraries}


def paths(made: Prepared, *names: str) -> dict[str, str]:
    """Return the paths of a model, of what else is named, and of its prompts, as a side's arguments."""
    return {name: str(Path(getattr(made, name)).resolve()) for name in (*names, "prompts")}


def _rate(answers: list[Answer], batch: int) -> list[float]:
    return [batch / median(answer["seconds"]) for answer in answers]


def _peak(answers: list[Answer]) -> list[float]:
    return [answer["peak_mb"] for answer in answers]


def _above(answers: list[Answer]) -> list[float]:
    return [answer["peak_mb"] - answer["libraries_mb"] for answer in answers]
