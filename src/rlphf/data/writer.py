"""Parquet files written row by row in batches, for tables that do not fit into memory."""

from pathlib import Path
from types import TracebackType
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

BATCH = 10_000
# Characters beyond which a batch is written although it has fewer rows.
CHARACTERS = 1 << 25


class TableWriter:
    """A Parquet file with a row group for each BATCH rows, or fewer long ones; equal rows give equal bytes.

    It is no atomic write by itself.
    """

    def __init__(self, file: Path | IO[bytes], schema: pa.Schema, compression: str = "zstd"):
        self.writer = pq.ParquetWriter(file, schema, compression=compression)
        self.schema = schema
        self.rows: list[tuple[Any, ...]] = []
        self.characters = 0

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
        self.characters += sum(len(value) for value in row if isinstance(value, str))
        if len(self.rows) == BATCH or self.characters > CHARACTERS:
            self._flush()

    def add_table(self, table: pa.Table) -> None:
        """Add rows that are in Arrow's form already, as a row group of their own."""
        if len(table):
            self._flush()
            self.writer.write_table(table.cast(self.schema))

    def _flush(self) -> None:
        if self.rows:
            columns = zip(*self.rows, strict=True)
            arrays = [pa.array(values, field.type) for values, field in zip(columns, self.schema, strict=True)]
            self.writer.write_table(pa.Table.from_arrays(arrays, schema=self.schema))
            self.rows, self.characters = [], 0
