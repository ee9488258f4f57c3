"""How tables lie in a folder: each as Parquet, which is read back, and as CSV and Markdown, which people read."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from rlphf.evaluate.schemas import CAPTIONS, SCHEMAS
from rlphf.evaluate.scores import Row
from rlphf.files import read_parquet, write_parquet, write_text

# What a spreadsheet takes for the beginning of a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def formatted(value: Any) -> str:
    """Return a table's value as text: numbers to 4 places, nothing for null."""
    if value is None:
        return ""
    if isinstance(value, float):
        text = f"{value:.4f}"
        return text.removeprefix("-") if float(text) == 0 else text
    return str(value)


def as_text(cell: str) -> str:
    """Return a cell that no spreadsheet runs as a formula: with an apostrophe in front where it would."""
    return f"'{cell}" if cell.lstrip("'").startswith(FORMULA) else cell


def from_text(cell: str) -> str:
    """Return what `as_text` was given."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(FORMULA) else cell


def as_csv(table: pa.Table) -> str:
    """Return a table as CSV with a header."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(table.column_names)
    for row in table.to_pylist():
        writer.writerow([as_text(value) if isinstance(value, str) else formatted(value) for value in row.values()])
    return stream.getvalue()


def as_markdown(table: pa.Table, caption: str) -> str:
    """Return a table as aligned Markdown under its caption; numbers are aligned to the right."""
    names = table.column_names
    cells = [[formatted(value).replace("|", "\\|") for value in row.values()] for row in table.to_pylist()]
    widths = [max(3, *(len(row[i]) for row in [names, *cells])) for i in range(len(names))]
    right = [not pa.types.is_string(field.type) for field in table.schema]

    def line(row: Sequence[str]) -> str:
        padded = [text.rjust(w) if r else text.ljust(w) for text, w, r in zip(row, widths, right, strict=True)]
        return "| " + " | ".join(padded) + " |"

    rule = ["-" * (w - 1) + ":" if r else "-" * w for w, r in zip(widths, right, strict=True)]
    return "\n".join([caption, "", line(names), line(rule), *map(line, cells)]) + "\n"


def write_table(out: Path, name: str, rows: Sequence[Row]) -> list[Path]:
    """Write the rows of a table as Parquet, CSV and Markdown in the folder `out`; return the files."""
    table = pa.Table.from_pylist(list(rows), SCHEMAS[name])
    files = [out / f"{name}.{kind}" for kind in ("parquet", "csv", "md")]
    write_parquet(files[0], table)
    write_text(files[1], as_csv(table))
    write_text(files[2], as_markdown(table, CAPTIONS[name]))
    return files


def read_table(folder: Path, name: str) -> list[Row]:
    """Return the rows of a stored table; raise InputError when it is missing or not of its columns."""
    return read_parquet(folder / f"{name}.parquet", SCHEMAS[name]).to_pylist()
