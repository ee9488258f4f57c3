"""Pairs in the layout of the Personalized Soups release (`rm_training/P1A.json`), without the preference's prompt.

Each record is {user_input: question and preference prompt, completion_a: chosen, completion_b: rejected}.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlphf.data.dedup import normalise
from rlphf.data.sources.raw import BadField, Pair, Place, Raw, convert, text
from rlphf.data.sources.rows import files, rows, stem
from rlphf.errors import InputError
from rlphf.preferences import PREFERENCES

_USER, _ASSISTANT = "<|user|>", "<|assistant|>"

# The release words a preference's prompt in several ways (its lists, its data, its README and its judges differ).
_WORDINGS = {
    "P1A": r"that can (be easily understood|easily be understandable|be easily understandable) by an elementary school student",
    "P1B": r"that (only a|can only a) phd student in that specific field could understand|"
    r"that can only be understandable by a phd student in that specific field",
    "P2A": r"that is concise and to the point,? without being verbose",
    "P2B": r"that is very informative,? without missing any background information",
    "P3A": r"that is friendly,? witty,? funny,? and humorous,? like a close friend",
    "P3B": r"(that is )?(written )?in an? unfriendly manner",
    "P3C": r"(that is )?(written )?in an? sassy manner",
    "P3D": r"(that is )?(written )?in an? sarcastic manner",
}
_PROMPTS = {
    name: re.compile(rf"(^|\s)(generate|choose)\sa\sresponse\s({wording})[.!]?$", re.IGNORECASE)
    for name, wording in _WORDINGS.items()
}
_LONGEST = 200  # Characters, more than any wording has.


def question(user_input: str) -> tuple[str, list[str]]:
    """Return the question alone, and the ids of the preferences whose prompts stood behind it, last one first.

    The wrapper "<|user|>\\n ... \\n<|assistant|>\\n" is taken off as well.
    """
    rest = user_input.strip()
    if rest.startswith(_USER):
        rest = rest.removeprefix(_USER).removesuffix(_ASSISTANT).strip()
    found: list[str] = []
    while True:
        tail = rest[-_LONGEST:]
        for name, pattern in _PROMPTS.items():
            match = pattern.search(tail)
            if match:
                rest = rest[: len(rest) - len(tail) + match.start()].rstrip()
                found.append(name)
                break
        else:
            return rest, found


def read(path: Path, preference: str | None) -> Iterator[Raw]:
    """Yield the pairs of a file, or of every file of a folder, as JSON list or JSONL.

    They speak for `preference`, else for the one that the file is named after (P1A.json). A record whose text asks for
    other preferences only is bad. Raises InputError if nothing says which preference a file speaks for.
    """
    for file in files(path):
        name = preference or stem(file)
        if not preference and name not in PREFERENCES:
            raise InputError(f"{file}: no preference; set `preference` of the source, or name the file after one, as P1A.json")

        def make(place: Place, record: dict[str, Any], name: str = name) -> Pair:
            prompt, found = question(text(record, "user_input"))
            if found and name not in found:
                raise BadField("user_input", f"asks for {found[0]}, but the pairs speak for {name}")
            if not normalise(prompt):
                raise BadField("user_input", "has no question")
            return Pair(place, prompt, text(record, "completion_a"), text(record, "completion_b"), name)

        yield from convert(rows(file), make)
