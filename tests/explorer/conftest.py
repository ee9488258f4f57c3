"""A judged run with users, as its steps leave it, and the explorer made of it."""

from pathlib import Path
from random import Random

import pyarrow as pa
import pytest
import yaml
from tests.evaluate.conftest import answers, build_run
from tests.users.serving import person

from rlphf.config import Experiment, load
from rlphf.data.people import MAJORITY, UNSEEN
from rlphf.data.records import PROMPTS, RESPONSES
from rlphf.evaluate.tables import tables_step
from rlphf.explorer.page import explorer_step
from rlphf.files import read_parquet, write_parquet
from rlphf.soup.recipe import make_recipe, write_recipe
from rlphf.testbed.users import USERS
from rlphf.users.records import ANSWERS, USER_SCORES

SERVING = ("sft", "psoups_inferred")
PEOPLE = [person(1, MAJORITY, P1A=0.6, P3A=0.4), person(2, UNSEEN, P1B=1.0)]
INFERRED = {"P1A": 0.55, "P2B": 0.1, "P3A": 0.35}
# Ends a script element and begins another, if a page takes it for its own.
HOSTILE = "</script><img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script><!--"


def build_explored(folder: Path) -> tuple[Path, Experiment]:
    """Make a run in `folder` whose explorer is explorer.html there; return its seed folder and the experiment."""
    config, seed_folder, _ = build_run(folder)
    raw = yaml.safe_load(config.read_text()) | {"user_evaluation": {"methods": list(SERVING)}}
    (seed_folder / "config.yaml").write_text(yaml.safe_dump(raw))
    experiment = load(seed_folder / "config.yaml")
    tables_step(config, seed_folder, folder / "tables")
    vb = seed_folder / "responses" / "vb" / "responses.parquet"
    first, *others = read_parquet(vb, RESPONSES).to_pylist()
    write_parquet(vb, pa.Table.from_pylist([first | {"response": HOSTILE, "finished": False}, *others], RESPONSES))
    write_users(seed_folder)
    explorer_step(folder, seed_folder, folder / "explorer.html")
    return seed_folder, experiment


def write_users(seed_folder: Path) -> None:
    """Write who the users are, the answers to them, scores of these, and the recipe of a soup."""
    rng, users = Random(1), seed_folder / "users"
    asked = read_parquet(seed_folder / "prompts" / "prompts.parquet", PROMPTS).to_pylist()
    asked = [row for row in asked if row["split"] == "test"][::6]
    write_parquet(users / "pairs" / "users.parquet", pa.Table.from_pylist(PEOPLE, USERS))
    judged = []
    for method in SERVING:
        rows = []
        for user in PEOPLE:
            for row in answers(rng, asked, "pp", user["kind"]):
                key = {"prompt_id": row["prompt_id"], "method": method, "user": user["id"], "sample": 0}
                rows.append(key | {name: row[name] for name in ("response", "tokens", "finished")})
                judged.append(key | {"score": rng.random(), "helpfulness": rng.random()})
        write_parquet(users / "answers" / method / "answers.parquet", pa.Table.from_pylist(rows, ANSWERS))
    write_parquet(users / "judge" / "oracle" / "scores.parquet", pa.Table.from_pylist(judged, USER_SCORES))
    for user in PEOPLE:
        folder = users / "soups" / "inferred" / str(user["id"])
        folder.mkdir(parents=True)
        write_recipe(make_recipe(INFERRED, {name: f"ppo/{name}/adapter" for name in INFERRED}), folder)


@pytest.fixture(scope="session")
def explored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Experiment]:
    """Seed folder and experiment of a run whose explorer lies beside the seed folder."""
    return build_explored(tmp_path_factory.mktemp("explored"))
