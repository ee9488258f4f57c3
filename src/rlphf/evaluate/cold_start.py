"""Users who were never trained, answered after a few pairs of their own: an inferred soup against a row of a user model."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from rlphf.config import Experiment, load
from rlphf.data.people import UNSEEN
from rlphf.data.records import PAIRS, PROMPTS
from rlphf.derived import shared_preferences
from rlphf.errors import InputError
from rlphf.evaluate.generate import serving
from rlphf.evaluate.judges.users import user_scores
from rlphf.evaluate.user_answers import answers, no_users, spread
from rlphf.files import read_parquet, write_parquet
from rlphf.layout import policy
from rlphf.lm.backbone import load_backbone
from rlphf.seeds import derive
from rlphf.testbed.users import USERS
from rlphf.tracking.record import Run, step
from rlphf.train.users import encode_pairs
from rlphf.users.differences import differences
from rlphf.users.fewshot import fit_row, load_trained
from rlphf.users.methods import METHODS, settings_of
from rlphf.users.records import ANSWERS, COLD_SCORES
from rlphf.users.soups import by_user, declared, inferred, read_policies, reward_folders, write_user_soup

FITTED, SOUP, NAMED = "pdpo_individual", "psoups_inferred", "psoups_declared"
# (method, number of pairs, rows of ANSWERS)
Found = tuple[str, int, list[dict]]


@dataclass(frozen=True)
class Cold:
    """What both ways start from: unseen `users` (rows of USERS), their `pairs` in order, the `prompts` they are answered."""

    experiment: Experiment
    users: list[dict]
    pairs: dict[int, list[dict]]
    prompts: list[dict]
    backbone: Path
    models: Path

    @property
    def counts(self) -> list[int]:
        """Numbers of pairs, ascending."""
        return sorted(set(self.experiment.cold_start.pairs))


def by_soups(cold: Cold, run: Run) -> Iterator[Found]:
    """Yield answers by soups: inferred from so many pairs of each user, and declared, whatever the pairs."""
    experiment, names = cold.experiment, shared_preferences(cold.experiment)
    known = [row for user in cold.users for row in cold.pairs[user["id"]][: cold.counts[-1]]]
    scored = differences(known, reward_folders(experiment, cold.models), cold.backbone, experiment.reward.max_length)
    base, tokenizer = load_backbone(cold.backbone)
    policies, seconds, start = read_policies(experiment, cold.models), 0.0, 0
    with TemporaryDirectory() as temporary:
        for user in cold.users:
            number = user["id"]
            own = scored[start : start + len(cold.pairs[number][: cold.counts[-1]])]
            start += len(own)
            wanted = {(NAMED, 0): declared(user["kind"], experiment)}
            for count in cold.counts:
                began, seed = time.perf_counter(), derive(experiment.seed, "cold start", number)
                wanted[SOUP, count] = inferred(own[:count], names, experiment.cold_start.prior, seed)
                seconds = max(seconds, time.perf_counter() - began)
            for (method, count), soup in wanted.items():
                folder = Path(temporary, f"{method}-{number}-{count}")
                write_user_soup(folder, soup, experiment, cold.models, policies)
                told = {number: soup.text}
                with serving(base, {folder: 1.0}):
                    rows = answers(base, no_users(base), tokenizer, cold.prompts, [number], told, experiment, method)
                yield method, count, rows
    run.tag(**{f"{SOUP}_seconds": round(seconds, 3)})


def by_rows(cold: Cold, trained: Path, run: Run) -> Iterator[Found]:
    """Yield answers by the trained policy in the folder `trained`, with a row fitted on so many pairs of each user."""
    experiment = cold.experiment
    trainer = load_trained(trained, cold.backbone, experiment.dpo)
    user_settings = settings_of(experiment.users, METHODS[FITTED].model)
    generic, seconds = trainer.user_model, 0.0
    for count in cold.counts:
        fitted, began = generic, time.perf_counter()
        for user in cold.users:
            rows = cold.pairs[user["id"]][:count]
            pairs = encode_pairs(
                trainer.tokenizer, rows, user_settings, experiment.dpo, trainer.model.config.max_position_embeddings
            )
            seed = derive(experiment.seed, "cold start row", user["id"])
            fitted = fitted.with_row(user["id"], fit_row(trainer, pairs, experiment.cold_start, seed))
        seconds = (time.perf_counter() - began) / len(cold.users)
        ids = [user["id"] for user in cold.users]
        yield FITTED, count, answers(trainer.model, fitted, trainer.tokenizer, cold.prompts, ids, {}, experiment, FITTED)
    run.tag(**{f"{FITTED}_seconds": round(seconds, 3)})


def cold_start_step(config: Path, prompts: Path, users: Path, pairs: Path, backbone: Path, models: Path, out: Path) -> None:
    """Write the scores of answers to unseen users, known by their first 0, 5, ... `pairs` or all, to `out`/scores.parquet.

    `psoups_inferred`: a soup of weights inferred from these pairs. `pdpo_individual`: the trained policy with a row of the user's
    own fitted on them; with 0 pairs the generic user. `psoups_declared`: the soup that the user names, with 0 pairs. `models` is
    the seed's folder. The seconds that it takes to fit a user to the most pairs, for a soup once they are scored, are tags of the
    record. Raises InputError where there are no unseen users.
    """
    experiment = load(config)
    trained = models / "users" / "models" / METHODS[FITTED].model
    rewards = reward_folders(experiment, models)
    inputs = {"prompts": prompts, "users": users, "pairs": pairs, "backbone": backbone, "user model": trained}
    inputs |= {f"reward/{name}": path for name, path in rewards.items()}
    inputs |= {f"ppo/{name}": policy(models, name) for name in rewards}
    with step("cold start", out, experiment, experiment.cold_start, inputs) as run:
        user_table, asked = read_parquet(users, USERS), read_parquet(prompts, PROMPTS)
        unseen = [row for row in user_table.to_pylist() if row["group"] == UNSEEN]
        if not unseen:
            raise InputError(f"{users}: has no unseen user, who could be new; set population.unseen")
        own = by_user(read_parquet(pairs, PAIRS).to_pylist(), unseen, str(pairs))
        answered = [row for row in asked.to_pylist() if row["split"] == experiment.evaluation.split]
        cold = Cold(experiment, unseen, own, spread(answered, experiment.user_evaluation.prompts), backbone, models)
        judged: list[dict] = []
        for method, count, rows in (*by_soups(cold, run), *by_rows(cold, trained, run)):
            scores = user_scores(asked, user_table, pa.Table.from_pylist(rows, ANSWERS))
            judged += [{**row, "method": method, "pairs": count} for row in scores]
        table = pa.Table.from_pylist(judged, COLD_SCORES)
        order = ("method", "pairs", "user", "prompt_id", "sample")
        write_parquet(out / "scores.parquet", table.sort_by([(name, "ascending") for name in order]))
        run.log({"answers": len(judged)})
        run.output(out / "scores.parquet")
