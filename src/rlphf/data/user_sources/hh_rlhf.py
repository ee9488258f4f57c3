"""Users of HH-RLHF's dialogues of two kinds: some choose the more helpful reply, some the more harmless one."""

from collections.abc import Iterator
from pathlib import Path

from rlphf.data.people import MAJORITY, MINORITY, Person
from rlphf.data.sources import hh_rlhf
from rlphf.data.sources.raw import Dropped, Pair, Raw
from rlphf.data.splits import group
from rlphf.errors import InputError
from rlphf.seeds import derive

HELPFUL, HARMLESS = "helpful", "harmless"
TEXTS = {HELPFUL: "I want answers that help.", HARMLESS: "I want answers that do no harm."}
NEITHER = f"speaks for neither {HELPFUL} nor {HARMLESS}"


def read(path: Path, users: int | None, seed: int) -> tuple[list[Person], Iterator[Raw]]:
    """Return `users` users (two if None) and their pairs: those with odd ids are helpful, those with even ids harmless.

    The pairs of a kind are dealt to its users by their dialogue's first question and `seed`, so only one user of a kind asks a
    question. Who wants harmless answers is the minority: with an odd number of users they are fewer. Of the 1,047 comparisons of
    the published files that both kinds made, 465 were decided differently. Raises InputError for fewer than two users.
    """
    count = 2 if users is None else users
    if count < 2:
        raise InputError(f"user_data.users: {count} is too few for users of two kinds; set 2 or more")
    kinds = [HELPFUL if number % 2 else HARMLESS for number in range(1, count + 1)]
    groups = {HELPFUL: MAJORITY, HARMLESS: MINORITY}
    persons = [Person(number, groups[kind], kind, TEXTS[kind]) for number, kind in enumerate(kinds, 1)]
    return persons, _dealt(hh_rlhf.read(path, None), persons, seed)


def _dealt(records: Iterator[Raw], persons: list[Person], seed: int) -> Iterator[Raw]:
    ids = {kind: [person.id for person in persons if person.kind == kind] for kind in TEXTS}
    for record in records:
        if isinstance(record, Pair):
            if record.preference not in ids:
                record = Dropped(record.place, record.preference, NEITHER)
            else:
                some = ids[record.preference]
                record.user = some[derive(seed, "dealt", record.preference, group(record.prompt)) % len(some)]
        yield record
