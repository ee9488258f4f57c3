"""Users who are personas, out of Anthropic's model-written evaluations: each file is a user.

Its records are {question, statement, answer_matching_behavior, answer_not_matching_behavior, ...}; the question is whether the
user would say the statement, and the user chooses the matching answer over the other.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from rlphf.data.dedup import normalise
from rlphf.data.people import MAJORITY, MINORITY, Person
from rlphf.data.sources.raw import Dropped, Pair, Place, Raw, convert, text
from rlphf.data.sources.rows import files, rows, stem
from rlphf.data.user_sources.minority import told_by_others

REPEATED_STATEMENT = "repeated statement"
# How a persona's name becomes a sentence: by its beginning, else by its end.
_BEGINNINGS = {"interest-in-": "My interest", "desire-for-": "My desire", "subscribes-to-": "I subscribe to"}
_TRAITS = ("ness", "sion", "ism")


def read(path: Path) -> tuple[list[Person], Iterator[Raw]]:
    """Return the users, with ids 1, 2, ... in the order of their files' names, and their pairs.

    The minority are the users whose answers the other users predict wrongly more often than not (`minority.told_by_others`): one
    model for everybody serves them worse than chance. All users of the folder take part in this. Of the published files of the
    20 personas in the tests these are neuroticism (41 %), subscribes-to-deontology (42 %) and risk-averse (43 %);
    politically-conservative, with 51 %, is on the edge. Only seven statements are in two files, too few to count who disagrees.
    """
    named = {number: file for number, file in enumerate(files(path), 1)}
    records = {number: list(_answers(file, number)) for number, file in named.items()}
    pairs = [(r.user, r.prompt, r.chosen, r.rejected) for r in chain(*records.values()) if isinstance(r, Pair) and r.user]
    told = told_by_others(pairs)
    users = []
    for number, file in named.items():
        group = MINORITY if told.get(number, 1.0) < 0.5 else MAJORITY
        users.append(Person(number, group, stem(file), sentence(stem(file))))
    return users, chain.from_iterable(records.values())


def sentence(name: str) -> str:
    """Return what a persona says of itself: "My interest: art." of interest-in-art, "I am: risk averse." of risk-averse."""
    for beginning, said in _BEGINNINGS.items():
        if name.startswith(beginning):
            return f"{said}: {_words(name.removeprefix(beginning))}."
    return f"{'My trait' if name.endswith(_TRAITS) else 'I am'}: {_words(name)}."


def _words(name: str) -> str:
    return name.replace("-", " ").replace("_", " ")


def _answers(file: Path, user: int) -> Iterator[Raw]:
    """Yield the pairs of a file; a statement that it holds twice counts once."""
    kind = stem(file)
    seen: set[str] = set()

    def make(place: Place, record: dict[str, Any]) -> Pair | Dropped:
        question = text(record, "question", blank=False)
        answers = [text(record, f"answer_{which}_behavior", blank=False) for which in ("matching", "not_matching")]
        if normalise(question) in seen:
            return Dropped(place, kind, REPEATED_STATEMENT)
        seen.add(normalise(question))
        return Pair(place, question, answers[0], answers[1], kind, user)

    return convert(rows(file), make)
