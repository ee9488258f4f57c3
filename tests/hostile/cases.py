"""What a hostile input is made of: a case, the faults that any file and any JSON text can have, and a gzip bomb."""

import gzip
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Plant = Callable[[Path], None]
"""Writes what is wrong to the path where a reader expects its file."""

LONG = 50 * 2**20  # Bytes of a line that no record needs.
HUGE = 10**400
MEMBER = 2**26  # Bytes in each of the equal parts of which a bomb consists.


@dataclass(frozen=True)
class Case:
    """A command in a folder that `plant` has filled with hostile input.

    `limited` cases run in a process of their own that may take little memory; the others run in the tests' own process.
    """

    reader: str
    fault: str
    arguments: tuple[str, ...]
    plant: Callable[[Path], None]
    limited: bool = False
    slow: bool = False

    @property
    def name(self) -> str:
        """Reader and fault."""
        return f"{self.reader}: {self.fault}"


def content(data: bytes | str) -> Plant:
    """Return what writes `data` to the file."""
    return lambda path: _write(path, data.encode() if isinstance(data, str) else data)


def texts(faults: Mapping[str, str | bytes]) -> dict[str, Plant]:
    """Return what plants each of the texts."""
    return {fault: content(data) for fault, data in faults.items()}


def config(**settings: Any) -> str:
    """Return a configuration; JSON is YAML."""
    return json.dumps({"experiment": "mine", **settings})


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def folder(path: Path) -> None:
    """Put a folder where the file should be."""
    path.mkdir(parents=True)


def dangling(path: Path) -> None:
    """Put a link to nothing where the file should be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to("nowhere")


def circular(path: Path) -> None:
    """Put a link to itself where the file should be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(path.name)


def pipe(path: Path) -> None:
    """Put a pipe, from which nothing ever comes, where the file should be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)


def unreadable(path: Path) -> None:
    """Put a file that cannot be read where the file should be; root can read all but some files of the kernel."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        path.symlink_to("/proc/self/mem")
    else:
        path.touch(mode=0o000)


def missing(path: Path) -> None:
    """Put nothing there."""


PLACES: dict[str, Plant] = {
    "missing": missing,
    "a folder": folder,
    "a dangling link": dangling,
    "a link to itself": circular,
    "a pipe": pipe,
    "unreadable": unreadable,
}


def broken_json(good: str) -> dict[str, bytes]:
    """Return {fault: bytes} of texts that are no JSON, made of a good object."""
    raw = good.encode()
    inner = raw.index(b'": "') + 4
    return {
        "empty": b"",
        "cut off": raw[: len(raw) // 2],
        "no JSON": b"hello, world",
        "bad UTF-8": raw[:inner] + b"\xff\xfe" + raw[inner:],
        "UTF-16": good.encode("utf-16"),
        "a NUL": raw[:inner] + b"\0" + raw[inner:],
        "only NULs": b"\0" * 4096,
        "more behind its end": raw + b"}",
        "100 000 brackets": b"[" * 100_000,
        "100 000 objects": b'{"a":' * 100_000,
        "a number of 5 000 digits": raw.rstrip()[:-1] + b', "more": ' + b"9" * 5000 + b"}",
        "a text": b'"text"',
        "a list of lists": b"[[1], [2]]",
        "null": b"null",
        "a key twice": b'{"twice": 1, "twice": 2, ' + raw.lstrip()[1:],
        "single quotes": raw.replace(b'"', b"'"),
    }


def broken_json_config() -> dict[str, bytes]:
    """Return {fault: bytes} of files that are no JSON object."""
    return {
        "empty": b"",
        "cut off": b'{"peft_type": "LORA"',
        "bad UTF-8": b'{"peft_type": "\xff"}',
        "a BOM": b'\xef\xbb\xbf{"peft_type": "LORA"}',
        "a NUL": b'{"peft_type": "LORA\0"}',
        "100 000 brackets": b"[" * 100_000,
        "a key twice": b'{"peft_type": "LORA", "r": 1, "r": 2}',
        "a number of 5 000 digits": b'{"r": ' + b"9" * 5000 + b"}",
    }


def field_faults(record: dict[str, Any], field: str) -> dict[str, str]:
    """Return {fault: JSON} of a record in which one text is none."""
    rest = {name: value for name, value in record.items() if name != field}
    wrong: dict[str, Any] = {"a number": 7, "null": None, "a list": ["text"], "an object": {"a": "b"}, "true": True}
    found = {f"{field} is {what}": json.dumps({**rest, field: value}) for what, value in wrong.items()}
    found[f"{field} is missing"] = json.dumps(rest)
    found[f"{field} is NaN"] = json.dumps({**rest, field: float("nan")})
    found[f"{field} is half a surrogate"] = json.dumps({**rest, field: "\ud800"})
    return found


def bomb(member: bytes, total: int, tail: bytes = b"") -> Plant:
    """Return what writes a small gzip file that inflates to `total` bytes of repeated `member`, and then `tail`."""
    packed = gzip.compress(member * (MEMBER // len(member)))

    def plant(path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            for _ in range(total // MEMBER):
                stream.write(packed)
            stream.write(gzip.compress(tail))

    return plant


def at(path: str, plant: Plant, beside: dict[str, str | bytes] | None = None) -> Callable[[Path], None]:
    """Return what puts a fault at `path` in a case's folder, and good files `beside` it."""

    def fill(folder: Path) -> None:
        for name, data in (beside or {}).items():
            content(data)(folder / name)
        plant(folder / path)

    return fill


def named(reader: str, arguments: tuple[str, ...], path: str, faults: dict[str, Plant], **more: Any) -> Iterator[Case]:
    """Yield a case per fault of the file `path` that a command reads; `beside` are its good files."""
    beside = more.pop("beside", None)
    for fault, plant in faults.items():
        yield Case(reader, fault, arguments, at(path, plant, beside), **more)
