"""How well the answers of all other users predict a user's: this decides who is of the majority and who of the minority."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")


class _Tally:
    """Questions by the answer they got: how many, and how many of them hold each word."""

    def __init__(self) -> None:
        self.questions: Counter[str] = Counter()
        self.words: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, words: list[str], answer: str) -> None:
        self.questions[answer] += 1
        self.words[answer].update(words)


def told_by_others(pairs: Iterable[tuple[int, str, str, str]]) -> dict[int, float]:
    """Return {user: share of the user's pairs that the others predict}, of pairs (user, question, chosen, rejected).

    Answers are few and recur, such as Yes and No. A pair is predicted if the chosen answer a is the likelier one by naive Bayes
    over the words w of its question, learned from the choices of all other users: the sum over w of
    log (n(w, a) + 1) / (n(a) + 2), where n(a) of their questions got the answer and n(w, a) of these hold the word; the prior is
    even over answers. A share of 1/2 is chance, and less means that the user wants what others do not. Pairs with an answer that
    no other user gave are left out, and so are users with no other pairs.
    """
    asked: dict[int, list[tuple[list[str], str, str]]] = defaultdict(list)
    all_users = _Tally()
    own: dict[int, _Tally] = defaultdict(_Tally)
    for user, question, chosen, rejected in pairs:
        words = sorted(set(_WORD.findall(question.casefold())))
        asked[user].append((words, chosen, rejected))
        all_users.add(words, chosen)
        own[user].add(words, chosen)

    def likely(words: list[str], answer: str, user: int) -> float:
        others = all_users.questions[answer] - own[user].questions[answer]
        held, left_out = all_users.words[answer], own[user].words[answer]
        return sum(math.log((held[word] - left_out[word] + 1) / (others + 2)) for word in words)

    told = {}
    for user, rows in asked.items():
        known = all_users.questions - own[user].questions
        judged = [
            likely(words, chosen, user) > likely(words, rejected, user)
            for words, chosen, rejected in rows
            if known[chosen] and known[rejected]
        ]
        if judged:
            told[user] = sum(judged) / len(judged)
    return told
