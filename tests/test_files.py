"""Claims about reading and writing files: whole or not at all, the same bytes for the same content, and digests."""

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlphf.errors import InputError
from rlphf.files import (
    atomic_file,
    atomic_folder,
    digest,
    read_json,
    read_parquet,
    read_yaml,
    sha256,
    write_json,
    write_parquet,
    write_text,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def names(folder: Path) -> list[str]:
    """Return everything below a folder, hidden files included."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_file_appears_whole_and_alone(tmp_path):
    with atomic_file(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("half")
        assert not (tmp_path / "new" / "a.txt").exists()
        temporary.write_text("whole")
    assert names(tmp_path) == ["new", "new/a.txt"]
    assert (tmp_path / "new" / "a.txt").read_text() == "whole"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_failure_leaves_the_old_file_and_nothing_else(tmp_path, error):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(error), atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise error
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_file_that_cannot_be_put_in_place_leaves_nothing(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError), atomic_file(tmp_path / "taken"):
        pass
    assert names(tmp_path) == ["taken"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_failure_leaves_the_old_folder_and_nothing_else(tmp_path, error):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("old")
    with pytest.raises(error), atomic_folder(tmp_path / "out") as temporary:
        (temporary / "b.txt").write_text("half")
        raise error
    assert names(tmp_path) == ["out", "out/a.txt"]


def test_folder_takes_the_place_of_the_old_one_as_a_whole(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.txt").write_text("old")
    with atomic_folder(tmp_path / "out") as temporary:
        (temporary / "b.txt").write_text("new")
        assert names(tmp_path / "out") == ["a.txt"]
    assert names(tmp_path) == ["out", "out/b.txt"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_to_a_folder_stays_and_its_target_is_replaced(tmp_path, exists):
    (tmp_path / "disk").mkdir()
    if exists:
        write_text(tmp_path / "disk" / "out" / "a.txt", "old")
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "out")
    with atomic_folder(tmp_path / "out") as temporary:
        (temporary / "b.txt").write_text("new")
    assert (tmp_path / "out").is_symlink() and names(tmp_path / "disk") == ["out", "out/b.txt"]


def test_a_link_to_itself_is_no_place_for_a_folder_and_stays(tmp_path):
    (tmp_path / "out").symlink_to("out")
    with pytest.raises(NotADirectoryError), atomic_folder(tmp_path / "out"):
        pass
    assert names(tmp_path) == ["out"]


def test_outputs_are_as_readable_as_any_new_file(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "a.txt", "x")
        with atomic_folder(tmp_path / "out"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750


def test_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_digest_of_a_folder_is_that_of_names_and_contents_without_hidden_files(tmp_path):
    (tmp_path / "one" / "sub").mkdir(parents=True)
    (tmp_path / "one" / "a").write_text("1")
    (tmp_path / "one" / "sub" / "b").write_text("2")
    first = sha256(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    (tmp_path / "two" / ".hidden").write_text("3")
    write_text(tmp_path / "two" / "sub" / ".git" / "index", "4")
    assert sha256(tmp_path / "two") == first
    (tmp_path / "two" / "sub" / "b").rename(tmp_path / "two" / "b")
    assert sha256(tmp_path / "two") != first
    (tmp_path / "one" / "a").write_text("2")
    assert sha256(tmp_path / "one") != first


@given(JSON, JSON)
def test_digests_agree_for_equal_values_and_no_others(a, b):
    assert (digest(a) == digest(b)) == (repr(_sorted(a)) == repr(_sorted(b)))


def _sorted(value):
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(v) for v in value] if isinstance(value, list) else value


@given(value=JSON)
def test_json_reads_back_as_it_was(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    assert read_json(path) == value


@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe"])
def test_json_that_cannot_be_read_is_refused_by_name(tmp_path, content):
    if content is not None:
        (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.json: cannot be read as JSON"):
        read_json(tmp_path / "x.json")


def test_equal_tables_give_equal_bytes(tmp_path):
    whole = pa.table({"a": [1, 2, 3], "b": ["x", "y", None]})
    pieces = pa.concat_tables([whole.slice(0, 1), whole.slice(1)]).replace_schema_metadata({"pandas": "{}"})
    write_parquet(tmp_path / "whole.parquet", whole)
    write_parquet(tmp_path / "pieces.parquet", pieces)
    assert (tmp_path / "whole.parquet").read_bytes() == (tmp_path / "pieces.parquet").read_bytes()
    assert read_parquet(tmp_path / "pieces.parquet") == whole


def test_table_that_cannot_be_written_leaves_nothing(tmp_path):
    with pytest.raises(AttributeError):
        write_parquet(tmp_path / "a.parquet", None)
    assert names(tmp_path) == []


def test_table_is_read_in_the_columns_and_types_of_the_schema(tmp_path):
    write_parquet(tmp_path / "a.parquet", pa.table({"x": [1], "n": [1], "name": ["a"]}))
    schema = pa.schema([("name", pa.string()), ("n", pa.float64())])
    assert read_parquet(tmp_path / "a.parquet", schema) == pa.table({"name": ["a"], "n": [1.0]}, schema)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (pa.schema([("missing", pa.string())]), "column missing is missing; expected missing"),
        (pa.schema([("name", pa.int64())]), "wrong column type"),
    ],
)
def test_table_of_another_layout_is_refused_by_name(tmp_path, schema, message):
    write_parquet(tmp_path / "a.parquet", pa.table({"name": ["a"]}))
    with pytest.raises(InputError, match=rf"a\.parquet: {message}"):
        read_parquet(tmp_path / "a.parquet", schema)


@pytest.mark.parametrize("content", [None, b"", b"PAR1 this is none PAR1"])
def test_file_that_is_no_parquet_is_refused_by_name(tmp_path, content):
    if content is not None:
        (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.parquet: cannot be read as Parquet"):
        read_parquet(tmp_path / "a.parquet")


@pytest.mark.parametrize("text", ['a: "\\ud800"', '"\\udfff": 1', 'a: [b, "\\ud83d\\ude00"]'])
def test_yaml_with_half_a_character_is_refused_by_its_line(tmp_path, text):
    (tmp_path / "a.yaml").write_text("x: 1\n" + text)
    with pytest.raises(InputError, match=r"a\.yaml: line 2: half of a surrogate pair is no text"):
        read_yaml(tmp_path / "a.yaml")
