import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rlphf.data import writer
from rlphf.data.writer import TableWriter
from rlphf.files import read_parquet, sha256

SCHEMA = pa.schema([pa.field("n", pa.int64(), nullable=False), pa.field("text", pa.string())])


def rows(start, stop):
    return [(n, None if n % 3 else str(n)) for n in range(start, stop)]


def batch(start, stop):
    columns = zip(*rows(start, stop), strict=True)
    return pa.Table.from_arrays([pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)


def test_rows_and_batches_come_out_in_the_order_they_went_in(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "BATCH", 4)
    with TableWriter(tmp_path / "a.parquet", SCHEMA) as table:
        for row in rows(0, 6):
            table.add(*row)
        table.add_table(batch(6, 9))
        table.add_table(batch(0, 3).slice(0, 0))
        table.add(*rows(9, 10)[0])
    found = read_parquet(tmp_path / "a.parquet")
    assert found.schema == SCHEMA and [tuple(row.values()) for row in found.to_pylist()] == rows(0, 10)


def test_long_texts_are_written_before_a_batch_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "CHARACTERS", 10)
    with TableWriter(tmp_path / "a.parquet", SCHEMA) as table:
        for n, text in enumerate(["x" * 6, "x" * 6, "x" * 11, "x"]):
            table.add(n, text)
    file = pq.ParquetFile(tmp_path / "a.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [2, 1, 1]


def test_no_rows_give_an_empty_table_and_equal_rows_equal_bytes(tmp_path):
    for name in ("a", "b"):
        with TableWriter(tmp_path / f"{name}.parquet", SCHEMA):
            pass
    assert sha256(tmp_path / "a.parquet") == sha256(tmp_path / "b.parquet")
    assert read_parquet(tmp_path / "a.parquet").num_rows == 0


def test_a_failure_inside_is_passed_on(tmp_path):
    with pytest.raises(KeyError), TableWriter(tmp_path / "a.parquet", SCHEMA):
        raise KeyError
