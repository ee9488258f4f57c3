"""Records out of JSON, JSONL, CSV, TSV and Parquet files, each maybe gzipped, one at a time with the place where they stand.

A broken record comes out as Bad; a file that cannot be read on, such as a cut-off archive, raises InputError.
"""

import csv
import gzip
import io
import json
import logging
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlphf.data.sources.raw import Bad, Place, Row, shown
from rlphf.errors import InputError
from rlphf.files import unique_keys, visible

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
_CHUNK = 1 << 20  # Characters read at a time.
_LONGEST = 1 << 24  # Characters of one record beyond which a file is taken to be broken.
_TOO_LONG = f"is longer than {_LONGEST:,} characters, as no record is"
_TOKEN = 16  # Characters that the longest word and the longest escape of JSON stay below.
_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys)
_SPACE = re.compile(r"[ \t\r\n]*")


def stem(path: Path) -> str:
    """Return a file's name without the suffixes that `rows` knows ("P1A" of "P1A.json.gz")."""
    name = path.stem if _is_packed(path) else path.name
    return name[: len(name) - len(_suffix(path))]


def readable(path: Path) -> bool:
    """Return whether `path` is a file that `rows` reads, by its name; hidden files are none."""
    return bool(_suffix(path)) and not path.name.startswith(".") and path.is_file()


def files(path: Path) -> list[Path]:
    """Return the readable files of a folder in the order of their names, or the file itself; InputError if there is none.

    Of a folder that has none itself, those of the folders in it, which are left out with a warning where it has.
    """
    if path.is_file():
        return [path]
    inside = sorted(path.glob("*"))
    if found := [p for p in inside if readable(p)]:
        for folder in (p for p in inside if p.is_dir() and not p.name.startswith(".")):
            if any(readable(p) for p in visible(folder)):
                warn = logging.getLogger(__name__).warning
                warn("%s: a folder beside files, left out; name it as a source of its own", folder)
        return found
    found = [p for p in visible(path) if readable(p)]
    if not found:
        raise InputError(f"{path}: no such file, nor a folder of {', '.join(SUFFIXES)} files (each maybe .gz)")
    return found


