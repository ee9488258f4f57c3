"""Baselines on users' pairs that have no user model: an adapter for each user, and one for all by imitation.

One adapter per user is the idea of Tan et al. 2024, "Democratizing Large Language Models via Personalized Parameter-Efficient
Fine-tuning", here trained by DPO; a user who was not trained is answered by the backbone. The pooled one is fine-tuned on what
all users chose, told of no one: the control that PRISM-X asks for.
"""

from collections.abc import Sequence
from pathlib import Path

from peft import set_peft_model_state_dict
from peft.utils import get_peft_model_state_dict

from rlphf.cards import adapter_card
from rlphf.config import load
from rlphf.files import atomic_folder
from rlphf.lm.adapters import POLICY, add_policy, initial_a_digest, write_policy
from rlphf.lm.backbone import backbone_sha256
from rlphf.preferences import GENERAL
from rlphf.processes import is_first
from rlphf.progress import bar
from rlphf.seeds import derive
from rlphf.tracking.record import step
from rlphf.train.checkpoint import own_checkpoints
from rlphf.train.dpo import DPOTrainer
from rlphf.train.sft import examples, train_sft
from rlphf.train.user_files import read_material, training_inputs, write_margins
from rlphf.users.methods import user_model


def per_user_step(config: Path, model: str, pairs: Sequence[Path], backbone: Path, people: Path | None, out: Path) -> None:
    """Train a policy per user by DPO on the user's own training pairs in the files `pairs`; write `out`/adapters/<user>.

    All start from one initialisation. The margins of the pairs of other splits go to `out`/scores.parquet, those of users who
    were not trained as 0: the backbone prefers neither. A step that was stopped starts anew.
    """
    experiment = load(config)
    settings, users, seed = experiment.dpo, user_model(experiment.users, model), derive(experiment.seed, "dpo")
    inputs = training_inputs(backbone, pairs, people, users)
    with step("dpo per user", out, experiment, settings, inputs, {"model": model}) as run:
        material = read_material(users, settings, pairs, backbone, people, seed)
        policy = add_policy(material.base, settings.lora, derive(experiment.seed, "lora"))
        start = {name: value.clone() for name, value in get_peft_model_state_dict(policy, adapter_name=POLICY).items()}
        about = {"preference": "users", "backbone_sha256": backbone_sha256(backbone), "lora_a_sha256": initial_a_digest(policy)}
        held = [(row, pair) for row, pair in zip(material.rows, material.pairs, strict=True) if row["split"] != "train"]
        margins, done = [0.0] * len(held), 0
        # As a whole, so that no adapter of an earlier population is left.
        users_trained = sorted({pair.user for pair in material.train} - {0})
        with atomic_folder(out / "adapters") as folder, bar(len(users_trained), "users") as through:
            for user in users_trained:
                set_peft_model_state_dict(policy, start, adapter_name=POLICY)
                own = [pair for pair in material.train if pair.user == user]
                trainer = DPOTrainer(policy, material.tokenizer, material.users, own, settings, seed)
                trainer.reference = trainer.reference_worth(own)
                for number in range(len(trainer.order)):
                    run.log(trainer.update(number), step=done + number)
                done += len(trainer.order)
                write_policy(policy, folder / str(user), str(backbone), about, adapter_card(run, experiment, about, backbone))
                index = [i for i, (_, pair) in enumerate(held) if pair.user == user]
                found, _ = trainer.evaluate([held[i][1] for i in index])
                for i, value in zip(index, found, strict=True):
                    margins[i] = value
                through(1)
        scores = write_margins(out / "scores.parquet", [row for row, _ in held], margins, [0.0] * len(held), run)
        run.tag(pairs=len(material.train), updates=done)
        run.output(out / "adapters", scores)


def pooled_step(config: Path, model: str, pairs: Sequence[Path], backbone: Path, people: Path | None, out: Path) -> None:
    """Train one policy on what users chose in the training pairs of the files `pairs`, as MT is; write `out`/adapter.

    `model` and `people` are there as for every model of users; a policy that is told of no one needs no texts. The margins of the
    pairs of other splits, log-ratios to the backbone, go to `out`/scores.parquet.
    """
    experiment = load(config)
    users = user_model(experiment.users, model)
    inputs = training_inputs(backbone, pairs, people, users)
    with (
        step("pooled", out, experiment, experiment.mt, inputs, {"model": model}) as run,
        own_checkpoints(out / "checkpoints", run) as folder,
    ):
        seed = derive(experiment.seed, "pooled")
        material = read_material(users, experiment.dpo, pairs, backbone, people, seed)
        rows = [row | {"preference": GENERAL} for row in material.rows if row["split"] == "train"]
        policy = add_policy(material.base, experiment.mt.lora, derive(experiment.seed, "lora"))
        initial = initial_a_digest(policy)
        data = examples(material.tokenizer, rows)
        steps = train_sft(policy, material.tokenizer, data, experiment.mt, seed, folder, run)
        if not is_first():
            return
        about = {"preference": "users", "backbone_sha256": backbone_sha256(backbone), "lora_a_sha256": initial}
        write_policy(policy, out / "adapter", str(backbone), about, adapter_card(run, experiment, about, backbone))
        held = [(row, pair) for row, pair in zip(material.rows, material.pairs, strict=True) if row["split"] != "train"]
        plain = experiment.dpo.model_copy(update={"beta": 1.0})
        scorer = DPOTrainer(policy.eval(), material.tokenizer, material.users, [], plain, seed)
        own, generic = scorer.evaluate([pair for _, pair in held])
        scores = write_margins(out / "scores.parquet", [row for row, _ in held], own, generic, run)
        run.tag(updates=steps, pairs=len(rows))
        run.output(out / "adapter", scores)
