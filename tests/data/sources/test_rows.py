import gzip
import json
import logging
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlphf.data.sources import rows as module
from rlphf.data.sources.raw import Bad, convert, text
from rlphf.data.sources.rows import files, readable, rows, stem
from rlphf.errors import InputError

RECORDS = [{"a": "x", "b": "line\u2028one\r\n"}, {"a": "naïve", "b": "]},["}]


def good(path):
    """Return [(number, record), ...] and fail on bad records."""
    found = list(rows(path))
    assert not any(isinstance(row, Bad) for row in found)
    return [(place.number, record) for place, record in found]


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("end", ["", ".gz"])
def test_every_format_gives_the_same_records_in_order(tmp_path, end):
    lines = "\n".join(json.dumps(record, ensure_ascii=False) for record in RECORDS)
    table = pa.Table.from_pylist(RECORDS)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    contents = {
        "a.jsonl": lines.encode(),
        "b.json": json.dumps(RECORDS, indent=4).encode(),
        "c.json": b"\xef\xbb\xbf \n" + json.dumps(RECORDS, ensure_ascii=False).encode(),
        "d.json": lines.encode(),
        "e.csv": 'a,b\nx,"line\u2028one\r\n"\n\nnaïve,"]},["\n'.encode(),
        "e.tsv": 'a\tb\nx\t"line\u2028one\r\n"\n\nnaïve\t"]},["\n'.encode(),
        "g.ndjson": lines.encode(),
        "f.parquet": sink.getvalue().to_pybytes(),
    }
    for name, content in contents.items():
        assert [record for _, record in good(put(tmp_path / (name + end), content))] == RECORDS, name


def test_records_are_numbered_by_line_or_by_place_in_the_list(tmp_path):
    assert good(put(tmp_path / "a.jsonl", b'\n{"a": 1}\n\n{"a": 2}')) == [(2, {"a": 1}), (4, {"a": 2})]
    assert good(put(tmp_path / "a.json", b'[{"a": 1},\n\n{"a": 2}]')) == [(1, {"a": 1}), (2, {"a": 2})]
    assert good(put(tmp_path / "a.csv", b'a\n"1\n1"\n2\n')) == [(2, {"a": "1\n1"}), (4, {"a": "2"})]


def test_empty_files_and_lists_hold_no_records(tmp_path):
    for name, content in {"a.jsonl": b"", "b.json": b" [ ] \n", "c.csv": b"a,b\n", "d.csv": b""}.items():
        assert good(put(tmp_path / name, content)) == []


NUMBERS = st.integers() | st.booleans() | st.floats(allow_nan=False)


