"""Six users of Personalized Soups' release, one per preference: users 1, 2, ... are P1A, P1B, ... in the order of `PREFERENCES`.

Their pairs are those of its `rm_training` files. Prompts have no preference's prompt: what a user likes has to be learned from
the pairs, or from the user's text, which is that prompt.
"""

from collections.abc import Iterator
from pathlib import Path

from rlphf.data.people import MAJORITY, Person
from rlphf.data.sources import psoups
from rlphf.data.sources.raw import Pair, Raw
from rlphf.preferences import PREFERENCES


def read(path: Path) -> tuple[list[Person], Iterator[Raw]]:
    """Return the users and their pairs; a preference without a file is a user without pairs.

    Preferences of one axis oppose each other one to one, so nobody is the minority.
    """
    users = [Person(number, MAJORITY, name, PREFERENCES[name].prompt) for number, name in enumerate(PREFERENCES, 1)]
    return users, _owned(psoups.read(path, None), {person.kind: person.id for person in users})


def _owned(records: Iterator[Raw], ids: dict[str, int]) -> Iterator[Raw]:
    for record in records:
        if isinstance(record, Pair):
            record.user = ids[record.preference]
        yield record
