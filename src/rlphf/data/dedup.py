"""Repeated and contradictory pairs: which of a stream of pairs to keep. It looks at texts only, never at meaning."""

import unicodedata
from functools import lru_cache
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from rlphf.data.keys import Keys, fingerprint

EMPTY, IDENTICAL = "empty answer", "identical answers"
REPEATED = "repeated"
REPEATED_LOOSELY = "repeated apart from case, spacing or punctuation"
CONTRADICTORY = "contradicted: another record chooses the other answer"
# What `Deduplicator.verdicts` says by number; 0 is to keep.
VERDICTS = (None, REPEATED, REPEATED_LOOSELY, CONTRADICTORY)

# Joiners, selectors of variants and fillers: Unicode's Default_Ignorable_Code_Point outside category Cf.
_IGNORABLE = [
    range(first, last + 1)
    for first, last in [
        *[(0x34F, 0x34F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F)],
        *[(0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xE0100, 0xE01EF)],
    ]
]


class _Visible(dict[int, str | None]):
    """For str.translate: invisible characters vanish, those that choose between forms of the one before them included."""

    def __missing__(self, code: int) -> str | None:
        hidden = unicodedata.category(chr(code)) == "Cf" or any(code in others for others in _IGNORABLE)
        self[code] = None if hidden else chr(code)
        return self[code]


class _Loose(dict[int, str]):
    """For str.translate: punctuation and spaces become a space, the rest stays."""

    def __missing__(self, code: int) -> str:
        category = unicodedata.category(chr(code))
        self[code] = " " if category[0] in "PZ" or category == "Cc" else chr(code)
        return self[code]


_VISIBLE, _LOOSE = _Visible(), _Loose()
# The same for ASCII, which has no invisible characters, with capitals folded, in one pass over the bytes.
_LOOSE_ASCII = bytes(ord(_LOOSE[code]) if code < 128 else code for code in range(256)).lower()


# A prompt is asked for again and again, and its pairs mostly stand together.
@lru_cache(maxsize=16)
def normalise(text: str) -> str:
    """Return `text` without invisible characters, under NFKC and casefold, with each run of whitespace and punctuation as one
    space (ours).

    Symbols such as + and < stay. A text of punctuation only keeps it, so that only a text without a visible character becomes "".
    """
    if text.isascii():
        words = b" ".join(text.encode().translate(_LOOSE_ASCII).split()).decode()
        return words or " ".join(text.lower().split())
    folded = unicodedata.normalize("NFKC", text.translate(_VISIBLE)).casefold()
    return " ".join(folded.translate(_LOOSE).split()) or " ".join(folded.split())


def unusable(chosen: str, rejected: str) -> str | None:
    """Return why a pair of answers says nothing, None if it says something."""
    if not normalise(chosen) or not normalise(rejected):
        return EMPTY
    return IDENTICAL if chosen == rejected else None


class Deduplicator:
    """Decides which pairs to keep once all have been added; memory holds a byte per pair, and its fingerprints lie in `folder`.

    Two pairs that agree in preference, user, prompt and both answers (exactly, or after `normalise`) are one: the first
    is kept. Two that agree in everything but which answer is chosen contradict each other: none is kept.
    """

    def __init__(self, folder: Path | None = None):
        self.exact, self.loose = Keys(folder), Keys(folder)

    def __enter__(self) -> "Deduplicator":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.exact.file.close()
        self.loose.file.close()

    def add(self, prompt: str, chosen: str, rejected: str, preference: str, user: int | None = None) -> None:
        """Add a pair; pairs are numbered 0, 1, 2, ..."""
        self.exact.add(fingerprint(preference, user, prompt, chosen, rejected))
        a, b = normalise(chosen), normalise(rejected)
        if a == b:
            a, b = chosen, rejected
        self.loose.add(fingerprint(preference, user, normalise(prompt), min(a, b), max(a, b)), int(a < b))

    def verdicts(self) -> NDArray[np.uint8]:
        """Return what to do with each pair (count,), as a number of VERDICTS."""
        found = np.zeros(self.exact.count, dtype=np.uint8)
        for rows, first, _, _ in self.exact.alike():
            found[rows[first != rows]] = VERDICTS.index(REPEATED)
        for rows, first, order, first_order in self.loose.alike(found > 0):
            found[rows[first != rows]] = VERDICTS.index(REPEATED_LOOSELY)
            opposed = order != first_order
            found[rows[opposed]] = found[first[opposed]] = VERDICTS.index(CONTRADICTORY)
        return found
