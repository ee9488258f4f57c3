"""Pairs out of HH-RLHF's dialogues: {chosen, rejected}, each a whole dialogue, and the relabelled file with an `objective`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlphf.data.dedup import normalise
from rlphf.data.sources.raw import BadField, Dropped, Pair, Place, Raw, convert, text
from rlphf.data.sources.rows import files, rows, stem
from rlphf.data.splits import ASSISTANT, HUMAN
from rlphf.preferences import GENERAL

_KINDS = ("harmless", "helpful")


def split(chosen: str, rejected: str) -> tuple[str, str, str] | None:
    """Return (prompt, chosen reply, rejected reply) of two dialogues, or None if they part before the last reply.

    The prompt is all that both dialogues say before their last reply. A single question stands alone in it, as in every
    other source; a longer prompt is "Human: ... Assistant: ... Human: ..." with a blank line before each turn.
    """
    turn = f"\n\n{ASSISTANT}"
    head, _, good = chosen.rpartition(turn)
    other, _, bad = rejected.rpartition(turn)
    if head != other:
        return None
    if turn not in head:
        head = head.removeprefix(HUMAN)
    return head.strip(), good.strip(), bad.strip()


def read(path: Path, preference: str | None) -> Iterator[Raw]:
    """Yield the pairs of a file, or of every file of a folder.

    A pair speaks for the record's `objective`, else for `preference`, else for the kind of user that the file, or else its
    folder, is named after (harmless-..., helpful-...), else for nobody in particular. `data_subset` says where a relabelled pair
    was found and not what it was chosen for: 4 of 10 harmless ones were turned round.
    """
    for file in files(path):
        names = (stem(file), file.absolute().parent.name)
        named = preference or next((kind for name in names for kind in _KINDS if name.startswith(kind)), GENERAL)

        def make(place: Place, record: dict[str, Any], named: str = named) -> Raw:
            speaks_for = text(record, "objective", blank=False) if "objective" in record else named
            dialogues = [_dialogue(record, field) for field in ("chosen", "rejected")]
            parts = split(*dialogues)
            if parts is None:
                return Dropped(place, speaks_for, "dialogues part before the last reply")
            if not normalise(parts[0]):
                return Dropped(place, speaks_for, "empty prompt")
            return Pair(place, *parts, preference=speaks_for)

        yield from convert(rows(file), make)


def _dialogue(record: dict[str, Any], field: str) -> str:
    dialogue = text(record, field)
    if not dialogue.startswith(HUMAN) or f"\n\n{ASSISTANT}" not in dialogue:
        raise BadField(field, f"is no dialogue: expected '{HUMAN} ...', a blank line, '{ASSISTANT} ...'")
    return dialogue
