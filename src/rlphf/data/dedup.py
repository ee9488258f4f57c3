"""Repeated and contradictory pairs: which of a stream of pairs to keep. It looks at texts only, never at meaning."""

import unicodedata
from hashlib import blake2b

EMPTY, IDENTICAL = "empty answer", "identical answers"
REPEATED = "repeated"
REPEATED_LOOSELY = "repeated apart from case, spacing or punctuation"
CONTRADICTORY = "contradicted: another record chooses the other answer"


class _Loose(dict[int, str | None]):
    """For str.translate: punctuation and spaces become a space, invisible characters vanish, the rest stays."""

    def __missing__(self, code: int) -> str | None:
        category = unicodedata.category(chr(code))
        self[code] = " " if category[0] in "PZ" or category == "Cc" else None if category == "Cf" else chr(code)
        return self[code]


_LOOSE = _Loose()


def normalise(text: str) -> str:
    """Return `text` under NFKC and casefold, with each run of whitespace and punctuation as one space (ours).

    Symbols such as + and < stay. A text of punctuation only keeps it, so that only a blank text becomes "".
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.translate(_LOOSE).split()) or " ".join(folded.split())


def fingerprint(*parts: object) -> int:
    """Return 62 bits that stand for the parts in this order, within this process.

    Among a million texts, two share a fingerprint with a chance of one in ten million.
    """
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest()) >> 2


class Deduplicator:
    """Decides pair by pair, in the order of `add`, and holds a fingerprint per pair instead of its text.

    Two pairs that agree in preference, user, prompt and both answers (exactly, or after `normalise`) are one: the first
    is kept. Two that agree in everything but which answer is chosen contradict each other: none is kept.
    """

    def __init__(self) -> None:
        self._exact: set[int] = set()
        self._first: dict[int, int] = {}  # The answers in either order -> 2 x number of the first pair + its order.
        self._count = 0
        self.contradicted: set[int] = set()  # Numbers of pairs that were let through and must not be kept after all.

    def add(self, prompt: str, chosen: str, rejected: str, preference: str, user: int | None = None) -> str | None:
        """Return None to keep the pair, else the reason to drop it. Pairs let through are numbered 0, 1, 2, ...

        When all pairs are added, those whose numbers are in `contradicted` have to be dropped as well.
        """
        exact = fingerprint(preference, user, prompt, chosen, rejected)
        if exact in self._exact:
            return REPEATED
        self._exact.add(exact)
        a, b = normalise(chosen), normalise(rejected)
        if a == b:
            a, b = chosen, rejected
        key = fingerprint(preference, user, normalise(prompt), min(a, b), max(a, b))
        first = self._first.get(key)
        if first is None:
            self._first[key] = 2 * self._count + (a < b)
            self._count += 1
            return None
        if first % 2 == (a < b):
            return REPEATED_LOOSELY
        self.contradicted.add(first // 2)
        return CONTRADICTORY
