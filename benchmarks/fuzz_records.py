"""Fuzzes the readers of records with atheris: whatever the bytes, a reader yields records or raises InputError, nothing else.

It needs atheris, which is no dependency: `make fuzz` installs it into an environment of its own. FUZZ_SECONDS is how long it
runs; what made a reader fail is left as a file crash-* in the working directory.

    python benchmarks/fuzz_records.py [options of libFuzzer]
"""

import gzip
import logging
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["rlphf", "json", "csv"]):
    from rlphf.data.sources import alpaca_eval, hh_rlhf, koala, psoups, table
    from rlphf.data.user_sources import persona, prism, tldr
    from rlphf.errors import InputError
    from rlphf.files import read_json, read_yaml

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))
SUFFIXES = (".json", ".jsonl", ".csv", ".parquet", ".json.gz", ".jsonl.gz", ".csv.gz")


def file(name: str) -> Callable[[bytes, str], Path]:
    """Return what writes bytes to a file `name` of a format, alone in its folder."""

    def write(data: bytes, suffix: str) -> Path:
        for old in FOLDER.rglob("*"):
            if old.is_file():
                old.unlink()
        path = FOLDER / f"{name}{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(data, 1) if suffix.endswith(".gz") else data)
        return path

    return write


def two_files(data: bytes, suffix: str) -> Path:
    """Write the two halves of some bytes as PRISM's two files."""
    path = file("prism/survey")(data[: len(data) // 2], suffix)
    path.with_name(f"conversations{suffix}").write_bytes(data[len(data) // 2 :])
    return path.parent


def people(read: Callable[[Path], tuple[list, Iterable]]) -> Callable[[Path], list]:
    """Return what reads users and all their records."""
    return lambda path: list(read(path)[1])


READERS: list[tuple[Callable[[bytes, str], Path], Callable[[Path], object]]] = [
    (file("P1A"), lambda path: list(psoups.read(path, None))),
    (file("table"), lambda path: list(table.read(path, {}, None))),
    (file("hh"), lambda path: list(hh_rlhf.read(path, None))),
    (file("koala"), lambda path: list(koala.read(path))),
    (file("outputs/a"), lambda path: list(alpaca_eval.read(path.parent.parent))),
    (file("risk-averse"), people(persona.read)),
    (file("train"), people(lambda path: tldr.read(path, None, 0.3))),
    (two_files, people(prism.read)),
    (file("any"), read_json),
    (file("any"), read_yaml),
]


def one(data: bytes) -> None:
    """Read some bytes: the first says which reader, the second which format."""
    if len(data) < 2:
        return
    write, read = READERS[data[0] % len(READERS)]
    path = write(data[2:], SUFFIXES[data[1] % len(SUFFIXES)])
    try:
        read(path)
    except InputError:
        pass


def main() -> None:
    """Hand the readers over to the fuzzer."""
    logging.disable()
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
