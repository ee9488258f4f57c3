"""Parquet files written row by row in batches, for tables that do not fit into memory."""

from pathlib import Path
from types import TracebackType
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

BATCH = 10_000


class TableWriter:
    """A Parquet file with a row group for each BATCH rows; equal rows give equal bytes. It is no atomic write by itself."""

    def __init__(self, file: Path | IO[bytes], schema: pa.Schema, compression: str = "zstd"):
        self.writer = pq.ParquetWriter(file, schema, compression=compression)
        self.schema = schema
        self.rows: list[tuple[Any, ...]] = []

    def __enter__(self) -> "TableWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self._flush()
        finally:
            self.writer.close()

    def add(self, *row: Any) -> None:
        """Add a row: one value per field of the schema."""
        self.rows.append(row)
        if len(self.rows) == BATCH:
            self._flush()

    def add_batch(self, batch: pa.RecordBatch) -> None:
        """Add rows that are in Arrow's form already, as a row group of their own."""
        if len(batch):
            self._flush()
            self.writer.write_batch(batch.cast(self.schema))

    def _flush(self) -> None:
        if self.rows:
            columns = zip(*self.rows, strict=True)
            arrays = [pa.array(values, field.type) for values, field in zip(columns, self.schema, strict=True)]
            self.writer.write_table(pa.Table.from_arrays(arrays, schema=self.schema))
            self.rows = []
