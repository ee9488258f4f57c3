"""Fixed rules for texts of any language model: they see length, readability and words with a mood, no meaning.

An annotator labels rollouts by them (`annotator.kind: rule`), and the judge "rules" scores responses by the same ones.
"""

from collections.abc import Callable, Mapping

import textstat
from textblob import TextBlob

Rule = Callable[[str], float]
# School years from the first to the last at a university.
YEARS = (0.0, 20.0)


def readability(text: str) -> float:
    """Return the Automated Readability Index (Smith and Senter 1967), about the school year that a text asks for; 0 for none.

    It counts characters, words and sentences. Flesch's formulas count syllables, for which textstat needs a download. Beyond
    `YEARS` it says nothing: a long web address is of the 200th year, and would outweigh all other texts of a batch.
    """
    years = float(textstat.automated_readability_index(text)) if words(text) else 0.0
    return min(max(years, YEARS[0]), YEARS[1])


def words(text: str) -> float:
    """Return the number of words of a text."""
    return float(len(text.split()))


def polarity(text: str) -> float:
    """Return how friendly the words of a text are, in [-1, 1], by the lexicon that TextBlob comes with; 0 for none."""
    return float(TextBlob(text).sentiment.polarity)


# Criteria and their rules: what measures it, and the sign that makes more of the criterion score higher. P3C, P3D and
# helpfulness are beyond what such rules can tell, so they have none.
RULES: Mapping[str, tuple[Rule, int]] = {
    "P1A": (readability, -1),
    "P1B": (readability, 1),
    "P2A": (words, -1),
    "P2B": (words, 1),
    "P3A": (polarity, 1),
    "P3B": (polarity, -1),
}


def rule_scores(text: str) -> dict[str, float]:
    """Return {criterion: score} of a response, for the criteria that have a rule; every text has a score."""
    measured = {rule: rule(text) for rule in dict.fromkeys(rule for rule, _ in RULES.values())}
    # Adding 0 turns -0 into 0.
    return {criterion: sign * measured[rule] + 0.0 for criterion, (rule, sign) in RULES.items()}
