"""The oracle: reads a testbed response back and scores it exactly. It judges; no policy ever trains on it."""

import re
from dataclasses import dataclass
from functools import cache

from rlphf.testbed.language import FACTS, MAX_SENTENCES, TONE_OF, WORDING_OF, WORDINGS, Remark, remarks, topics

CRITERIA = ("P1A", "P1B", "P2A", "P2B", "P3A", "P3B", "P3C", "P3D", "helpfulness")
# What a labeller asked for the "generally better" response goes by. Such labels are known to favour
# informative and polite answers; the weights are ours.
GENERAL = {"helpfulness": 0.5, "P2B": 0.3, "P3A": 0.2}


@dataclass(frozen=True)
class Sentence:
    """What one recognised sentence is: a fact of a topic, or a remark (with a topic if it names one)."""

    topic: str | None
    item: Remark | tuple[int, str]


def _key(sentence: str) -> str:
    return re.sub(r"[^a-z0-9 ]", "", sentence.lower()).strip()


@cache
def _known() -> dict[str, Sentence]:
    table: dict[str, Sentence] = {}
    for topic in topics().values():
        for number, wordings in enumerate(topic.facts):
            for wording, text in zip(WORDINGS, wordings, strict=True):
                table[_key(text)] = Sentence(topic.id, (number, wording))
    for tone, parts in remarks().items():
        for part, sentences in parts.items():
            for index, text in enumerate(sentences):
                if "{topic}" in text:
                    for topic in topics().values():
                        table[_key(text.format(topic=topic.name))] = Sentence(topic.id, Remark(part, tone, index))
                else:
                    table[_key(text)] = Sentence(None, Remark(part, tone, index))
    return table


def split_sentences(text: str) -> list[str]:
    """Split at sentence ends; what follows the last one is a sentence of its own."""
    return [s for s in re.split(r"(?<=[.!?])\s+", text.strip()) if s]


def read(response: str) -> list[Sentence | None]:
    """Recognise each sentence of a response; None for one that the language does not have."""
    return [_known().get(_key(s)) if s[-1] in ".!?" else None for s in split_sentences(response)]


def scores(response: str, topic: str) -> dict[str, float]:
    """Score a response to a question about `topic` by every criterion, each in [0, 1].

    Expertise (P1A, P1B): share of plain, technical wordings among the facts on topic.
    P2B: share of the topic's facts that are stated. P2A: 1 for a single sentence, falling to 0 at the
    longest response. Style (P3A to P3D): share of the tone among all remarks. Helpfulness: the share of
    sentences that the language has and that name no other topic, times the share that is no repetition.
    A response without a fact on topic scores 0 on expertise, informativeness and helpfulness.
    """
    found = read(response)
    on_topic = [s.item for s in found if s and s.topic == topic and not isinstance(s.item, Remark)]
    tones = [s.item.tone for s in found if s and isinstance(s.item, Remark)]
    result = dict.fromkeys(CRITERIA, 0.0)
    for name, wording in WORDING_OF.items():
        result[name] = sum(item[1] == wording for item in on_topic) / len(on_topic) if on_topic else 0.0
    if on_topic:
        result["P2A"] = max(0.0, 1 - (len(found) - 1) / (MAX_SENTENCES - 1))
        result["P2B"] = len({item[0] for item in on_topic}) / FACTS
    for name, tone in TONE_OF.items():
        result[name] = tones.count(tone) / len(tones) if tones else 0.0
    if on_topic:
        sound = sum(s is not None and s.topic in (None, topic) for s in found) / len(found)
        result["helpfulness"] = sound * _distinct(found)
    return result


def _distinct(found: list[Sentence | None]) -> float:
    # A fact told twice is a repetition, also when the second time is in the other wording.
    meant = [(s.topic, s.item if isinstance(s.item, Remark) else s.item[0]) for s in found if s]
    return (len(set(meant)) + found.count(None)) / len(found)


def general(response_scores: dict[str, float]) -> float:
    """Return how good a response is to a labeller without a stated preference, in [0, 1]."""
    return sum(weight * response_scores[name] for name, weight in GENERAL.items())
