"""Which sources a folder of raw data holds, by the names of its files and the fields of their first records."""

import logging
from pathlib import Path
from typing import Any

from rlphf.data.sources.messages import is_messages
from rlphf.data.sources.raw import Bad
from rlphf.data.sources.rows import readable, rows, stem
from rlphf.data.splits import HUMAN
from rlphf.errors import InputError
from rlphf.files import visible
from rlphf.settings_data import Source

_PERSONA = {"prompt": "question", "chosen": "answer_matching_behavior", "rejected": "answer_not_matching_behavior"}


def discover(raw: Path) -> list[Source]:
    """Return the sources in `raw`, their paths relative to it, in the order of those paths.

    Found are: AlpacaEval's folders, P-Soups files, HH-RLHF files, Koala's prompts, persona statements (each file a preference of
    that name) and tables with our own column names, which need no `prompt` where `chosen` holds messages. Files of another
    layout, and folders that are links, are left out with a warning. Raises InputError if `raw` is no folder or holds nothing
    known.
    """
    if not raw.is_dir():
        raise InputError(f"{raw}: no such folder; name the folder of raw data")
    warn = logging.getLogger(__name__).warning
    folders = [p.parent for p in sorted(raw.rglob("outputs")) if p.is_dir() and _is_alpaca_eval(p)]
    for link in sorted(
        p for p in raw.rglob("*") if p.is_symlink() and p.is_dir() and not (p.name == "outputs" and p.parent in folders)
    ):
        warn("%s: a link to a folder, left out; name it under data.sources", link)
    sources = [Source(kind="alpaca_eval", path=_relative(folder, raw)) for folder in folders]
    for file in (p for p in visible(raw) if readable(p)):
        if any(folder / "outputs" in file.parents or file.parent == folder and "annotations" in file.name for folder in folders):
            continue
        source = _source(file, _relative(file, raw), _first(file))
        if source is None:
            warn("%s: layout not known, left out; name it under data.sources", file)
        else:
            sources.append(source)
    if not sources:
        raise InputError(f"{raw}: holds no data of a known layout; name the sources under data.sources in the config")
    return sorted(sources, key=lambda source: source.path)


def _is_alpaca_eval(outputs: Path) -> bool:
    files = sorted(p for p in outputs.iterdir() if readable(p))
    return bool(files) and {"instruction", "output", "generator"} <= _first(files[0]).keys()


def _source(file: Path, path: str, first: dict[str, Any]) -> Source | None:
    fields = first.keys()
    if {"user_input", "completion_a", "completion_b"} <= fields:
        return Source(kind="psoups", path=path)
    if {"chosen", "rejected"} <= fields and str(first["chosen"]).lstrip().startswith(HUMAN):
        return Source(kind="hh_rlhf", path=path)
    if set(_PERSONA.values()) <= fields and stem(file).strip():
        return Source(kind="table", path=path, preference=stem(file), columns=_PERSONA)
    if {"chosen", "rejected"} <= fields and ("prompt" in fields or is_messages(first["chosen"])):
        return Source(kind="table", path=path)
    if fields == {"id", "prompt"}:
        return Source(kind="koala", path=path)
    return None


def _first(file: Path) -> dict[str, Any]:
    """Return the first record that is not broken, or nothing."""
    return next((row[1] for row in rows(file) if not isinstance(row, Bad)), {})


def _relative(path: Path, raw: Path) -> str:
    return path.relative_to(raw).as_posix()
