"""Prompts and corpus out of a seed: nothing that is held out occurs in training."""

from itertools import islice

import pytest

from rlphf.data.records import SPLITS, check_prompts
from rlphf.data.splits import check_leaks
from rlphf.errors import InputError
from rlphf.preferences import PREFERENCES
from rlphf.settings import Testbed as Settings
from rlphf.testbed.language import PHRASINGS, question, topics
from rlphf.testbed.oracle import scores
from rlphf.testbed.prompts import corpus, prompts, topic_splits

SETTINGS = Settings()
SEEDS = [0, 1, 1103, 2**31 - 1]


def phrasing(row: dict) -> int:
    return next(k for k in range(len(PHRASINGS)) if question(row["topic"], k) == row["prompt"])


@pytest.mark.parametrize("seed", SEEDS)
def test_splits_share_no_topic_and_training_shares_no_phrasing(seed: int) -> None:
    rows = prompts(SETTINGS, seed).to_pylist()
    by_split = {split: [row for row in rows if row["split"] == split] for split in SPLITS}
    used = [{row["topic"] for row in by_split[split]} for split in SPLITS]
    assert [len(names) for names in used] == [SETTINGS.train_topics, SETTINGS.validation_topics, SETTINGS.test_topics]
    assert len(set.union(*used)) == sum(map(len, used))
    phrasings = [{phrasing(row) for row in by_split[split]} for split in SPLITS]
    assert phrasings[0] == set(range(SETTINGS.train_phrasings)) and phrasings[1] == phrasings[2]
    assert not phrasings[0] & phrasings[1] and len(phrasings[1]) == SETTINGS.test_phrasings
    for split, names in zip(SPLITS, used, strict=True):
        wanted = SETTINGS.prompts_per_topic if split == "train" else SETTINGS.test_phrasings
        assert all(sum(row["topic"] == name for row in by_split[split]) == wanted for name in names)


@pytest.mark.parametrize("seed", SEEDS)
def test_prompts_keep_the_rules_of_their_table_and_leak_nothing(seed: int) -> None:
    table = prompts(SETTINGS, seed)
    check_prompts(table, "prompts")
    check_leaks(table)


def test_another_seed_holds_other_topics_out_and_the_same_one_the_same() -> None:
    held_out = [tuple(topic_splits(SETTINGS, seed)["test"]) for seed in range(20)]
    assert len(set(held_out)) == 20
    assert topic_splits(SETTINGS, 7) == topic_splits(SETTINGS, 7)
    # Over seeds, every topic is held out now and then.
    assert {name for names in held_out for name in names} == set(topics())


def test_more_topics_or_phrasings_than_there_are_is_an_error_in_one_line() -> None:
    with pytest.raises(InputError, match="topics are asked for and there are"):
        prompts(Settings(train_topics=len(topics())), seed=0)
    with pytest.raises(InputError, match="phrasings are asked for and there are"):
        prompts(Settings(train_phrasings=len(PHRASINGS)), seed=0)
    with pytest.raises(InputError, match="phrasings are asked for and there are"):
        next(corpus(Settings(train_phrasings=len(PHRASINGS) + 1), seed=0))


def read_corpus(seed: int = 1, count: int = 3000, **settings) -> list[tuple[str, list[str], str, str]]:
    """(topic, preferences asked for, phrasing and prompts as asked, response) of documents of the corpus."""
    by_question = {question(t, k): t for t in topics() for k in range(len(PHRASINGS))}
    rows = []
    for instruction, response in islice(corpus(Settings(**settings), seed), count):
        asked = [p.id for p in PREFERENCES.values() if p.prompt in instruction]
        bare = instruction
        for name in asked:
            bare = bare.replace(f" {PREFERENCES[name].prompt}", "")
        rows.append((by_question[bare], asked, bare, response))
    return rows


def test_the_corpus_covers_all_topics_in_the_training_phrasings_only() -> None:
    rows = read_corpus()
    assert {topic for topic, *_ in rows} == set(topics())
    held_out = {question(t, k) for t in topics() for k in range(SETTINGS.train_phrasings, len(PHRASINGS))}
    assert not held_out & {bare for _, _, bare, _ in rows}


def test_every_document_of_the_corpus_is_a_helpful_answer() -> None:
    assert all(scores(response, topic)["helpfulness"] == 1.0 for topic, _, _, response in read_corpus())


def test_a_third_of_the_corpus_asks_for_nothing_a_third_for_one_and_a_third_for_one_per_axis() -> None:
    counts = [len(asked) for _, asked, _, _ in read_corpus()]
    for number in (0, 1, 3):
        assert counts.count(number) / len(counts) == pytest.approx(1 / 3, abs=0.04)
    for _, asked, _, _ in read_corpus():
        axes = [PREFERENCES[name].axis for name in asked]
        assert len(set(axes)) == len(axes)


def test_the_weights_decide_how_many_preferences_a_document_asks_for() -> None:
    counts = [len(asked) for _, asked, _, _ in read_corpus(asked=[0, 1, 3])]
    assert set(counts) == {1, 3} and counts.count(3) / len(counts) == pytest.approx(0.75, abs=0.03)
    assert {len(asked) for _, asked, _, _ in read_corpus(count=100, asked=[2, 0, 0])} == {0}


def test_the_corpus_obeys_as_often_as_it_is_told_to() -> None:
    never, half, always = (read_corpus(count=3000, obedience=share) for share in (0.0, 0.5, 1.0))
    scored = [[(asked, scores(text, topic)) for topic, asked, _, text in rows] for rows in (never, half, always)]

    def mean(rows: list, preference: str, asked_for: bool) -> float:
        found = [values[preference] for asked, values in rows if (preference in asked) == asked_for]
        return sum(found) / len(found)

    for preference in PREFERENCES:
        gain = [mean(rows, preference, True) - mean(rows, preference, False) for rows in scored]
        assert abs(gain[0]) < 0.08
        assert gain[2] > 0.2 and gain[1] / gain[2] == pytest.approx(0.5, abs=0.15)


def test_the_corpus_comes_out_of_its_seed() -> None:
    one, same, other = (list(islice(corpus(SETTINGS, seed), 50)) for seed in (1, 1, 2))
    assert one == same != other
