"""Where the pairs of users belong: prompt-disjoint over all users, with unseen users in the test split alone."""

from collections import defaultdict
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from rlphf.data.records import SPLITS, pair_id
from rlphf.data.sources.raw import Pair
from rlphf.data.splits import assign, group
from rlphf.seeds import derive

LATER = "prompt lies in a later split"
UNTESTED = "unseen user's prompt is no test prompt"
CAPPED = "beyond user_data.pairs_per_user"


@dataclass(slots=True)
class Placed:
    """A pair of a user with its split, or with the reason why it is dropped."""

    pair: Pair
    user: int
    split: str
    reason: str | None = None

    @property
    def id(self) -> str:
        """The pair's id in PAIRS."""
        pair = self.pair
        return pair_id(pair.prompt, pair.chosen, pair.rejected, pair.preference, self.user)


def place(pairs: Iterable[tuple[int, Pair]], unseen: Set[int], seed: int, validation: float, test: float) -> list[Placed]:
    """Return the pairs (user, pair) with their splits; `validation` and `test` are shares of the prompts.

    1. A pair whose source says "test" is a test pair, and one of "train" is for training or validation. For others the opening of
       the dialogue, or the prompt, and `seed` decide (`splits.assign`).
    2. Prompts that only `unseen` users were asked are for tests. Pairs of `unseen` users in other splits are dropped.
    3. A prompt in several splits, by its source or because dialogues were cut, is kept in the latest one.
    4. A user with no training pair left counts as unseen, too, and loses validation pairs.
    """
    placed = [Placed(pair, user, "test") for user, pair in pairs]
    by_seen = {_opening(row.pair) for row in placed if row.user not in unseen}
    for row in placed:
        own = row.pair.split
        if own == "train" or (own is None and _opening(row.pair) in by_seen):
            row.split = assign(row.pair.opening or row.pair.prompt, seed, validation, 0.0 if own else test)
        if row.user in unseen and row.split != "test":
            row.reason = UNTESTED
    latest: dict[str, int] = defaultdict(int)
    groups = [group(row.pair.prompt) for row in placed]
    for row, name in zip(placed, groups, strict=True):
        if not row.reason:
            latest[name] = max(latest[name], SPLITS.index(row.split))
    for row, name in zip(placed, groups, strict=True):
        if not row.reason and row.split != SPLITS[latest[name]]:
            row.reason = LATER
    seen = trained(placed)
    for row in placed:
        if not row.reason and row.split == "validation" and row.user not in seen:
            row.reason = UNTESTED
    return placed


def trained(placed: Sequence[Placed]) -> set[int]:
    """Return the users who have a training pair."""
    return {row.user for row in placed if row.split == "train" and not row.reason}


def cap(placed: Sequence[Placed], count: int, seed: int) -> None:
    """Drop what a user has more than `count` pairs of in a split; `seed` and the pairs' ids decide.

    A larger count keeps what a smaller one does, and more.
    """
    drawn: dict[tuple[int, str], list[tuple[int, int]]] = defaultdict(list)
    for number, row in enumerate(placed):
        if not row.reason:
            drawn[row.user, row.split].append((derive(seed, "pairs_per_user", row.id), number))
    for numbers in drawn.values():
        for _, number in sorted(numbers)[count:]:
            placed[number].reason = CAPPED


def _opening(pair: Pair) -> str:
    return group(pair.opening or pair.prompt)
