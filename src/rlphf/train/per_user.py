"""Baselines on users' pairs that have no user model: an adapter for each user, and one for all by imitation.

One adapter per user is the idea of Tan et al. 2024, "Democratizing Large Language Models via Personalized Parameter-Efficient
Fine-tuning", here trained by DPO; a user who was not trained is answered by the backbone. The pooled one is fine-tuned on what
all users chose, with bare prompts: the control that PRISM-X asks for.
"""

import shutil
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from peft import set_peft_model_state_dict
from peft.utils import get_peft_model_state_dict

from rlphf.cards import adapter_card
from rlphf.config import load
from rlphf.errors import InputError
from rlphf.files import atomic_folder, check_space, read_json, write_json
from rlphf.lm.adapters import POLICY, add_policy, initial_a_digest, write_policy
from rlphf.lm.backbone import backbone_sha256
from rlphf.processes import is_first
from rlphf.progress import bar
from rlphf.seeds import derive
from rlphf.settings_users import DPO
from rlphf.tracking.record import step
from rlphf.train.checkpoint import is_whole, own_checkpoints, seal
from rlphf.train.dpo import DPOTrainer
from rlphf.train.sft import imitated, train_sft
from rlphf.train.user_files import UNNAMED, read_material, training_inputs
from rlphf.users.methods import settings_of
from rlphf.users.records import write_margins

# What is kept of a user until all are trained.
ADAPTER, RESULT = "adapter", "result.json"


def per_user_step(config: Path, model: str, pairs: Sequence[Path], backbone: Path, users_path: Path | None, out: Path) -> None:
    """Train a policy per user by DPO on the user's own training pairs in the files `pairs`; write `out`/adapters/<user>.

    All start from one initialisation. The margins of the pairs of other splits go to `out`/scores.parquet, those of users who
    were not trained as 0: the backbone prefers neither. A step that was stopped goes on with the user that it was at. Raises
    InputError where no training pair names its user.
    """
    experiment = load(config)
    settings, user_settings, seed = experiment.dpo, settings_of(experiment.users, model), derive(experiment.seed, "dpo")
    inputs = training_inputs(backbone, pairs, users_path, user_settings)
    with (
        step("dpo per user", out, experiment, settings, inputs, {"model": model}) as run,
        own_checkpoints(out / "checkpoints", run) as done,
    ):
        material = read_material(user_settings, settings, pairs, backbone, users_path, seed)
        policy = add_policy(material.base, settings.lora, derive(experiment.seed, "lora"))
        start = {name: value.clone() for name, value in get_peft_model_state_dict(policy, adapter_name=POLICY).items()}
        about = {"preference": "users", "backbone_sha256": backbone_sha256(backbone), "lora_a_sha256": initial_a_digest(policy)}
        held = [(row, pair) for row, pair in zip(material.rows, material.pairs, strict=True) if row["split"] != "train"]
        trained = sorted({pair.user for pair in material.train} - {0})
        if not trained:
            raise InputError(f"{', '.join(map(str, pairs))}: {UNNAMED}")
        size = sum(value.numel() for value in start.values()) * 4
        check_space(out, 2 * size * len(trained), "adapters of all users, while they are trained and in their place,")
        ready = list(takewhile(lambda user: (done / str(user)).exists() and is_whole(done / str(user)), trained))
        updates = sum(read_json(done / str(user) / RESULT)["updates"] for user in ready)
        run.resume(updates)
        with bar(len(trained) - len(ready), "users") as through:
            for user in trained[len(ready) :]:
                set_peft_model_state_dict(policy, start, adapter_name=POLICY)
                own = [pair for pair in material.train if pair.user == user]
                trainer = DPOTrainer(policy, material.tokenizer, material.user_model, own, warmed_up(settings, len(own)), seed)
                trainer.reference = trainer.reference_worth(own)
                for number in range(len(trainer.order)):
                    run.log(trainer.update(number), step=updates + number)
                updates += len(trainer.order)
                found, _ = trainer.evaluate([pair for _, pair in held if pair.user == user])
                with atomic_folder(done / str(user)) as folder:
                    write_policy(policy, folder / ADAPTER, str(backbone), about, adapter_card(run, experiment, about, backbone))
                    write_json(folder / RESULT, {"updates": len(trainer.order), "margins": found})
                    seal(folder)
                through(1)
        margins = [0.0] * len(held)
        # As a whole, so that no adapter of an earlier population is left.
        with atomic_folder(out / "adapters") as folder:
            for user in trained:
                shutil.copytree(done / str(user) / ADAPTER, folder / str(user))
                index = [i for i, (_, pair) in enumerate(held) if pair.user == user]
                for i, value in zip(index, read_json(done / str(user) / RESULT)["margins"], strict=True):
                    margins[i] = value
        scores = write_margins(out / "scores.parquet", [row for row, _ in held], margins, [0.0] * len(held), run)
        run.tag(pairs=len(material.train), updates=updates)
        run.output(out / "adapters", scores)


def warmed_up(settings: DPO, pairs: int) -> DPO:
    """Return the settings with a warm-up of half of a user's own steps at most: that of all users' may never end."""
    steps = -(-pairs // settings.batch_size) * settings.epochs
    return settings.model_copy(update={"warmup_steps": min(settings.warmup_steps, steps // 2)})


def pooled_step(config: Path, model: str, pairs: Sequence[Path], backbone: Path, users_path: Path | None, out: Path) -> None:
    """Train one policy on what users chose in the training pairs of the files `pairs`, as MT is; write `out`/adapter.

    Texts are cut as those that the model `dpo` reads. `model` and `users_path` are there as for every model of users; this one
    needs no users' texts, as its prompts are bare. The margins of the pairs of other splits, log-ratios to the backbone, go to
    `out`/scores.parquet.
    """
    experiment = load(config)
    user_settings = settings_of(experiment.users, model)
    inputs = training_inputs(backbone, pairs, users_path, user_settings)
    with (
        step("pooled", out, experiment, experiment.mt, inputs, {"model": model}) as run,
        own_checkpoints(out / "checkpoints", run) as folder,
    ):
        seed = derive(experiment.seed, "pooled")
        material = read_material(user_settings, experiment.dpo, pairs, backbone, users_path, seed)
        policy = add_policy(material.base, experiment.mt.lora, derive(experiment.seed, "lora"))
        initial = initial_a_digest(policy)
        data = imitated([pair.bare for pair in material.train], [pair.chosen for pair in material.train])
        steps = train_sft(policy, material.tokenizer, data, experiment.mt, seed, folder, run)
        if not is_first():
            return
        about = {"preference": "users", "backbone_sha256": backbone_sha256(backbone), "lora_a_sha256": initial}
        write_policy(policy, out / "adapter", str(backbone), about, adapter_card(run, experiment, about, backbone))
        held = [(row, pair) for row, pair in zip(material.rows, material.pairs, strict=True) if row["split"] != "train"]
        plain = experiment.dpo.model_copy(update={"beta": 1.0})
        scorer = DPOTrainer(policy.eval(), material.tokenizer, material.user_model, [], plain, seed)
        own, generic = scorer.evaluate([pair for _, pair in held])
        scores = write_margins(out / "scores.parquet", [row for row, _ in held], own, generic, run)
        run.tag(updates=steps, pairs=len(data))
        run.output(out / "adapter", scores)
