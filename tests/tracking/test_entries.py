"""Claims about records that were tampered with: they are refused one by one, and take nothing along from elsewhere."""

import json
from pathlib import Path

import pytest

from rlphf.errors import InputError
from rlphf.tracking.entries import artifacts, batches, entries, settled

RECORD = {
    "id": "0123456789abcdef0123456789abcdef",
    "step": "ppo",
    "status": "finished",
    "start": "2026-11-24T10:00:00.000+00:00",
    "host": "here",
    "pid": 1,
}


def put(results: Path, text: str):
    """Write a step's record; return it as what is to be sent."""
    (results / "ppo").mkdir(parents=True)
    (results / "ppo" / "record.json").write_text(text)
    (entry,) = entries(results)
    return entry


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "[" * 100_000, '{"id": 1, "id": 2}', "\ufeff{}", '{"id": "\0"}']
    + [
        json.dumps({**RECORD, name: value})
        for name in RECORD
        for value in (None, [1], "../../x\n")
        if name not in ("step", "host")
    ]
    + [json.dumps({name: value for name, value in RECORD.items() if name != left_out}) for left_out in RECORD],
)
def test_a_broken_record_is_refused_by_name(tmp_path, text):
    with pytest.raises(InputError, match="record.json"):
        settled(put(tmp_path / "results", text), {})


@pytest.mark.parametrize("name", ["/etc/passwd", "../../secret.txt", "../../../secret.txt", "link.txt", "folder"])
def test_a_record_takes_no_file_along_from_outside_of_the_results(tmp_path, name):
    for path in (tmp_path / "secret.txt", tmp_path.parent / "secret.txt"):
        path.write_text("secret")
    record = {**RECORD, "artifacts": [name, "kept.txt"]}
    entry = put(tmp_path / "results", json.dumps(record))
    (entry.home / "link.txt").symlink_to(tmp_path / "secret.txt")
    (entry.home / "folder").mkdir()
    (entry.home / "folder" / "link.txt").symlink_to(tmp_path / "secret.txt")
    (entry.home / "kept.txt").write_text("mine")
    assert [path.name for path, _ in artifacts(entry, record, "finished")] == ["record.json", "kept.txt"]


def test_what_is_hidden_in_a_folder_is_not_taken_along(tmp_path):
    record = {**RECORD, "artifacts": ["tables"]}
    entry = put(tmp_path / "results", json.dumps(record))
    for name in ("kept.csv", ".hidden", ".ipynb_checkpoints/old.csv"):
        (entry.home / "tables" / name).parent.mkdir(parents=True, exist_ok=True)
        (entry.home / "tables" / name).write_text("1")
    assert [path.name for path, _ in artifacts(entry, record, "finished")] == ["record.json", "kept.csv"]


@pytest.mark.parametrize(
    "line",
    ["[" * 100_000, "[]", "null", '{"step": 1}', f'{{"step": 1, "time": 1, "metrics": {{"a": {10**400}}}}}']
    + ['{"step": Infinity, "time": 1, "metrics": {"a": 1}}', '{"step": 1, "time": 1, "metrics": [1]}'],
)
def test_a_broken_line_of_metrics_leaves_only_itself_out(tmp_path, line):
    problems: list[str] = []
    good = '{"step": 1, "time": 1, "metrics": {"a": 1}}'
    points = [point for found, _ in batches(f"{line}\n{good}\n".encode(), 10, tmp_path, problems) for point in found]
    assert points == [("a", 1.0, 1, 1)] and len(problems) == 1
