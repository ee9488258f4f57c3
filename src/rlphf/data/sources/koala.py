"""Prompts in the layout of the Koala evaluation set: {id, prompt}, without answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlphf.data.sources.raw import Place, Prompt, Raw, convert, text
from rlphf.data.sources.rows import files, rows


def read(path: Path) -> Iterator[Raw]:
    """Yield the prompts of a file, or of every file of a folder."""

    def make(place: Place, record: dict[str, Any]) -> Prompt:
        return Prompt(place, text(record, "prompt", blank=False))

    for file in files(path):
        yield from convert(rows(file), make)
