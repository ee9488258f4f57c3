"""Deduplication by its docstring, pair by pair with all texts in memory: what `rlphf.data.dedup` has to agree with."""

from rlphf.data.dedup import CONTRADICTORY, REPEATED, REPEATED_LOOSELY, normalise


def verdicts(pairs):
    """Return what to do with each of the pairs (prompt, chosen, rejected, preference, user): None to keep it, else the reason."""
    found, exact, first = [], set(), {}
    for number, pair in enumerate(pairs):
        prompt, chosen, rejected, preference, user = pair
        if pair in exact:
            found.append(REPEATED)
            continue
        exact.add(pair)
        a, b = normalise(chosen), normalise(rejected)
        if a == b:
            a, b = chosen, rejected
        key = preference, user, normalise(prompt), frozenset((a, b))
        if key not in first:
            first[key] = number, a
            found.append(None)
        elif first[key][1] == a:
            found.append(REPEATED_LOOSELY)
        else:
            found.append(CONTRADICTORY)
            found[first[key][0]] = CONTRADICTORY
    return found
