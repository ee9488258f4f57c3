"""A step of P-DPO with 1 000 000 users against one with 10: time of a step and peak memory must not grow with users."""

from collections.abc import Iterator
from itertools import count, islice
from typing import Any

from benchmarks.child import timed
from benchmarks.harness import Answer, Options, Side, interleaved, machine, versions_of
from benchmarks.models import CONFIG
from benchmarks.table import Figure, Row, Target, number

FEW, MANY = 10, 1_000_000
STEPS = 20
FLAT = Target("most", 1.1)


def rows(options: Options) -> Iterator[Row]:
    """Measure each user model of P-RLHF with many and with few users, on the demo's small Llama."""
    many = FEW * 10 if options.small else MANY
    for kind in ("individual", "cluster"):
        sides = [Side(f"{users} users", "benchmarks.users:steps", {"kind": kind, "users": users}) for users in (many, FEW)]
        found = machine(options)
        most, least = interleaved(sides, options)
        times, peaks = (
            [[pick(answer) for answer in answers] for answers in (most, least)]
            for pick in (lambda answer: min(answer["cpu_seconds"]), lambda answer: answer["peak_mb"])
        )
        figures = [
            Figure("time of a step", "CPU s", times[0], f"{FEW} users", times[1], FLAT),
            Figure("peak memory", "MB", peaks[0], f"{FEW} users", peaks[1], FLAT),
        ]
        settings = {"users": many, "steps timed": STEPS, "rounds": options.rounds}
        versions = {"both": versions_of(most[0], "torch", "transformers", "peft")}
        yield Row(f"users-{kind}", f"P-DPO with {number(many)} users, {kind}", figures, settings, versions, found)


def steps(kind: str, users: int) -> Answer:
    """Side: steps on pairs that are drawn from all users."""
    import torch

    from rlphf.config import load
    from rlphf.lm.adapters import add_policy
    from rlphf.settings_users import Users
    from rlphf.testbed.prompts import corpus
    from rlphf.train.backbone import small_llama, train_tokenizer
    from rlphf.train.dpo import DPOTrainer
    from rlphf.train.users import Pair
    from rlphf.users.model import new_user_model

    experiment = load(CONFIG)
    settings = experiment.dpo.model_copy(update={"epochs": 1})
    documents = islice(corpus(experiment.testbed, 1), 500)
    tokenizer = train_tokenizer([f"{a}\n{b}" for a, b in documents], 1000)
    model = small_llama(experiment.backbone, tokenizer, 0).requires_grad_(False)
    given = Users(**{**experiment.users.model_dump(), "start": "generic"}, model=kind)
    vocabulary: Any = model.get_input_embeddings().weight
    user_model = new_user_model(given, torch.arange(1, users + 1), vocabulary, seed=1)
    drawn = torch.randint(1, users + 1, (STEPS * settings.batch_size,), generator=torch.Generator().manual_seed(0))
    pairs = [Pair([5] * 20, [5] * 20, [6] * 30, [7] * 25, user) for user in drawn.tolist()]
    trainer = DPOTrainer(add_policy(model, settings.lora, 0), tokenizer, user_model, pairs, settings, seed=0)
    trainer.reference = torch.zeros(len(pairs), 2)
    numbers = count()
    return timed(lambda: trainer.update(next(numbers)), STEPS, warm=0)
