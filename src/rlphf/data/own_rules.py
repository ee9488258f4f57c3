"""The text rules of an experiment's own preferences, and which rule a preference has: for annotator, judges and rewards."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from rlphf.errors import InputError
from rlphf.settings_own import TextRule


def sentences_with(text: str, words: Sequence[str]) -> float:
    """Return the share of a text's sentences that hold one of the words as a whole, in any case; 0 for no text."""
    sentences = [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]
    pattern = re.compile("|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in words), re.IGNORECASE)
    return sum(pattern.search(sentence) is not None for sentence in sentences) / len(sentences) if sentences else 0.0


def own_score(rule: TextRule, text: str) -> float:
    """Return how well a text serves a preference by its rule: in [0, 1] by its words or tone, else on the rule's scale."""
    if rule.measure == "sentences_with":
        return _share(sentences_with(text, rule.words), rule)
    # The rules' libraries take a second to import.
    from rlphf.data import rules

    if rule.measure == "polarity":
        return _share((1 + rules.polarity(text)) / 2, rule)
    value = {"words": rules.words, "readability": rules.readability}[rule.measure](text)
    # Adding 0 turns -0 into 0.
    return (value if rule.direction == "more" else -value) + 0.0


def rule_of(preference: str, own: Mapping[str, TextRule]) -> Callable[[str], float]:
    """Return what scores a text for a preference: its rule in `own`, or the paper's; raise InputError if it has none."""
    if preference in own:
        return partial(own_score, own[preference])
    # The rules' libraries take a second to import, and the oracle needs none of them.
    from rlphf.data.rules import RULES

    if preference not in RULES:
        raise InputError(f"there is no text rule for {preference!r}; rules know {', '.join((*RULES, *own))}")
    rule, sign = RULES[preference]
    return lambda text: sign * rule(text)


def _share(value: float, rule: TextRule) -> float:
    return value if rule.direction == "more" else 1 - value
