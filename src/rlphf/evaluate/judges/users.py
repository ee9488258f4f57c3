"""Judge "oracle" for users: how well an answer serves the user who asked, by the user's own weights over the preferences."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from rlphf.config import load
from rlphf.data.records import PROMPTS
from rlphf.errors import InputError
from rlphf.evaluate.scores import HELPFULNESS
from rlphf.files import read_parquet, write_parquet
from rlphf.preferences import PREFERENCES
from rlphf.testbed import oracle
from rlphf.testbed.users import USERS
from rlphf.tracking.record import step
from rlphf.users.records import ANSWERS, USER_SCORES


def user_scores(prompts: pa.Table, users: pa.Table, answers: pa.Table, where: str = "answers") -> list[dict]:
    """Return the oracle's score of every answer by its user's weights, as rows of USER_SCORES.

    Raises InputError, naming the row in `where`, for a prompt that has no topic and for a user that is not among `users`.
    """
    topics = dict(zip(prompts["id"].to_pylist(), prompts["topic"].to_pylist(), strict=True))
    weights = {row["id"]: {name: row[name] for name in PREFERENCES if row[name]} for row in users.to_pylist()}
    rows = []
    keys = ("prompt_id", "method", "user", "sample")
    for number, row in enumerate(answers.to_pylist()):
        topic = topics.get(row["prompt_id"])
        if topic is None or row["user"] not in weights:
            fault = f"user {row['user']} is not among the users" if topic else f"prompt {row['prompt_id']!r} has no topic"
            raise InputError(f"{where}: row {number + 1}: {fault}; the oracle judges answers to the testbed's users")
        scores = oracle.scores(row["response"], topic)
        own = sum(weight * scores[name] for name, weight in weights[row["user"]].items())
        rows.append({name: row[name] for name in keys} | {"score": own, HELPFULNESS: scores[HELPFULNESS]})
    return rows


def judge_users_step(config: Path, prompts: Path, users: Path, answers: Sequence[Path], out: Path) -> None:
    """Write the oracle's scores of the answers in the files `answers` to `out`, in a folder of its own."""
    experiment = load(config)
    inputs = {"prompts": prompts, "users": users, **{"/".join(path.parts[-2:]): path for path in answers}}
    with step("judge users", out.parent, experiment, experiment.evaluation, inputs, {"judge": "oracle"}) as run:
        asked, user_table = read_parquet(prompts, PROMPTS), read_parquet(users, USERS)
        rows = [row for path in answers for row in user_scores(asked, user_table, read_parquet(path, ANSWERS), str(path))]
        table = pa.Table.from_pylist(rows, USER_SCORES)
        write_parquet(out, table.sort_by([(name, "ascending") for name in ("method", "user", "prompt_id", "sample")]))
        run.output(out)
