"""Users of PRISM: who they are and what they ask for (survey.jsonl), and what they chose in dialogues (conversations.jsonl).

A dialogue's history is a list of {turn, role: "user" or "model", content, if_chosen}; at each turn one of two to four answers was
chosen, with which the dialogue went on. A user's text is the block of P-RLHF's release. The text belongs
to the user, so the generic term sees it too; in the release it did not.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from rlphf.data import splits
from rlphf.data.people import MAJORITY, UNSEEN, Person
from rlphf.data.sources.raw import Bad, BadField, Dropped, Pair, Place, Raw, convert, number, text
from rlphf.data.sources.rows import files, rows, stem
from rlphf.errors import InputError

# Characters that a user's last message and an answer stay below, and those that the user's text and the prompt may have.
LONGEST, LONGEST_PROMPT = 2300, 1400
FIELDS = {
    "self_description": "self_description",
    "age": "age",
    "gender": "gender",
    "education": "education",
    "employment": "employment_status",
    "marital": "marital_status",
    "english_proficiency": "english_proficiency",
}
UNSTATED = "unstated"
NO_CONVERSATION = "user completed no conversation"
NOT_IN_SURVEY = "user is not in the survey, or completed no conversation"
NO_CHOICE = "turn without a message, a chosen answer or a rejected one"
TOO_LONG = f"message and answer have {LONGEST} characters or more"


def read(path: Path) -> tuple[list[Person], Iterator[Raw]]:
    """Return the users and their pairs out of a folder with both files, whose names contain "survey" and "conversations".

    Users have ids 1, 2, ... in the order of the survey; those who completed no conversation are left out. Their kind is the
    attribute of an assistant that they rank first. Who has pairs from a single dialogue is unseen; nobody is the minority.
    """
    known = files(path)
    records: list[Raw] = []
    users: dict[str, Person] = {}
    for item in convert(rows(_file(path, known, "survey")), lambda place, record: _person(place, record, users)):
        if not isinstance(item, Person):
            records.append(item)
    dialogues: Counter[int] = Counter()
    for found in convert(rows(_file(path, known, "conversations")), lambda place, record: _dialogue(place, record, users)):
        made = [found] if isinstance(found, Bad) else found
        dialogues.update({pair.user for pair in made if isinstance(pair, Pair) and pair.user})
        records += made
    return [_seen(person, dialogues[person.id]) for person in users.values()], iter(records)


def dialogue(turns: Sequence[tuple[str, str]], message: str, limit: int) -> str:
    """Return earlier turns (message, answer) and the last message as one prompt of at most `limit` characters.

    Where they are too long, whole turns are left out from the first one on; the message stays whole, however small or negative
    the limit is. A message without turns stands alone; else the form is that of `splits.dialogue`.
    """
    for first in range(len(turns)):
        prompt = splits.dialogue([*chain.from_iterable(turns[first:]), message])
        if len(prompt) <= limit:
            return prompt
    return message


def _file(path: Path, known: list[Path], name: str) -> Path:
    found = [file for file in known if name in stem(file)]
    if len(found) != 1:
        raise InputError(f"{path}: {len(found)} files have {name!r} in their names; PRISM has one, {name}.jsonl")
    return found[0]


def _person(place: Place, record: dict[str, Any], users: dict[str, Person]) -> Person | Dropped:
    """Add a row of the survey to `users`, under the survey's name of the user."""
    name = text(record, "user_id", blank=False)
    if not number(record, "num_completed_conversations"):
        return Dropped(place, None, NO_CONVERSATION)
    if name in users:
        raise BadField("user_id", f"{name} has been in the survey before")
    ranks = record.get("order_stated_prefs")
    if not isinstance(ranks, dict):
        raise BadField("order_stated_prefs", "expected an object of attributes and their ranks")
    ranked = sorted((attribute for attribute, rank in ranks.items() if rank in (1, 2, 3)), key=lambda a: ranks[a])
    said = "".join(f"{shown}: {text(record, field)}; " for shown, field in FIELDS.items())
    block = f"User textual information: preference: {', '.join(ranked)}; {said}".strip()
    first = next((attribute for attribute in ranked if ranks[attribute] == 1), UNSTATED)
    users[name] = Person(len(users) + 1, MAJORITY, first, block)
    return users[name]


def _seen(person: Person, dialogues: int) -> Person:
    return person if dialogues > 1 else Person(person.id, UNSEEN, person.kind, person.text)


def _dialogue(place: Place, record: dict[str, Any], users: dict[str, Person]) -> list[Raw]:
    """Return the pairs of a conversation: at each turn the chosen answer and each rejected one."""
    person = users.get(text(record, "user_id", blank=False))
    utterances = record.get("conversation_history")
    if not isinstance(utterances, list) or not all(isinstance(item, dict) for item in utterances):
        raise BadField("conversation_history", "expected a list of utterances, each with turn, role and content")
    if person is None:
        return [Dropped(place, None, NOT_IN_SURVEY)]
    spoken = _turns(utterances)
    opening = next((asked for asked, _, _ in spoken if asked), "")
    made: list[Raw] = []
    earlier: list[tuple[str, str]] = []
    for message, chosen, rejected in spoken:
        if not message or not chosen or not rejected:
            made.append(Dropped(place, person.kind, NO_CHOICE))
        prompt = dialogue(earlier, message, LONGEST_PROMPT - len(person.text))
        for other in rejected if message and chosen else ():
            if len(message) + max(len(chosen), len(other)) >= LONGEST:
                made.append(Dropped(place, person.kind, TOO_LONG))
            else:
                made.append(Pair(place, prompt, chosen, other, person.kind, person.id, opening=opening))
        if message and chosen:
            earlier.append((message, chosen))
    return made


def _turns(utterances: list[dict[str, Any]]) -> list[tuple[str, str, list[str]]]:
    """Return (message, chosen answer, rejected answers) of each turn in order; what a turn lacks is empty.

    Of several messages or chosen answers the first counts, as in the release.
    """
    turns: dict[float, tuple[list[str], list[str], list[str]]] = {}
    for item in utterances:
        role = text(item, "role")
        if role not in ("user", "model"):
            raise BadField("role", f"is {role!r}, expected user or model")
        asked, chosen, rejected = turns.setdefault(number(item, "turn"), ([], [], []))
        is_chosen = item.get("if_chosen")
        # A text such as "false" would count as true.
        if role == "model" and is_chosen not in (None, True, False):
            raise BadField("if_chosen", f"is {is_chosen!r}, expected true or false")
        kind = asked if role == "user" else chosen if is_chosen else rejected
        kind.append(text(item, "content"))
    ordered = [turns[turn] for turn in sorted(turns)]
    return [(next(iter(asked), ""), next(iter(chosen), ""), rejected) for asked, chosen, rejected in ordered]
