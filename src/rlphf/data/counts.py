"""The table of counts: how many records each source gave, and why the others were dropped."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from rlphf.data.records import SPLITS
from rlphf.errors import InputError

COUNTS = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),  # Path or name of the source; "all" in the last rows.
        pa.field("preference", pa.string()),  # Whom its pairs speak for; null for prompts and for records without one.
        pa.field("read", pa.int64()),  # Records read, which is kept + dropped; null in a row that gives one reason.
        pa.field("kept", pa.int64()),
        *(pa.field(split, pa.int64()) for split in SPLITS),  # Of those kept.
        pa.field("dropped", pa.int64(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),  # "all" for the sum, then a row for each reason.
    ]
)
ALL = "all"

_Key = tuple[str, str | None]


class Counts:
    """Counts records by (source, preference) as they are kept or dropped."""

    def __init__(self) -> None:
        self._kept: dict[_Key, Counter[str]] = {}
        self._dropped: dict[_Key, Counter[str]] = {}

    def keep(self, key: _Key, split: str, records: int = 1) -> None:
        """Count records of `key` = (source, preference) that are kept in `split`."""
        self._kept.setdefault(key, Counter())[split] += records

    def drop(self, key: _Key, reason: str, records: int = 1) -> None:
        """Count records of `key` = (source, preference) that are dropped."""
        self._dropped.setdefault(key, Counter())[reason] += records

    def check(self, validation: float, test: float, section: str = "data") -> None:
        """Raise InputError if nothing was kept, or if a split with a share above zero stayed empty.

        Pairs are counted, or prompts where there are no pairs. `section` is the part of the configuration with the shares.
        """
        pairs = sum((kept for key, kept in self._kept.items() if key[1] is not None), Counter())
        kept = pairs or sum(self._kept.values(), Counter())
        if not kept:
            dropped = sum(self._dropped.values(), Counter())
            why = "; ".join(f"{count} dropped: {reason}" for reason, count in sorted(dropped.items())) or "they are empty"
            raise InputError(f"{section}: the sources hold no record that can be used ({why}); name others, or correct them")
        for split, share in zip(SPLITS, (1 - validation - test, validation, test), strict=True):
            if share > 0 and not kept[split]:
                raise InputError(
                    f"{section}: the split {split} is empty: {kept.total()} records are too few for a share of {share:g}; "
                    f"add data, or change the share {section}.{split if split != SPLITS[0] else 'test'}"
                )

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of COUNTS: by source and preference, each with its sum first, and the sums of all at the end."""
        everything: tuple[Counter[str], Counter[str]] = Counter(), Counter()
        for key in sorted({*self._kept, *self._dropped}, key=lambda key: (key[0], key[1] or "")):
            kept, dropped = self._kept.get(key, Counter()), self._dropped.get(key, Counter())
            everything[0].update(kept)
            everything[1].update(dropped)
            yield from _block(*key, kept, dropped)
        if self._kept or self._dropped:
            yield from _block(ALL, None, *everything)


def _block(source: str, preference: str | None, kept: Counter[str], dropped: Counter[str]) -> Iterator[tuple[Any, ...]]:
    splits = [kept[split] for split in SPLITS]
    yield source, preference, kept.total() + dropped.total(), kept.total(), *splits, dropped.total(), ALL
    for reason in sorted(dropped):
        yield source, preference, None, None, *(None for _ in SPLITS), dropped[reason], reason
