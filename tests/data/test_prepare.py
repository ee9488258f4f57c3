import json
import subprocess
import sys
from collections import defaultdict

import pytest

from rlphf.data import waiting
from rlphf.data.counts import COUNTS
from rlphf.data.dedup import normalise
from rlphf.data.prepare import QUARANTINE, QUARANTINED, prepare, prepare_step
from rlphf.data.records import PAIRS, PROMPTS, check_pairs, check_prompts, pair_id, prompt_id
from rlphf.errors import InputError
from rlphf.files import read_parquet, sha256
from rlphf.preferences import instruction
from rlphf.settings_data import Source

A = Source(kind="table", path="a.jsonl", preference="P1A")
B = Source(kind="table", path="b.jsonl", preference="P1B")
KOALA = Source(kind="koala", path="koala.json")


def pair(prompt, chosen="yes", rejected="no", **more):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def many(n, **more):
    return [pair(f"Question {i}?", **more) for i in range(n)]


def reasons(tables, preference="P1A"):
    return {row["reason"]: row["dropped"] for row in tables["data"] if row["preference"] == preference}


def test_a_pair_is_written_with_its_id_source_and_split(write, run):
    write("a.jsonl", [pair(" Why? ", " yes ", "no", user=2, probability=0.75)])
    tables = run(A)
    content = {"prompt": "Why?", "chosen": "yes", "rejected": "no", "preference": "P1A", "user": 2}
    assert tables["pairs"] == [
        {"id": pair_id(*content.values()), **content, "probability": 0.75, "source": "a.jsonl", "split": "train"}
    ]
    assert tables["prompts"] == [
        {"id": prompt_id("Why?"), "prompt": "Why?", "topic": None, "source": "a.jsonl", "split": "train"}
    ]
    assert set(tables) == {"pairs", "prompts", "data"}


def test_written_tables_follow_their_schemas_and_rules(write, run, tmp_path):
    write("a.jsonl", many(40) + many(40, chosen="maybe"))
    write("koala.json", [{"id": "0", "prompt": "Where?"}])
    run(A, KOALA, validation=0.2, test=0.2)
    check_pairs(read_parquet(tmp_path / "out" / "pairs.parquet", PAIRS), "pairs")
    check_prompts(read_parquet(tmp_path / "out" / "prompts.parquet", PROMPTS), "prompts")
    assert read_parquet(tmp_path / "out" / "data.parquet").schema == COUNTS


def test_empty_and_identical_answers_and_repeats_are_dropped_with_their_reasons(write, run):
    rows = [pair("a"), pair("b", ""), pair("c", "x", " x"), pair("a"), pair("A!"), pair("d"), pair("d?", "no", "yes")]
    write("a.jsonl", rows)
    tables = run(A)
    assert [row["prompt"] for row in tables["pairs"]] == ["a"]
    assert reasons(tables) == {
        "all": 6,
        "empty answer": 1,
        "identical answers": 1,
        "repeated": 1,
        "repeated apart from case, spacing or punctuation": 1,
        "contradicted: another record chooses the other answer": 2,
    }


def test_repeats_and_contradictions_are_found_across_sources(write, run):
    write("a.jsonl", [pair("a"), pair("b")])
    write("b.jsonl", [pair("a", preference="P1A"), pair("b", "no", "yes", preference="P1A"), pair("c", preference="P1A")])
    tables = run(A, B)
    assert [(row["source"], row["prompt"]) for row in tables["pairs"]] == [("a.jsonl", "a"), ("b.jsonl", "c")]


