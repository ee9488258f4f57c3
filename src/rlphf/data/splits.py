"""Prompt-disjoint splits: where a prompt belongs depends on the seed and its own text, on nothing else."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from rlphf.data.dedup import normalise
from rlphf.data.keys import Keys, fingerprint
from rlphf.data.records import SPLITS
from rlphf.errors import InputError
from rlphf.seeds import derive

Table: TypeAlias = pa.Table | pq.ParquetFile | Sequence[pa.RecordBatch]

HUMAN, ASSISTANT = "Human:", "Assistant:"
_TURN = re.compile(rf"\r?\n[ \t]*\r?\n{ASSISTANT}")


def dialogue(turns: Sequence[str]) -> str:
    """Return what a person (first and last) and an assistant said in turn, as one prompt, in the form of HH-RLHF.

    A single question stands alone; more turns are "Human: ... Assistant: ... Human: ..." with a blank line before each turn.
    """
    if len(turns) == 1:
        return turns[0]
    return "\n\n".join(f"{ASSISTANT if n % 2 else HUMAN} {said}" for n, said in enumerate(turns))


def opening(prompt: str) -> str:
    """Return the first question of a dialogue ("Human: ... Assistant: ..."), or a plain prompt as it is.

    Later turns of one dialogue contain its earlier answers, so a dialogue has to lie in one split from its first question on.
    """
    if not prompt.startswith(HUMAN):
        return prompt
    return _TURN.split(prompt.removeprefix(HUMAN), 1)[0]


def group(prompt: str) -> str:
    """Return what prompts must share to lie in one split: the normalised opening."""
    return normalise(opening(prompt))


def assign(prompt: str, seed: int, validation: float, test: float) -> str:
    """Return the split of a prompt: `test` and `validation` are the shares of all prompts that go there.

    A hash of seed and `group(prompt)` decides, so neither the order of the rows nor new rows move a prompt (ours).
    """
    position = derive(seed, "split", group(prompt)) / 2**32
    if position < test:
        return "test"
    return "validation" if position < test + validation else "train"


def check_leaks(*tables: Table, folder: Path | None = None) -> None:
    """Raise InputError, naming the prompt and both splits, if two splits share a prompt.

    Prompts are compared after `group`, within and across the tables, each of which has the columns `prompt` and `split`.
    A pair that lies in two splits brings its prompt along, so it is found as well. Fingerprints lie in `folder` (`Keys`).
    """
    with Keys(folder) as keys:
        for prompt, split in _rows(tables):
            keys.add(fingerprint(group(prompt)), SPLITS.index(split))
        for rows, _, splits, first in keys.alike():
            if (leaks := splits != first).any():
                worst = leaks.argmax()
                prompt, _ = next(islice(_rows(tables), int(rows[worst]), None))
                raise InputError(
                    f"prompt {prompt[:200]!r} is in the splits {SPLITS[first[worst]]} and {SPLITS[splits[worst]]}; "
                    "split by prompt, so that nothing is tested on what was trained on"
                )


def _rows(tables: Iterable[Table]) -> Iterator[tuple[str, str]]:
    """Yield what of (prompt, split) differs within a batch."""
    for table in tables:
        for batch in _batches(table):
            once = pa.Table.from_batches([batch]).group_by(["prompt", "split"], use_threads=False).aggregate([])
            yield from zip(once["prompt"].to_pylist(), once["split"].to_pylist(), strict=True)


def _batches(table: Table) -> Iterable[pa.RecordBatch]:
    if isinstance(table, pa.Table):
        return table.to_batches()
    if isinstance(table, pq.ParquetFile):
        return (b for i in range(table.num_row_groups) for b in table.read_row_group(i, ["prompt", "split"]).to_batches())
    return table
