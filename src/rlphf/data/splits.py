"""Prompt-disjoint splits: where a prompt belongs depends on the seed and its own text, on nothing else."""

from collections.abc import Iterable, Iterator

import pyarrow as pa

from rlphf.data.dedup import fingerprint, normalise
from rlphf.data.records import SPLITS
from rlphf.errors import InputError
from rlphf.seeds import derive

HUMAN, ASSISTANT = "Human:", "Assistant:"


def opening(prompt: str) -> str:
    """Return the first question of a dialogue ("Human: ... Assistant: ..."), or a plain prompt as it is.

    Later turns of one dialogue contain its earlier answers, so a dialogue has to lie in one split from its first question on.
    """
    if not prompt.startswith(HUMAN):
        return prompt
    return prompt.removeprefix(HUMAN).split(f"\n\n{ASSISTANT}", 1)[0]


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


def check_leaks(*tables: pa.Table | Iterable[pa.RecordBatch]) -> None:
    """Raise InputError, naming the prompt and both splits, if two splits share a prompt.

    Prompts are compared after `group`, within and across the tables, each of which has the columns `prompt` and `split`.
    A pair that lies in two splits brings its prompt along, so it is found as well.
    """
    seen: dict[int, int] = {}
    for prompt, split in _rows(tables):
        number = SPLITS.index(split)
        first = seen.setdefault(fingerprint(group(prompt)), number)
        if first != number:
            raise InputError(
                f"prompt {prompt[:200]!r} is in the splits {SPLITS[first]} and {split}; "
                "split by prompt, so that nothing is tested on what was trained on"
            )


def _rows(tables: Iterable[pa.Table | Iterable[pa.RecordBatch]]) -> Iterator[tuple[str, str]]:
    for table in tables:
        for batch in table.to_batches() if isinstance(table, pa.Table) else table:
            yield from zip(batch["prompt"].to_pylist(), batch["split"].to_pylist(), strict=True)
