"""The testbed's language: questions, and responses built from facts and remarks in five tones.

A `Plan` is what a response says; `realise` writes it out. Everything random is drawn from the caller's generator.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import yaml

TONES = ("neutral", "friendly", "unfriendly", "sassy", "sarcastic")
TONE_OF = {"P3A": "friendly", "P3B": "unfriendly", "P3C": "sassy", "P3D": "sarcastic"}
WORDINGS = ("plain", "technical")
WORDING_OF = {"P1A": "plain", "P1B": "technical"}
FACTS = 6
MAX_ASIDES = 2
MAX_SENTENCES = FACTS + MAX_ASIDES + 2

# The first ones are for the corpus and for training prompts, the rest is held out (`Testbed.train_phrasings`). A held-out
# phrasing puts together words that the others have, in an order that none of them has.
PHRASINGS = (
    "What can you tell me about {topic}?",
    "Tell me about {topic}.",
    "What should I know about {topic}?",
    "Explain {topic} to me.",
    "I would like to learn about {topic}.",
    "What is important about {topic}?",
    "Give me some facts about {topic}.",
    "What do we know about {topic}?",
    "Please describe {topic}.",
    "I have a question about {topic}.",
    "How would you explain {topic}?",
    "What is there to say about {topic}?",
    "Can you tell me something about {topic}?",
    "Could you describe {topic} to me?",
    "Please give me something to read about {topic}.",
    "I want to know more about {topic}.",
    "Please explain what we know about {topic}.",
    "What would you tell me about {topic}?",
    "I would like to know some facts about {topic}.",
    "Can you explain {topic} to me?",
    "Please tell me more about {topic}.",
    "I want to learn something about {topic}.",
    "Could you give me some facts about {topic}?",
    "What is important to know about {topic}?",
)


@dataclass(frozen=True)
class Topic:
    """A topic: its name in a sentence, and facts, each in a plain and a technical wording."""

    id: str
    name: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Remark:
    """A sentence that carries tone and no fact: number `index` of the openers, asides or closers of a tone."""

    part: str
    tone: str
    index: int


@dataclass(frozen=True)
class Plan:
    """What a response says, in order: remarks, and facts as (number, wording)."""

    topic: str
    items: tuple[Remark | tuple[int, str], ...]

    @property
    def facts(self) -> list[tuple[int, str]]:
        """The facts that the response states."""
        return [item for item in self.items if not isinstance(item, Remark)]

    @property
    def remarks(self) -> list[Remark]:
        """The remarks that the response makes."""
        return [item for item in self.items if isinstance(item, Remark)]


def _read(name: str):
    return yaml.safe_load((Path(__file__).parent / name).read_text(encoding="utf-8"))


@cache
def topics() -> dict[str, Topic]:
    """Return all topics by id."""
    return {
        t["id"]: Topic(t["id"], t["name"], tuple((f["plain"], f["technical"]) for f in t["facts"])) for t in _read("topics.yaml")
    }


@cache
def remarks() -> dict[str, dict[str, tuple[str, ...]]]:
    """Return {tone: {"openers" | "asides" | "closers": sentences}}; "{topic}" stands for the topic's name."""
    return {tone: {part: tuple(sentences) for part, sentences in parts.items()} for tone, parts in _read("tones.yaml").items()}


def question(topic: str, phrasing: int) -> str:
    """Return the question about a topic in one of the phrasings."""
    return PHRASINGS[phrasing].format(topic=topics()[topic].name)


def sentence(topic: str, item: Remark | tuple[int, str]) -> str:
    """Return the sentence of one item of a plan."""
    if isinstance(item, Remark):
        return remarks()[item.tone][item.part][item.index].format(topic=topics()[topic].name)
    number, wording = item
    return topics()[topic].facts[number][WORDINGS.index(wording)]


def realise(plan: Plan) -> str:
    """Write a plan out as English."""
    return " ".join(sentence(plan.topic, item) for item in plan.items)


def draw_plan(rng: Random, topic: str, obeyed: Iterable[str] = ()) -> Plan:
    """Draw what a response to a question about `topic` says when it obeys the preferences `obeyed`.

    Without a preference on an axis the response follows the corpus' habits: either wording as a whole
    (with slips), one to all facts, and a tone that is neutral six times out of ten.
    """
    wanted = set(obeyed)
    wording = next((WORDING_OF[p] for p in sorted(wanted) if p in WORDING_OF), None)
    slip = 0.05 if wording else 0.15
    wording = wording or rng.choice(WORDINGS)
    if "P2A" in wanted:
        count = rng.choice((1, 1, 2))
    elif "P2B" in wanted:
        count = rng.choice((FACTS - 1, FACTS, FACTS))
    else:
        count = rng.randint(1, FACTS)
    tone = next((TONE_OF[p] for p in sorted(wanted) if p in TONE_OF), None) or rng.choices(TONES, (6, 1, 1, 1, 1))[0]

    def remark(part: str) -> Remark:
        return Remark(part, tone, rng.randrange(len(remarks()[tone][part])))

    body: list[Remark | tuple[int, str]] = []
    asides = rng.sample(range(len(remarks()[tone]["asides"])), MAX_ASIDES)
    for number in sorted(rng.sample(range(FACTS), count)):
        if body and asides and rng.random() < 0.15:
            body.append(Remark("asides", tone, asides.pop()))
        other = WORDINGS[1 - WORDINGS.index(wording)]
        body.append((number, other if rng.random() < slip else wording))
    opener = [remark("openers")] if rng.random() < 0.8 else []
    closer = [remark("closers")] if rng.random() < (0.4 if "P2A" in wanted else 0.8) else []
    return Plan(topic, (*opener, *body, *closer))