def test_every_record_read_is_kept_or_dropped(write, run):
    write("a.jsonl", many(30) + many(7) + [pair("x", ""), pair(3), {"prompt": "x"}])
    write("koala.json", [{"id": str(i), "prompt": f"question {i}"} for i in range(25, 35)] * 2)
    tables = run(A, KOALA, validation=0.3, test=0.3, bad="quarantine")
    for row in tables["data"]:
        if row["reason"] == "all":
            assert row["read"] == row["kept"] + row["dropped"]
            assert row["kept"] == row["train"] + row["validation"] + row["test"]
            parts = [r for r in tables["data"] if (r["source"], r["preference"]) == (row["source"], row["preference"])]
            assert row["dropped"] == sum(r["dropped"] for r in parts if r["reason"] != "all")
    total = next(row for row in tables["data"] if row["source"] == "all")
    assert (total["read"], total["kept"]) == (60, 40)
    assert reasons(tables)[QUARANTINED] == 2


def test_a_prompt_lies_in_one_split_whatever_source_preference_or_wording_it_has(write, run):
    write("a.jsonl", many(200))
    write("b.jsonl", [pair(row["prompt"].upper().replace("?", " ?!")) for row in many(200)])
    write("koala.json", [{"id": "0", "prompt": row["prompt"]} for row in many(50)])
    tables = run(A, B, KOALA, validation=0.3, test=0.3)
    splits = defaultdict(set)
    for row in tables["pairs"] + tables["prompts"]:
        splits[normalise(row["prompt"])].add(row["split"])
    assert len(splits) == 200 and all(len(found) == 1 for found in splits.values())
    assert {split for found in splits.values() for split in found} == {"train", "validation", "test"}


def test_prompts_stand_once_and_those_without_answers_first(write, run):
    write("a.jsonl", [pair("Why?"), pair("Why?", "maybe"), pair("why", "perhaps"), pair("How?")])
    write("koala.json", [{"id": "0", "prompt": "How?"}])
    tables = run(A, KOALA)
    assert [(row["source"], row["prompt"]) for row in tables["prompts"]] == [("koala.json", "How?"), ("a.jsonl", "Why?")]


def test_splits_stay_when_data_is_added_and_rows_are_reordered(write, run, tmp_path):
    write("a.jsonl", many(100))
    before = {row["id"]: row["split"] for row in run(A, validation=0.2, test=0.2)["pairs"]}
    write("a.jsonl", [pair("Something new?"), *reversed(many(130))])
    after = {row["id"]: row["split"] for row in run(A, out=tmp_path / "more", validation=0.2, test=0.2)["pairs"]}
    assert len(after) == 131 and {key: after[key] for key in before} == before


