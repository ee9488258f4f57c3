"""New users answered after a few pairs: which answers there are, and that without pairs they are the generic user's."""

from pathlib import Path

import pyarrow as pa
import pytest
from tests.users.serving import PEOPLE, new, questions

from rlphf.data.records import PAIRS
from rlphf.errors import InputError
from rlphf.evaluate import cold_start
from rlphf.evaluate.cold_start import cold_start_step
from rlphf.evaluate.judges.users import user_scores
from rlphf.evaluate.user_answers import answers_step
from rlphf.files import read_json, read_parquet, sha256, write_parquet
from rlphf.testbed.users import USERS
from rlphf.users.records import ANSWERS, COLD_SCORES

ASKED = [questions()[2], questions()[4]]


@pytest.fixture
def start(seed_folder: Path, user_models, tmp_path: Path, monkeypatch):
    """A function that makes the step write to a folder, from the run's files or from `changed` ones."""
    monkeypatch.chdir(seed_folder)
    user_models("individual")

    def started(out: Path, **changed: Path) -> Path:
        own = seed_folder / "users" / "pairs"
        files = {"config": seed_folder / "config.yaml", "prompts": seed_folder / "prompts" / "prompts.parquet"}
        files |= {"users": own / "users.parquet", "pairs": own / "new_pairs.parquet", "models": seed_folder}
        cold_start_step(**files | {"backbone": seed_folder / "backbone" / "model", "out": out} | changed)
        return out

    return started


@pytest.fixture
def rows(start, seed_folder: Path) -> list[dict]:
    out = seed_folder / "users" / "cold_start"
    if not out.exists():
        start(out)
    return read_parquet(out / "scores.parquet", COLD_SCORES).to_pylist()


def test_every_new_user_is_answered_every_prompt_by_both_ways_after_each_number_of_pairs(rows) -> None:
    ways = [
        ("pdpo_individual", 0),
        ("pdpo_individual", 3),
        ("psoups_declared", 0),
        ("psoups_inferred", 0),
        ("psoups_inferred", 3),
    ]
    found = [(row["method"], row["pairs"], row["user"], row["prompt_id"], row["sample"]) for row in rows]
    prompts = sorted(row["id"] for row in ASKED)
    assert found == [(*way, user, prompt, sample) for way in ways for user in (8, 9) for prompt in prompts for sample in range(2)]
    assert all(0 <= row["score"] <= 1 and 0 <= row["helpfulness"] <= 1 for row in rows)


def test_without_pairs_a_new_user_is_answered_as_the_generic_one_and_with_pairs_otherwise(
    rows, seed_folder: Path, user_models, tmp_path: Path, monkeypatch
) -> None:
    # Scores of a tiny model are alike, so the answers are compared, on their way to the judge.
    kept: dict[tuple[str, int], list[str]] = {}

    def keep(prompts, users, answers):
        for row in answers.to_pylist():
            kept.setdefault((row["method"], row["user"]), []).append(row["response"])
        return user_scores(prompts, users, answers)

    monkeypatch.setattr(cold_start, "user_scores", keep)
    own, backbone = seed_folder / "users" / "pairs", seed_folder / "backbone" / "model"
    config, prompts = seed_folder / "config.yaml", seed_folder / "prompts" / "prompts.parquet"
    cold_start_step(config, prompts, own / "users.parquet", own / "new_pairs.parquet", backbone, seed_folder, tmp_path / "cold")
    inputs = (config, "pdpo_individual", prompts, own / "users.parquet", own / "pairs.parquet", backbone)
    answers_step(*inputs, user_models("individual"), tmp_path / "answers")
    generic = read_parquet(tmp_path / "answers" / "answers.parquet", ANSWERS).to_pylist()
    for user in (8, 9):
        found = kept["pdpo_individual", user]
        # Both samples of two prompts, first without and then with pairs of the user's own.
        assert found[:4] == [row["response"] for row in generic if row["user"] == user] and len(found) == 8
    assert kept["pdpo_individual", 8][:4] == kept["pdpo_individual", 9][:4]
    assert kept["pdpo_individual", 8][4:] != kept["pdpo_individual", 9][4:]
    # So are soups: first the even one for everyone, then one of the user's own.
    found = [kept["psoups_inferred", user] for user in (8, 9)]
    assert found[0][:4] == found[1][:4]
    assert found[0][4:] != found[0][:4]
    # A second start gives the same bytes.
    assert sha256(tmp_path / "cold" / "scores.parquet") == sha256(seed_folder / "users" / "cold_start" / "scores.parquet")


def test_the_record_says_what_was_used_and_how_long_a_fit_took(rows, seed_folder: Path) -> None:
    record = read_json(seed_folder / "users" / "cold_start" / "record.json")
    assert record["status"] == "finished" and record["inputs"].keys() >= {"pairs", "user model", "reward/P1A", "ppo/P3A"}
    assert all(float(record["tags"][f"{name}_seconds"]) >= 0 for name in ("pdpo_individual", "psoups_inferred"))


def test_without_new_users_or_with_pairs_of_others_nothing_is_written(start, tmp_path: Path) -> None:
    write_parquet(tmp_path / "users.parquet", pa.Table.from_pylist(PEOPLE[:3], USERS))
    with pytest.raises(InputError, match="has no unseen user, who could be new; set population.unseen"):
        start(tmp_path / "out", users=tmp_path / "users.parquet")
    write_parquet(tmp_path / "pairs.parquet", pa.Table.from_pylist([new()[0] | {"user": 1}], PAIRS))
    with pytest.raises(InputError, match="pairs.parquet: pair 800: user 1 is not among the users"):
        start(tmp_path / "out", pairs=tmp_path / "pairs.parquet")
    assert not list((tmp_path / "out").glob("*.parquet"))
