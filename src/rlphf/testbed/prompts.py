"""Prompts and the backbone's corpus of the testbed, out of a seed."""

from collections.abc import Iterator
from random import Random

import pyarrow as pa

from rlphf.data.records import PROMPTS, SPLITS
from rlphf.errors import InputError
from rlphf.preferences import AXES, PREFERENCES, instruction
from rlphf.seeds import derive
from rlphf.settings import Testbed
from rlphf.testbed.language import PHRASINGS, draw_plan, question, realise, topics


def topic_splits(settings: Testbed, seed: int) -> dict[str, list[str]]:
    """Return {split: topic ids}, disjoint and drawn by `seed`; raise InputError if there are not enough topics."""
    sizes = (settings.train_topics, settings.validation_topics, settings.test_topics)
    names = sorted(topics())
    if sum(sizes) > len(names):
        raise InputError(f"testbed: {sum(sizes)} topics are asked for and there are {len(names)}; lower train_topics")
    Random(derive(seed, "topics")).shuffle(names)
    splits, start = {}, 0
    for split, size in zip(SPLITS, sizes, strict=True):
        splits[split] = sorted(names[start : start + size])
        start += size
    return splits


def prompts(settings: Testbed, seed: int) -> pa.Table:
    """Return the testbed's prompts as a PROMPTS table: no topic and no phrasing of train occurs in another split.

    Raises InputError if there are not enough topics or phrasings.
    """
    known, held_out = settings.train_phrasings, settings.test_phrasings
    _check_phrasings(known + held_out)
    rng = Random(derive(seed, "phrasings"))
    rows = []
    for split, names in topic_splits(settings, seed).items():
        for topic in names:
            phrasings = list(range(known, known + held_out))
            if split == "train":
                phrasings = sorted(rng.sample(range(known), min(known, settings.prompts_per_topic)))
            rows += [
                {"id": f"{topic}-{k:02d}", "prompt": question(topic, k), "topic": topic, "source": "testbed", "split": split}
                for k in phrasings
            ]
    return pa.Table.from_pylist(rows, PROMPTS)


def corpus(settings: Testbed, seed: int) -> Iterator[tuple[str, str]]:
    """Yield (instruction, response) for the backbone without end, over all topics and the training phrasings.

    An instruction carries no preference, one, or one per axis, by the weights `asked`; each preference is obeyed with
    probability `obedience`, independently of the others. Raises InputError if there are not enough phrasings.
    """
    _check_phrasings(settings.train_phrasings)
    rng = Random(derive(seed, "corpus"))
    names = sorted(topics())
    by_axis = [[p.id for p in PREFERENCES.values() if p.axis == axis] for axis in AXES]
    while True:
        topic = rng.choice(names)
        asked = [rng.choice(ids) for ids in by_axis]
        asked = rng.choices([[], [rng.choice(asked)], asked], settings.asked)[0]
        obeyed = [p for p in asked if rng.random() < settings.obedience]
        yield (
            instruction(question(topic, rng.randrange(settings.train_phrasings)), asked),
            realise(draw_plan(rng, topic, obeyed)),
        )


def _check_phrasings(count: int) -> None:
    if count > len(PHRASINGS):
        raise InputError(f"testbed: {count} phrasings are asked for and there are {len(PHRASINGS)}; lower train_phrasings")