def test_the_same_input_gives_the_same_bytes_also_in_another_folder_and_process(write, tmp_path):
    for folder in ("one", "two"):
        write(f"{folder}/a.jsonl", [*many(50), pair(3)])
    prepare([A], tmp_path / "out", 7, 0.2, 0.2, "quarantine", tmp_path / "one")
    code = (
        "import sys; from pathlib import Path; from rlphf.settings_data import Source; from rlphf.data.prepare import prepare;"
        "prepare([Source(kind='table', path=sys.argv[1] + '/two/a.jsonl', preference='P1A')],"
        " Path(sys.argv[1]) / 'again', 7, 0.2, 0.2, 'quarantine', Path(sys.argv[1]) / 'two')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    names = ["data", "pairs", "prompts", "quarantine"]
    assert [sha256(tmp_path / "out" / f"{n}.parquet") for n in names] == [
        sha256(tmp_path / "again" / f"{n}.parquet") for n in names
    ]


def test_absolute_paths_do_not_reach_the_outputs(write, run, tmp_path):
    path = write("deep/data/a.jsonl", [*many(5), pair(3)])
    prepare([Source(kind="table", path=str(path))], tmp_path / "out", 1, 0, 0, "quarantine", tmp_path / "elsewhere")
    tables = {p.stem: read_parquet(p).to_pylist() for p in (tmp_path / "out").glob("*.parquet")}
    assert {row["source"] for name in ("pairs", "prompts", "quarantine") for row in tables[name]} == {"data/a.jsonl"}
    assert tables["quarantine"][0]["file"] == "data/a.jsonl"


def test_names_of_absolute_paths_grow_until_they_differ(write, tmp_path):
    for n, name in enumerate(
        ("one/data/a.jsonl", "two/data/a.jsonl", "b/two/data/a.jsonl", "other/a.jsonl", "cwd/other/a.jsonl")
    ):
        write(name, [*many(n + 1, chosen=f"yes {n}"), pair(3)])
    folder = write("c/folder/x/bad.jsonl", [*many(9, chosen="so"), pair(3)]).parent.parent
    names = ["one/data/a.jsonl", "two/data/a.jsonl", "b/two/data/a.jsonl", "other/a.jsonl"]
    paths = ["other/a.jsonl", *(str(tmp_path / name) for name in names), str(tmp_path / names[0]), str(folder)]
    sources = [Source(kind="table", path=path) for path in paths]
    prepare(sources, tmp_path / "out", 1, 0, 0, "quarantine", tmp_path / "cwd")
    tables = {p.stem: read_parquet(p).to_pylist() for p in (tmp_path / "out").glob("*.parquet")}
    two, other = f"{tmp_path.name}/two/data/a.jsonl", f"{tmp_path.name}/other/a.jsonl"
    expected = ["other/a.jsonl", "one/data/a.jsonl", two, "b/two/data/a.jsonl", other, "c/folder"]
    assert list(dict.fromkeys(row["source"] for row in tables["pairs"])) == expected
    assert {row["source"] for row in tables["data"]} == {*expected, "all"}
    files = [row["file"] for row in tables["quarantine"]]
    assert files == [*expected[:-1], "one/data/a.jsonl", "c/folder/x/bad.jsonl"]


def test_a_bad_record_stops_with_file_line_and_field_and_leaves_nothing_behind(write, run, tmp_path):
    write("a.jsonl", [*many(3), {"prompt": "x", "chosen": 5, "rejected": "y"}])
    with pytest.raises(InputError, match=r"a.jsonl, line 4, field chosen: expected text, got int; correct it, or set"):
        run(A)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_failure_leaves_the_former_outputs_as_they_were(write, run, tmp_path):
    write("a.jsonl", many(3))
    run(A)
    before = sha256(tmp_path / "out")
    write("a.jsonl", [*many(4), pair(3)])
    with pytest.raises(InputError):
        run(A)
    assert sha256(tmp_path / "out") == before


def test_bad_records_are_set_aside_with_file_line_field_reason_and_the_record(write, run, tmp_path):
    path = write("a.jsonl", many(2))
    path.write_bytes(
        path.read_bytes() + b'{"prompt": \n{"prompt": "bad \xff byte", "chosen": "y", "rejected": "n"}\n{"prompt": "x"}\n'
    )
    tables = run(A, bad="quarantine")
    assert len(tables["pairs"]) == 2
    assert read_parquet(tmp_path / "out" / "quarantine.parquet").schema == QUARANTINE
    assert [(row["source"], row["file"], row["line"], row["field"]) for row in tables["quarantine"]] == [
        ("a.jsonl", "a.jsonl", 3, ""),
        ("a.jsonl", "a.jsonl", 4, "prompt"),
        ("a.jsonl", "a.jsonl", 5, "chosen"),
    ]
    assert tables["quarantine"][1]["reason"] == "is not valid UTF-8"
    assert json.loads(tables["quarantine"][2]["record"]) == {"prompt": "x"}
    assert reasons(tables)[QUARANTINED] == 3


def test_the_quarantine_goes_when_it_is_not_asked_for(write, run, tmp_path):
    write("a.jsonl", [*many(2), pair(3)])
    assert "quarantine" in run(A, bad="quarantine")
    write("a.jsonl", many(2))
    assert "quarantine" not in run(A)
    assert run(A, bad="quarantine")["quarantine"] == []


def test_no_sources_give_empty_tables(run):
    assert run(validation=0.1, test=0.1) == {"pairs": [], "prompts": [], "data": []}


def test_a_split_that_would_stay_empty_is_refused(write, run, tmp_path):
    write("a.jsonl", many(1))
    with pytest.raises(InputError, match="the split (validation|test) is empty: 1 records are too few"):
        run(A, validation=0.1, test=0.1)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_leaking_split_fails_the_step(write, run, monkeypatch, tmp_path):
    write("a.jsonl", [pair("Why?"), pair("why", "maybe"), pair("How?")])
    monkeypatch.setattr(waiting, "assign", lambda prompt, *_: "test" if prompt == "why" else "train")
    with pytest.raises(InputError, match="'why' is in the splits train and test"):
        run(A, test=0.5)
    assert list((tmp_path / "out").iterdir()) == []


def test_more_rows_than_a_batch_come_out_in_order_with_late_contradictions_gone(write, run, monkeypatch):
    monkeypatch.setattr("rlphf.data.writer.BATCH", 7)
    write("a.jsonl", [*many(50), pair("Question 20?", "no", "yes")])
    prompts = [row["prompt"] for row in run(A)["pairs"]]
    assert prompts == [f"Question {i}?" for i in range(50) if i != 20]


def test_psoups_files_give_pairs_without_the_preference_prompt(write, run):
    for name in ("P1A", "P1B"):
        row = {"user_input": instruction("Why?", [name]), "completion_a": "yes", "completion_b": "no"}
        write(f"rm_training/{name}.json", [row] * 3)
    tables = run(Source(kind="psoups", path="rm_training"))
    assert [(row["prompt"], row["preference"], row["source"]) for row in tables["pairs"]] == [
        ("Why?", "P1A", "rm_training"),
        ("Why?", "P1B", "rm_training"),
    ]
    assert reasons(tables)["repeated"] == 2


def test_the_step_reads_configured_sources_and_leaves_a_record(write, tmp_path, monkeypatch):
    write("a.jsonl", [*many(60), pair("x", "")])
    config = tmp_path / "config.yaml"
    config.write_text("experiment: t\ndata: {sources: [{kind: table, path: a.jsonl, preference: P1A}]}\n")
    monkeypatch.chdir(tmp_path)
    prepare_step(config, None, tmp_path / "out")
    assert len(read_parquet(tmp_path / "out" / "pairs.parquet")) == 60
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    assert record["status"] == "finished" and "out/pairs.parquet" in record["outputs"] and "a.jsonl" in record["inputs"]
    metrics = {}
    for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines():
        metrics |= json.loads(line)["metrics"]
    assert metrics == {"read": 61, "kept": 60, "dropped": 1, "quarantined": 0}


def test_a_raw_folder_takes_the_place_of_the_configured_sources(write, tmp_path):
    write("raw/own.jsonl", many(60))
    config = tmp_path / "config.yaml"
    config.write_text("experiment: t\ndata: {sources: [{kind: table, path: absent.jsonl}]}\n")
    prepare_step(config, tmp_path / "raw", tmp_path / "out")
    assert {row["source"] for row in read_parquet(tmp_path / "out" / "pairs.parquet").to_pylist()} == {"own.jsonl"}
    recorded = json.loads((tmp_path / "out" / "record.json").read_text())["params"]["sources"]
    assert [source["path"] for source in recorded] == ["own.jsonl"]


def test_a_source_that_is_not_there_is_named_and_no_step_that_would_make_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "config.yaml"
    config.write_text("experiment: t\ndata: {sources: [{kind: table, path: absent.jsonl}]}\n")
    with pytest.raises(InputError, match="^absent.jsonl: no such file, nor a folder of"):
        prepare_step(config, None, tmp_path / "out")


def test_preparing_imports_no_model_library():
    code = (
        "import sys, rlphf.data.prepare; print([m for m in ('torch', 'transformers', 'datasets', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_outputs_do_not_go_into_the_folder_that_is_read(write, tmp_path):
    write("raw/own.jsonl", many(60))
    config = tmp_path / "config.yaml"
    config.write_text("experiment: t\n")
    with pytest.raises(InputError, match="--out: .* lies in the folder of --raw"):
        prepare_step(config, tmp_path / "raw", tmp_path / "raw" / "prepared")
    assert not (tmp_path / "raw" / "prepared").exists()
