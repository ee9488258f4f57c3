"""Claims about the step that imports users: its tables, record and refusals, and that the same input gives the same bytes."""

import json

import pyarrow.parquet as pq
import pytest

from rlphf.cli import main
from rlphf.data.counts import COUNTS
from rlphf.data.people import PEOPLE, check_people
from rlphf.data.records import PAIRS, PROMPTS, check_pairs, check_prompts
from rlphf.data.splits import check_leaks
from rlphf.data.user_import import import_users
from rlphf.files import read_json, read_parquet, sha256
from rlphf.settings_users import UserData

TABLES = ("users", "pairs", "prompts", "counts")


def opinion(n, yes=True):
    answers = (" Yes", " No") if yes else (" No", " Yes")
    return {
        "question": f"Do you like thing {n}?",
        "answer_matching_behavior": answers[0],
        "answer_not_matching_behavior": answers[1],
    }


@pytest.fixture
def personas(write, tmp_path):
    for k, name in enumerate(("art", "math", "sport", "music")):
        write(f"personas/{name}.jsonl", [opinion(n, n % 3 > 0) for n in range(10 * k, 10 * k + 60)])

    def config(**settings):
        data = {"source": "persona", "path": str(tmp_path / "personas"), **settings}
        (tmp_path / "config.yaml").write_text(json.dumps({"experiment": "t", "user_data": data}))
        return ["users", "import", "--config", str(tmp_path / "config.yaml"), "--out"]

    return config


def test_the_step_writes_tables_that_keep_their_rules_and_a_record(personas, tmp_path):
    out = tmp_path / "out"
    assert main([*personas(unseen=0.25, pairs_per_user=30), str(out)]) == 0
    schemas = dict(zip(TABLES, (PEOPLE, PAIRS, PROMPTS, COUNTS), strict=True))
    tables = {name: pq.read_table(out / f"{name}.parquet") for name in TABLES}
    assert all(tables[name].schema == schemas[name] for name in TABLES)
    check_people(tables["users"], "users")
    check_pairs(tables["pairs"], "pairs")
    check_prompts(tables["prompts"], "prompts")
    check_leaks(tables["pairs"], tables["prompts"])
    assert set(tables["prompts"]["prompt"].to_pylist()) == set(tables["pairs"]["prompt"].to_pylist())
    groups = tables["users"]["group"].to_pylist()
    assert groups.count("unseen") == 1 and len(groups) == 4
    record = read_json(out / "record.json")
    assert record["status"] == "finished" and len(record["outputs"]) == 4 and "persona" in record["inputs"]
    total = [row for row in tables["counts"].to_pylist() if row["source"] == "all" and row["reason"] == "all"]
    assert total[0]["read"] == 240 and total[0]["kept"] == len(tables["pairs"]) == 240 - total[0]["dropped"]


def test_the_same_input_gives_the_same_bytes_and_another_seed_others(personas, tmp_path):
    for name in ("one", "two"):
        assert main([*personas(unseen=0.25, pairs_per_user=30, users=3), str(tmp_path / name)]) == 0
    for name in TABLES:
        assert sha256(tmp_path / "one" / f"{name}.parquet") == sha256(tmp_path / "two" / f"{name}.parquet")
    data = UserData(source="persona", path=str(tmp_path / "personas"))
    assert not import_users(data, 1, "error").pairs.equals(import_users(data, 2, "error").pairs)


def test_fewer_users_are_drawn_and_the_others_counted(personas, tmp_path):
    personas()
    made = import_users(UserData(source="persona", path=str(tmp_path / "personas"), users=2), 3, "error")
    assert len(made.users) == 2 and set(made.pairs["user"].to_pylist()) == set(made.users["id"].to_pylist())
    reasons = {r["reason"]: r["dropped"] for r in made.counts.to_pylist() if r["source"] == "all"}
    assert reasons == {"all": 120, "user is beyond user_data.users": 120}


def test_a_bad_record_ends_the_step_with_one_line_and_no_output(personas, write, tmp_path, capsys):
    write("personas/art.jsonl", [opinion(1), {"question": 3}])
    assert main([*personas(), str(tmp_path / "out")]) == 2
    assert (
        capsys.readouterr()
        .err.strip()
        .endswith("art.jsonl, line 2, field question: expected text, got int; correct it, or set data.on_bad_record: quarantine")
    )
    assert not list((tmp_path / "out").glob("*.parquet"))
    config = json.loads((tmp_path / "config.yaml").read_text()) | {"data": {"on_bad_record": "quarantine"}}
    (tmp_path / "config.yaml").write_text(json.dumps(config))
    command = ["users", "import", "--config", str(tmp_path / "config.yaml"), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert len(read_parquet(tmp_path / "out" / "quarantine.parquet")) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"source": "testbed", "path": None}, "user_data.source: testbed has no raw files"),
        ({"source": "prism"}, "0 files have 'survey' in their names"),
        ({"path": "absent"}, "error: absent: no such file, nor a folder of"),
        ({"unseen": 0.9}, "user_data.unseen: 0.9 holds out all 4 users, and trains on none; lower it"),
        ({"validation": 0.001}, "user_data: the split validation is empty: 240 records are too few"),
    ],
)
def test_what_cannot_be_imported_is_one_line(personas, tmp_path, capsys, settings, message):
    assert main([*personas(**settings), str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
