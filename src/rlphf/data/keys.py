"""Which of any number of rows say the same: by their fingerprints in a temporary file, compared part by part.

A part holds all rows of some fingerprints, so its size, and not the number of rows, decides how much memory is needed, as long as
no fingerprint has most rows.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PART = 1 << 18  # Rows that are compared at a time, on average.
_WAITING = 1 << 16  # Rows that are read or written at a time.
_TAGS = 4

Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]


def fingerprint(*parts: object) -> int:
    """Return 61 bits that stand for texts and numbers in this order, within this process.

    Among a million texts, two share a fingerprint with a chance of one in four million.
    """
    return hash(parts) & (1 << 61) - 1


class Alike(NamedTuple):
    """Indices of rows (n,), the `first` (n,) row with the same fingerprint as each, and the tags of both (n,)."""

    rows: Numbers
    first: Numbers
    tags: Numbers
    first_tags: Numbers


class Keys:
    """Rows numbered 0, 1, 2, ...: a fingerprint, and a 2-bit tag that is ignored in comparison.

    They lie, 8 bytes each, in a temporary file in `folder` (that of the system if None), which is removed when the context ends.
    Every part reads the whole file, so time grows with the square of the rows: 31 readings for eight million.
    """

    def __init__(self, folder: Path | None = None):
        self.file = tempfile.TemporaryFile(dir=folder)
        self.waiting: list[int] = []
        self.count = 0

    def __enter__(self) -> "Keys":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.file.close()

    def add(self, key: int, tag: int = 0) -> None:
        """Add a row."""
        self.waiting.append(key * _TAGS + tag)
        self.count += 1
        if len(self.waiting) == _WAITING:
            self._flush()

    def extend(self, others: "Keys") -> None:
        """Append the rows of `others`."""
        self._flush()
        for values in others._read():
            self.file.write(values.tobytes())
        self.count += others.count

    def alike(self, without: Flags | None = None) -> Iterator[Alike]:
        """Yield all rows in parts, each with the first row of its fingerprint; rows marked in `without` (count,) are left out."""
        parts = max(1, -(-self.count // PART))
        for part in range(parts):
            values, rows = self._part(part, parts, without)
            keys, tags = np.divmod(values, _TAGS)
            order = np.argsort(keys, kind="stable")
            ordered = keys[order]
            starts = np.r_[True, ordered[1:] != ordered[:-1]][: len(order)]
            first = np.empty_like(order)
            first[order] = order[starts][np.cumsum(starts) - 1]
            yield Alike(rows, rows[first], tags, tags[first])

    def _part(self, part: int, parts: int, without: Flags | None) -> tuple[Numbers, Numbers]:
        """Return values (n,) of the rows of a part, and the rows' numbers (n,), in their order."""
        found = [np.zeros(0, dtype=np.int64)]
        rows = [np.zeros(0, dtype=np.int64)]
        at = 0
        for values in self._read():
            selected = values // _TAGS % parts == part
            if without is not None:
                selected &= ~without[at : at + len(values)]
            found.append(values[selected])
            rows.append(at + np.flatnonzero(selected))
            at += len(values)
        return np.concatenate(found), np.concatenate(rows)

    def _read(self) -> Iterator[Numbers]:
        self._flush()
        self.file.seek(0)
        while block := self.file.read(8 * _WAITING):
            yield np.frombuffer(block, dtype=np.int64)

    def _flush(self) -> None:
        if self.waiting:
            self.file.seek(0, 2)
            self.file.write(np.array(self.waiting, dtype=np.int64).tobytes())
            self.waiting = []