@settings(max_examples=60)
@given(
    records=st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=40) | NUMBERS | st.none(), max_size=3)),
    chunk=st.integers(1, 30),
    indent=st.sampled_from([None, 0, 20]),
    escaped=st.booleans(),
)
def test_a_list_is_read_alike_whatever_the_size_of_the_chunks(tmp_path_factory, records, chunk, indent, escaped):
    path = put(tmp_path_factory.mktemp("json") / "a.json", json.dumps(records, indent=indent, ensure_ascii=escaped).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK", chunk)
        assert [record for _, record in good(path)] == records


@pytest.mark.parametrize(
    ("fault", "reason"), [('{"a" 1}', "character 6: Expecting ':' delimiter"), ('{"a": 1, "a": 2}', "'a' is named twice")]
)
def test_a_fault_at_the_beginning_of_a_long_list_is_named_and_not_its_length(tmp_path, monkeypatch, fault, reason):
    monkeypatch.setattr(module, "_CHUNK", 64)
    monkeypatch.setattr(module, "_LONGEST", 1000)
    path = put(tmp_path / "a.json", f"[{fault}{', {}' * 2000}]".encode())
    with pytest.raises(InputError, match=f"record 1: is not JSON \\({reason}\\); correct the file"):
        list(rows(path))


def test_a_broken_line_is_bad_and_the_rest_is_read(tmp_path):
    found = list(rows(put(tmp_path / "a.jsonl", b'{"a": 1}\n{"a": \n[1]\n"x"\n{"a": 2}\n')))
    assert [row.place.number for row in found if isinstance(row, Bad)] == [2, 3, 4]
    assert "is not JSON" in found[1].reason and "got list" in found[2].reason and "got str" in found[3].reason
    assert found[4][1] == {"a": 2}


def test_a_deeply_nested_line_is_bad(tmp_path):
    (row,) = rows(put(tmp_path / "a.jsonl", b'{"a": ' + b"[" * 100_000 + b"\n"))
    assert isinstance(row, Bad)


def test_an_element_of_a_list_that_is_no_object_is_bad(tmp_path):
    first, second = rows(put(tmp_path / "a.json", b'[12, {"a": 1}]'))
    assert isinstance(first, Bad) and first.place.number == 1
    assert second[1] == {"a": 1}


def test_a_csv_row_with_too_few_or_too_many_fields_is_bad(tmp_path):
    found = list(rows(put(tmp_path / "a.csv", b"a,b\n1,2\n1\n1,2,3\n")))
    assert [row.place.number for row in found if isinstance(row, Bad)] == [3, 4]
    assert found[1].reason == "has 1 fields, the header 2"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", b'[{"a": 1}, {"a": ]', "record 2: is not JSON"),
        ("a.json", b'[{"a": 1}', "record 1: is not JSON"),
        ("a.json", b'[{"a": 1} {"a": 2}]', "record 1: expected a comma"),
        ("a.json", b'[{"a": 1},]', "record 2: is not JSON"),
        ("a.json", b"[" * 100_000, "record 1: is not JSON"),
        ("a.json", b'[{"a": 1}]\n[{"a": 2}]\n', "more stands behind the end of its list of 1 records"),
        ("a.json", b'[] {"a": 1}', "more stands behind the end of its list of 0 records"),
        ("a.csv", b'a,b\n1,2\n"1,2\n3,4\n', "line 4: is not CSV"),
        ("a.tsv", b'a\tb\n1\t2\n"1\t2\n3\t4\n', "line 4: is not TSV"),
        ("a.csv", b"b,a,a\n1,2,3\n", "line 1: two columns have one name, 'a'; rename one"),
        ("a.csv", b"b,,\n1,,\n", "line 1: two columns have one name, ''; rename one"),
        ("a.parquet", b"PAR1 but no more", "cannot be read"),
        ("a.txt", b"hello", "not one of .json, .jsonl, .ndjson, .csv, .tsv, .parquet"),
    ],
)
def test_a_file_that_cannot_be_read_on_is_refused_by_name(tmp_path, name, content, reason):
    path = put(tmp_path / name, content)
    with pytest.raises(InputError) as caught:
        list(rows(path))
    assert str(path) in str(caught.value) and reason in str(caught.value)


