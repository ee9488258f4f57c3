"""Records that may be kept, until all have been read: which of them stay, and the prompts among them, each once."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rlphf.data.counts import Counts
from rlphf.data.dedup import VERDICTS, Deduplicator, normalise
from rlphf.data.keys import Flags, Keys, fingerprint
from rlphf.data.records import PAIRS, PROMPTS, pair_id, prompt_id
from rlphf.data.sources.raw import Pair, Prompt
from rlphf.data.splits import assign
from rlphf.data.writer import TableWriter

REPEATED_PROMPT = "repeated prompt"


class Waiting:
    """Pairs, and prompts without answers, in temporary files in `folder`: texts in one file each, fingerprints in others.

    `seed`, `validation` and `test` decide where a prompt belongs (`splits.assign`).
    """

    def __init__(self, folder: Path, seed: int, validation: float, test: float):
        self.stack = ExitStack()
        self.files: dict[str, IO[bytes]] = {
            name: self.stack.enter_context(tempfile.TemporaryFile(dir=folder)) for name in ("pairs", "prompts")
        }
        self.seen = self.stack.enter_context(Deduplicator(folder))
        # Prompts of sources without answers, and of pairs.
        self.listed, self.asked = (self.stack.enter_context(Keys(folder)) for _ in range(2))

        # Pairs of one prompt mostly stand together.
        @lru_cache(maxsize=16)
        def place(prompt: str) -> tuple[str, int]:
            return assign(prompt, seed, validation, test), fingerprint(normalise(prompt))

        self.place = place

    def __enter__(self) -> "Waiting":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.stack.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Open it for `add_pair` and `add_prompt`; `keep` follows."""
        with (
            TableWriter(self.files["pairs"], PAIRS, "lz4") as pairs,
            TableWriter(self.files["prompts"], PROMPTS, "lz4") as prompts,
        ):
            self.pairs, self.prompts = pairs, prompts
            yield

    def add_pair(self, pair: Pair, source: str) -> None:
        """Add a pair whose answers differ."""
        content = pair.prompt, pair.chosen, pair.rejected, pair.preference, pair.user
        split, key = self.place(pair.prompt)
        self.seen.add(*content)
        self.asked.add(key)
        self.pairs.add(pair_id(*content), *content, pair.probability, source, split)

    def add_prompt(self, prompt: Prompt, source: str) -> None:
        """Add a prompt without answers."""
        split, key = self.place(prompt.prompt)
        self.listed.add(key)
        self.prompts.add(prompt_id(prompt.prompt), prompt.prompt, prompt.topic, source, split)

    def keep(self, pairs: TableWriter, prompts: TableWriter, counts: Counts) -> None:
        """Write the pairs that stay to `pairs`, and each prompt once to `prompts`: those without answers, then those of pairs."""
        verdicts = self.seen.verdicts()
        listed = self.listed.count
        new = self._new(np.r_[np.zeros(listed, dtype=bool), verdicts > 0])
        for table, at in _groups(self.files["prompts"]):
            first = new[at : at + len(table)]
            prompts.add_table(table.filter(pa.array(first)))
            for source, split, records in _counted(table, first, "source", "split"):
                counts.keep((source, None), split, records)
            for source, records in _counted(table, ~first, "source"):
                counts.drop((source, None), REPEATED_PROMPT, records)
        for table, at in _groups(self.files["pairs"]):
            verdict, first = verdicts[at : at + len(table)], new[listed + at : listed + at + len(table)]
            pairs.add_table(table.filter(pa.array(verdict == 0)))
            for source, preference, split, records in _counted(table, verdict == 0, "source", "preference", "split"):
                counts.keep((source, preference), split, records)
            for number in set(verdict.tolist()) - {0}:
                for source, preference, records in _counted(table, verdict == number, "source", "preference"):
                    counts.drop((source, preference), str(VERDICTS[number]), records)
            for prompt, source, split in _rows(table.filter(pa.array(first)), "prompt", "source", "split"):
                prompts.add(prompt_id(prompt), prompt, None, source, split)

    def _new(self, without: Flags) -> Flags:
        """Return which prompts are the first of their kind: those of `listed`, then those of `asked`, but for those `without`."""
        self.listed.extend(self.asked)
        new = np.zeros(len(without), dtype=bool)
        for rows, first, _, _ in self.listed.alike(without):
            new[rows] = rows == first
        return new


def _groups(file: IO[bytes]) -> Iterator[tuple[pa.Table, int]]:
    """Yield the row groups of a Parquet file, each with the number of its first row."""
    at, opened = 0, pq.ParquetFile(file, pre_buffer=False)
    for number in range(opened.num_row_groups):
        table = opened.read_row_group(number)
        yield table, at
        at += len(table)


def _counted(table: pa.Table, which: Flags, *columns: str) -> Iterator[tuple]:
    """Yield each combination of values that `columns` have in the rows `which`, and behind it in how many."""
    rows = table.select(list(columns)).filter(pa.array(which))
    found = rows.group_by(list(columns), use_threads=False).aggregate([([], "count_all")])
    yield from _rows(found, *columns, "count_all")


def _rows(table: pa.Table, *columns: str) -> Iterator[tuple]:
    yield from zip(*(table[name].to_pylist() for name in columns), strict=True)
