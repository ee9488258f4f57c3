"""Users of TL;DR summaries who like them long or short: OpenAI's comparisons, with preferences drawn as in P-RLHF's release.

Each record is {info: {id, post, title, subreddit}, summaries: [{text, policy, note}] x 2, choice, worker, batch, split}. What its
worker chose is not used: who prefers longer summaries chooses the longer one. The release repeats each training pair for the
generic user; that is not done here, as the loss of a pair has both its users' terms.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlphf.data.dedup import IDENTICAL
from rlphf.data.people import MAJORITY, MINORITY, UNSEEN, Person
from rlphf.data.sources.raw import Bad, BadField, Dropped, Pair, Place, Raw, convert, text
from rlphf.data.sources.rows import files, rows, stem
from rlphf.errors import InputError

LONGER, SHORTER = "longer", "shorter"
# The release's seed of the workers' preferences: of its users 1 to 10, the most frequent workers, 4, 5 and 6 like it short.
SEED = 3456
# Characters of a prompt and a summary; what is longer is left out.
LONGEST = 4800
OTHER_POLICY = "a summary is not from a supervised policy"
NOT_AMONG_TOP = "training comparison of a worker who is not among the top"
TOO_LONG = f"longer than {LONGEST} characters"


@dataclass(slots=True)
class _Comparison:
    place: Place
    split: str
    worker: str
    prompt: str
    summaries: tuple[str, str]  # As they stand, whitespace included: lengths count it.


def read(path: Path, users: int | None, shorter: float) -> tuple[list[Person], Iterator[Raw]]:
    """Return the users and their pairs out of a folder of files with "train" or "valid" in their names; the latter are for tests.

    Workers are ranked by their training comparisons (ties by name). The first `users` of them, or all, are users 1, 2, ...; other
    workers of the validation files are unseen users behind them. `shorter` is the chance of a worker to prefer shorter summaries,
    who is the minority. Only summaries of supervised policies that were made for TL;DR count. Raises InputError for other files.
    """
    found = [item for file in files(path) for item in _comparisons(file)]
    compared = [item for item in found if isinstance(item, _Comparison)]
    train = Counter(item.worker for item in compared if item.split == "train")
    tested = {item.worker for item in compared if item.split == "test"}
    ranked = sorted({*train, *tested}, key=lambda worker: (-train[worker], worker))
    top = [worker for worker in ranked if train[worker]][:users]
    likes = preferences(len(ranked), shorter)
    by_worker: dict[str, Person] = {}
    for worker, like in zip(ranked, likes, strict=True):
        if worker in top or worker in tested:
            group = MINORITY if like == SHORTER else MAJORITY
            by_worker[worker] = Person(len(by_worker) + 1, group if worker in top else UNSEEN, like)
    kinds = dict(zip(ranked, likes, strict=True))
    return list(by_worker.values()), (_pair(item, by_worker, kinds) if isinstance(item, _Comparison) else item for item in found)


def preferences(workers: int, shorter: float) -> list[str]:
    """Return which summaries each worker prefers, in the order of their ranks; a further worker changes no other's."""
    drawn = np.random.RandomState(SEED).choice([0, 1], size=workers, p=[1 - shorter, shorter])
    return [SHORTER if number else LONGER for number in drawn]


def _comparisons(file: Path) -> Iterator[_Comparison | Dropped | Bad]:
    name = stem(file)
    if "valid" not in name and "train" not in name:
        raise InputError(f"{file}: neither train nor valid is in its name, so its split is not known; rename it or take it away")
    split = "test" if "valid" in name else "train"

    def make(place: Place, record: dict[str, Any]) -> _Comparison | Dropped:
        summaries = record.get("summaries")
        if not isinstance(summaries, list) or len(summaries) != 2 or not all(isinstance(item, dict) for item in summaries):
            raise BadField("summaries", "expected a list of two summaries, each with text and policy")
        policies = [text(item, "policy") for item in summaries]
        if not all("sup" in policy and "ppo" not in policy and "cnn" not in policy for policy in policies):
            return Dropped(place, None, OTHER_POLICY)
        info = record.get("info")
        if not isinstance(info, dict):
            raise BadField("info", "expected an object with post, title and subreddit")
        for item in summaries:
            text(item, "text")
        subreddit, title, post = (text(info, field) for field in ("subreddit", "title", "post"))
        prompt = f"SUBREDDIT: r/{subreddit}\nTITLE: {title}\nPOST: {post}\nTL;DR: "
        return _Comparison(
            place, split, text(record, "worker", blank=False), prompt, (summaries[0]["text"], summaries[1]["text"])
        )

    return convert(rows(file), make)


def _pair(compared: _Comparison, by_worker: dict[str, Person], kinds: dict[str, str]) -> Pair | Dropped:
    """Return the pair of a comparison: of equally long summaries the first is chosen, whatever the user prefers."""
    first, second = compared.summaries
    kind = kinds[compared.worker]
    person = by_worker.get(compared.worker)
    if person is None or (compared.split == "train" and person.group == UNSEEN):
        return Dropped(compared.place, kind, NOT_AMONG_TOP)
    if first == second:
        return Dropped(compared.place, kind, IDENTICAL)
    if len(compared.prompt) + max(len(first), len(second)) > LONGEST:
        return Dropped(compared.place, kind, TOO_LONG)
    turned = len(first) < len(second) if kind == LONGER else len(first) > len(second)
    chosen, rejected = (second, first) if turned else (first, second)
    return Pair(compared.place, compared.prompt, chosen.strip(), rejected.strip(), kind, person.id, split=compared.split)
