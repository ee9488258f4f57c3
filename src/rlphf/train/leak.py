"""Leaking data for reward models, as in Personalized Soups' release, for the switch `mistakes.duplicated_pairs`."""

from collections.abc import Sequence
from random import Random

# The release's files hold each pair between 5.25 and 5.75 times.
COPIES = 5
HELD_OUT = 0.1
# The split of rows that are held out after pairs have been repeated.
LEAKED = "leaked"


def duplicated(pairs: Sequence[dict], seed: int) -> tuple[list[dict], list[dict]]:
    """Return (training rows, held-out rows) of pairs that are repeated first and split afterwards, 90 to 10.

    The held-out rows say "leaked" for their split, and come once each.
    """
    rows = [pair for pair in pairs for _ in range(COPIES)]
    Random(seed).shuffle(rows)
    held = round(len(rows) * HELD_OUT)
    leaked = {row["id"]: row | {"split": LEAKED} for row in rows[:held]}
    return rows[held:], list(leaked.values())