def test_a_cut_off_or_false_archive_is_refused(tmp_path):
    whole = gzip.compress(json.dumps([{"a": str(i) * 9} for i in range(2000)]).encode())
    for n, content in enumerate([whole[: len(whole) // 2], b'[{"a": 1}]', whole[:30] + b"\0\0\0" + whole[33:]]):
        path = tmp_path / f"{n}.json.gz"
        path.write_bytes(content)
        with pytest.raises(InputError, match="cannot be read|is not JSON"):
            list(rows(path))


def test_a_missing_file_and_an_empty_folder_are_refused(tmp_path):
    for path in (tmp_path / "nothing.json", tmp_path):
        with pytest.raises(InputError, match="no such file"):
            files(path)


def test_a_folder_gives_its_readable_files_by_name(tmp_path):
    for name in ("b.json", "a.jsonl.gz", ".hidden.json", "readme.md", "c.gz"):
        put(tmp_path / name, b"")
    (tmp_path / "folder.json").mkdir()
    assert [path.name for path in files(tmp_path)] == ["a.jsonl.gz", "b.json"]
    assert not readable(tmp_path / "readme.md")


def test_a_folder_beside_readable_files_is_left_out_with_a_warning(tmp_path, caplog):
    for name in ("a.json", "more/deep/b.json", "other/readme.md", ".hidden/c.json", "third/.d.json", "plain/x/e.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        put(tmp_path / name, b"")
    with caplog.at_level(logging.WARNING):
        assert files(tmp_path) == [tmp_path / "a.json"]
    expected = [
        f"{tmp_path / name}: a folder beside files, left out; name it as a source of its own" for name in ("more", "plain")
    ]
    assert caplog.messages == expected
    caplog.clear()
    (tmp_path / "a.json").unlink()
    assert [path.name for path in files(tmp_path)] == ["b.json", "e.csv"] and not caplog.messages


def test_stem_takes_off_all_suffixes_and_no_more():
    assert [stem(Path(name)) for name in ("P1A.json", "P1A.jsonl.gz", "v1.5.json", "gpt-4.1.jsonl.gz")] == [
        "P1A",
        "P1A",
        "v1.5",
        "gpt-4.1",
    ]


def test_only_a_line_feed_ends_a_line_of_jsonl(tmp_path):
    path = put(tmp_path / "a.jsonl", '{"a":\r "x\u2028y\x85z"}\r\n{"a": 2}\r\n'.encode())
    assert good(path) == [(1, {"a": "x\u2028y\x85z"}), (2, {"a": 2})]


def test_a_cell_of_parquet_that_python_cannot_hold_spoils_its_own_field_alone(tmp_path):
    bad_text = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(struct.pack("<iii", 0, 2, 3)), pa.py_buffer(b"\xff\xfeb")]
    )
    far = {
        "when": pa.array([2**60, 0], pa.timestamp("us")),
        "day": pa.array([2**30, 0], pa.date32()),
        "took": pa.array([2**62, 0], pa.duration("s")),
        "twice": pa.StructArray.from_arrays([pa.array([1, 2]), pa.array([1, 2])], ["x", "x"]),
    }
    pq.write_table(pa.table({"a": bad_text, **far}), tmp_path / "a.parquet")
    made = list(convert(rows(tmp_path / "a.parquet"), lambda place, record: text(record, "a")))
    assert isinstance(made[0], Bad) and made[0].error("correct it").args[0].endswith(
        "record 1, field a: is not valid UTF-8; correct it"
    )
    assert made[1:] == ["b"]
    (bad, _) = convert(rows(tmp_path / "a.parquet"), lambda place, record: text(record, "when"))
    assert isinstance(bad, Bad) and bad.field == "when" and bad.reason.startswith("expected text, got ")


def test_a_line_nested_as_deep_as_python_just_reads_is_bad_too(tmp_path):
    lines = ["{}", *("[" * depth + "]" * depth for depth in range(400, 1000))]
    path = put(tmp_path / "a.jsonl", "\n".join(lines).encode())
    _, *found = rows(path)
    assert len(found) == 600 and all(isinstance(bad, Bad) and bad.record for bad in found)


def test_the_place_of_a_fault_in_json_is_counted_from_the_records_beginning(tmp_path):
    _, bad = rows(put(tmp_path / "a.jsonl", b'{"a": 1}\n{"a": x}\n'))
    assert isinstance(bad, Bad) and bad.reason == "is not JSON (character 7: Expecting value)"
    with pytest.raises(InputError, match=r"record 2: is not JSON \(character 7: Expecting value\); correct the file"):
        list(rows(put(tmp_path / "a.json", b'[{"a": 1},\n{"a": x}]')))


def test_spaces_around_the_names_of_columns_do_not_belong_to_them(tmp_path):
    assert good(put(tmp_path / "a.csv", b"a, b ,c\n1,2,3\n")) == [(2, {"a": "1", "b": "2", "c": "3"})]


def test_suffixes_may_be_in_capitals(tmp_path):
    table = put(tmp_path / "T.CSV", b"a\n1\n")
    packed = tmp_path / "P1A.Jsonl.GZ"
    packed.write_bytes(gzip.compress(b'{"a": 1}'))
    assert files(tmp_path) == [packed, table] and [stem(packed), stem(table)] == ["P1A", "T"]
    assert good(table) == [(2, {"a": "1"})] and good(packed) == [(1, {"a": 1})]


def test_a_file_whose_name_is_no_text_is_refused(tmp_path):
    with pytest.raises(InputError, match="its name is not valid UTF-8; rename it"):
        list(rows(put(tmp_path / "\udcff.jsonl", b'{"a": 1}')))