def rows(path: Path) -> Iterator[Row | Bad]:
    """Yield (place, record) for every record of a file, or Bad for one that is broken."""
    try:
        str(path).encode()
        match _suffix(path):
            case ".parquet":
                yield from _parquet(path)
            case ".csv":
                yield from _csv(path, ",")
            case ".tsv":
                yield from _csv(path, "\t")
            case ".json" | ".jsonl" | ".ndjson":
                yield from _json(path)
            case _:
                raise InputError(f"{path}: not one of {', '.join(SUFFIXES)} (each maybe .gz); name it by its format")
    except UnicodeEncodeError:
        raise InputError(f"{path}: its name is not valid UTF-8; rename it") from None
    except (OSError, EOFError, zlib.error, pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read ({error or type(error).__name__})") from None


def _suffix(path: Path) -> str:
    suffix = Path(path.stem if _is_packed(path) else path.name).suffix.lower()
    return suffix if suffix in SUFFIXES else ""


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _binary(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if _is_packed(path) else path.open("rb")  # type: ignore[return-value]


def _text(path: Path, newline: str = "\n") -> IO[str]:
    # Bytes that are no UTF-8 become lone surrogates, so that they spoil their own field and not the whole file.
    return io.TextIOWrapper(_binary(path), encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def _json(path: Path) -> Iterator[Row | Bad]:
    with _text(path) as stream:
        listed = _Scanner(stream).char() == "["
    return _list(path) if listed else _lines(path)


def _lines(path: Path) -> Iterator[Row | Bad]:
    with _text(path) as stream:
        name = str(path)
        for n, line in enumerate(iter(partial(stream.readline, _LONGEST + 1), ""), 1):
            if len(line) > _LONGEST:
                raise InputError(f"{path}, line {n}: {_TOO_LONG}; correct the file")
            if line.isspace():
                continue
            place = Place(name, "line", n)
            try:
                record = _DECODER.decode(line)
            except (ValueError, RecursionError) as error:
                yield Bad(place, "", f"is not JSON ({_fault(error)})", line)
            else:
                yield _mapping(place, record)


def _fault(error: Exception, start: int = 0) -> str:
    """Return what is wrong with a record in JSON, counted from its beginning at `start`: its lines are not those of the file."""
    return f"character {error.pos - start + 1}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)


def _list(path: Path) -> Iterator[Row | Bad]:
    with _text(path) as stream:
        scanner, n = _Scanner(stream), 0
        last = scanner.take()
        if scanner.char() == "]":
            last = scanner.take()
        while last != "]":
            n += 1
            try:
                record = scanner.value()
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}, record {n}: is not JSON ({error}); correct the file") from None
            yield _mapping(Place(str(path), "record", n), record)
            last = scanner.take()
            if last not in (",", "]"):
                raise InputError(f"{path}, record {n}: expected a comma or the list's end after it; correct the file")
        if scanner.char():
            raise InputError(f"{path}: more stands behind the end of its list of {n} records; make one list of it")


class _Scanner:
    """Reads a JSON list value by value, so that memory holds a chunk of the file and not the whole."""

    def __init__(self, stream: IO[str]):
        self.stream = stream
        self.buffer = ""
        self.at = 0

    def char(self) -> str:
        """Return the next character that is no space, without taking it; "" at the end."""
        while True:
            self.at = _SPACE.match(self.buffer, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if not self._more():
                return ""

    def take(self) -> str:
        """Return the next character that is no space, and take it."""
        char = self.char()
        self.at += 1
        return char

    def value(self) -> Any:
        """Return the next JSON value; raise ValueError if there is none, or one longer than any real record."""
        self.char()
        while True:
            try:
                value, end = _DECODER.raw_decode(self.buffer, self.at)
                if end < len(self.buffer):
                    self.at = end
                    return value
                problem = ValueError("the list does not end")
            except ValueError as error:
                problem = ValueError(_fault(error, self.at))
                if not self._may_be_cut(error):
                    raise problem from None
            if len(self.buffer) - self.at > _LONGEST:
                raise ValueError(_TOO_LONG)
            if not self._more():
                raise problem

    def _may_be_cut(self, error: ValueError) -> bool:
        """Return whether more of the file may mend a fault: one in an open text, or at the very end of what has been read."""
        if not isinstance(error, json.JSONDecodeError):
            return False
        return error.msg.startswith("Unterminated string") or error.pos > len(self.buffer) - _TOKEN

    def _more(self) -> bool:
        rest = self.buffer[self.at :]
        chunk = self.stream.read(max(_CHUNK, len(rest)))
        self.buffer, self.at = rest + chunk, 0
        return bool(chunk)


def _csv(path: Path, delimiter: str) -> Iterator[Row | Bad]:
    csv.field_size_limit(_LONGEST)
    kind = "CSV" if delimiter == "," else "TSV"
    with _text(path, newline="") as stream:
        lines = _Lines(stream)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            names = [name.strip() for name in next(reader, [])]
            _check_names(names, f"{path}, line 1")
            line = reader.line_num + 1
            for cells in reader:
                lines.taken = 0
                place = Place(str(path), "line", line)
                line = reader.line_num + 1
                if cells and len(cells) != len(names):
                    yield Bad(place, "", f"has {len(cells)} fields, the header {len(names)}", delimiter.join(cells))
                elif cells:
                    yield place, dict(zip(names, cells, strict=True))
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: is not {kind} ({error}); correct the file") from None


class _Lines:
    """The lines of a CSV file, as long as they make no endless record; `taken` are the characters since it was set to 0."""

    def __init__(self, stream: IO[str]):
        self.stream = stream
        self.taken = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self.stream.readline(_LONGEST + 1)
        self.taken += len(line)
        if self.taken > _LONGEST:
            raise csv.Error(_TOO_LONG)
        if not line:
            raise StopIteration
        return line


def _check_names(names: list[str], where: str) -> None:
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise InputError(f"{where}: two columns have one name, {twice[0]!r}; rename one")


def _parquet(path: Path) -> Iterator[Row | Bad]:
    with _binary(path) as stream:
        whole = io.BytesIO(stream.read()) if _is_packed(path) else stream
        n, file = 0, pq.ParquetFile(whole, pre_buffer=False)
        _check_names(file.schema_arrow.names, str(path))
        for batch in file.iter_batches(1024):
            for record in _records(batch):
                n += 1
                yield Place(str(path), "record", n), record


def _records(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return the records of a batch; a cell that Python cannot hold spoils its own field and not the whole file."""
    try:
        return batch.to_pylist()  # type: ignore[no-any-return]
    except (ValueError, OverflowError, pa.ArrowException):
        columns = [[_cell(value) for value in column] for column in batch.columns]
        return [dict(zip(batch.schema.names, cells, strict=True)) for cells in zip(*columns, strict=True)]


def _cell(value: pa.Scalar) -> Any:
    """Return a cell as Python has it: a text that is no UTF-8 as in other files, and of what Python cannot hold the type."""
    try:
        return value.as_py()
    except (ValueError, OverflowError, pa.ArrowException):
        is_text = isinstance(value, pa.BinaryScalar)
        return value.as_buffer().to_pybytes().decode(errors="surrogateescape") if is_text else value.type


def _mapping(place: Place, record: Any) -> Row | Bad:
    if isinstance(record, dict):
        return place, record
    return Bad(place, "", f"expected an object with fields, got {type(record).__name__}", shown(record))
