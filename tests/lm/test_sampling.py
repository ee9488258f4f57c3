"""Sampling against Hugging Face's own generation, and the distribution that tokens are drawn from."""

import math

import pytest
import torch

from rlphf.lm.chat import encode_prompts
from rlphf.lm.sampling import answer, choose, sample
from rlphf.settings import Decoding

GREEDY = Decoding(temperature=0, max_new_tokens=12, batch_size=4)
INSTRUCTIONS = [
    "Bees?",
    "Tell me about honey.",
    "What is important about volcanoes?",
    "Explain rivers to me.",
    "Why?",
    "Cats, please.",
]


@pytest.fixture
def prompts(tokenizer) -> list[list[int]]:
    return encode_prompts(tokenizer, INSTRUCTIONS)


def common_end(model, prompts: list[list[int]]) -> int:
    """A token that greedy responses run into half-way, to stand in for the end token: a random model hardly ever ends."""
    rows = sample(model, prompts, GREEDY, eos_id=-1, pad_id=0, seed=0)
    return max(set(rows[1][2:8]), key=lambda token: sum(token in row for row in rows))


def test_greedy_text_is_that_of_generate(model, prompts) -> None:
    end = common_end(model, prompts)
    rows = sample(model, prompts, GREEDY, eos_id=end, pad_id=0, seed=0)
    assert any(row[-1] == end for row in rows) and any(len(row) == 12 for row in rows)
    for prompt, row in zip(prompts, rows, strict=True):
        tokens = torch.tensor([prompt], device=model.device)
        wanted = model.generate(
            tokens, attention_mask=torch.ones_like(tokens), do_sample=False, max_new_tokens=12, eos_token_id=end, pad_token_id=0
        )
        assert row == wanted[0, len(prompt) :].tolist()


def test_a_response_stops_at_its_end_token_or_at_the_limit(model, prompts) -> None:
    end = common_end(model, prompts)
    rows = sample(model, prompts, Decoding(max_new_tokens=5), eos_id=end, pad_id=0, seed=1)
    assert all(row[-1] == end or len(row) == 5 for row in rows)
    assert all(end not in row[:-1] for row in rows)


def test_greedy_text_does_not_depend_on_the_batch(model, prompts) -> None:
    end = common_end(model, prompts)
    alone = [sample(model, [p], GREEDY, eos_id=end, pad_id=0, seed=0)[0] for p in prompts]
    for size in (2, 6):
        decoding = GREEDY.model_copy(update={"batch_size": size})
        assert sample(model, prompts, decoding, eos_id=end, pad_id=0, seed=0) == alone


def test_a_sampled_text_does_not_depend_on_when_other_rows_end(model, prompts) -> None:
    decoding = Decoding(max_new_tokens=10, batch_size=6)
    free = sample(model, prompts, decoding, eos_id=-1, pad_id=0, seed=3)
    # The shortest prompt comes first in its batch, so that all others would move up.
    first = min(range(6), key=lambda i: len(prompts[i]))
    end = free[first][2]
    ended = sample(model, prompts, decoding, eos_id=end, pad_id=0, seed=3)
    assert ended == [row[: row.index(end) + 1] if end in row else row for row in free]
    assert len(ended[first]) <= 3 and max(map(len, ended)) == 10


@pytest.fixture
def read(model, monkeypatch) -> list[int]:
    """How many rows each pass through the model had."""
    rows: list[int] = []
    forward = model.forward

    def counted(*given, **named):
        rows.append(len(named["attention_mask"]))
        return forward(*given, **named)

    monkeypatch.setattr(model, "forward", counted)
    return rows


def test_equal_prompts_are_read_once_and_answered_each_for_itself(model, prompts, read) -> None:
    decoding = Decoding(max_new_tokens=10, batch_size=5)
    repeated = [prompts[i] for i in (0, 1, 1, 4, 0, 1, 2, 2)]
    found = sample(model, repeated, decoding, eos_id=-1, pad_id=0, seed=3)
    # Sorted by length, the first batch has three of the four prompts, twice, once and twice; the second the two longest.
    assert (read[0], read[1], read[10], read[11]) == (3, 5, 2, 3), read
    assert found == sample(model, repeated, decoding, eos_id=-1, pad_id=0, seed=3, kinds=range(8))
    assert len(set(map(tuple, found))) == 8
    end = found[1][2]
    ended = sample(model, repeated, decoding, eos_id=end, pad_id=0, seed=3)
    assert ended == [row[: row.index(end) + 1] if end in row else row for row in found]


def test_what_is_read_of_equal_prompts_counts_where_something_else_is_made_of_them(model, prompts, read) -> None:
    decoding, selected = Decoding(max_new_tokens=3, temperature=0), []

    def run(kinds):
        read.clear()
        selected.clear()
        same = [prompts[0]] * 4
        sample(model, same, decoding, -1, 0, 3, select_rows=lambda rows: selected.append(rows.tolist()), kinds=kinds)
        return read[0], selected[0], selected[-1]

    everyone = [0, 1, 2, 3]
    assert run(None) == (4, everyone, everyone)
    assert run(["a", "b", "a", "b"]) == (2, [0, 1], everyone)
    assert run(["a"] * 4) == (1, [0], everyone)


def test_the_seed_decides(model, prompts) -> None:
    decoding = Decoding(max_new_tokens=6)
    one, again, other = (sample(model, prompts, decoding, eos_id=1, pad_id=0, seed=s) for s in (7, 7, 8))
    assert one == again != other


def test_answers_are_text_with_their_number_of_tokens(model, tokenizer) -> None:
    rows = answer(model, tokenizer, INSTRUCTIONS, Decoding(max_new_tokens=3), seed=0)
    assert len(rows) == 6
    for text, tokens, finished in rows:
        assert text == text.strip() and 1 <= tokens <= 3 and (finished or tokens == 3)


def frequencies(logits: list[float], decoding: Decoding, count: int = 20_000) -> list[float]:
    """How often each token is chosen over evenly random draws."""
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(0))
    chosen = choose(torch.tensor(logits).expand(count, -1), uniform, decoding)
    return (chosen.bincount(minlength=len(logits)) / count).tolist()


def shares(logits: list[float], temperature: float = 1.0, kept: set[int] | None = None) -> list[float]:
    weights = [math.exp(z / temperature) if kept is None or i in kept else 0.0 for i, z in enumerate(logits)]
    return [w / sum(weights) for w in weights]


LOGITS = [1.0, -2.0, 2.0, 0.5, -1e9, 1.9]


@pytest.mark.parametrize(
    ("decoding", "wanted"),
    [
        (Decoding(), shares(LOGITS)),
        (Decoding(temperature=0.5), shares(LOGITS, 0.5)),
        (Decoding(temperature=2.0), shares(LOGITS, 2.0)),
        (Decoding(top_k=2), shares(LOGITS, kept={2, 5})),
        (Decoding(top_k=100), shares(LOGITS)),
        # In order of probability: 0.40, 0.36, 0.15, 0.09, ...; a token is kept if those before it do not reach top_p.
        (Decoding(top_p=0.5), shares(LOGITS, kept={2, 5})),
        (Decoding(top_p=0.8), shares(LOGITS, kept={0, 2, 5})),
        (Decoding(top_p=0.01), shares(LOGITS, kept={2})),
        (Decoding(top_k=3, top_p=0.6, temperature=0.7), shares(LOGITS, 0.7, kept={2, 5})),
    ],
)
def test_tokens_are_chosen_as_often_as_they_are_probable(decoding: Decoding, wanted: list[float]) -> None:
    found = frequencies(LOGITS, decoding)
    assert all(abs(f - w) < 4 * math.sqrt(w * (1 - w) / 20_000) + 1e-9 for f, w in zip(found, wanted, strict=True))
    assert all(f == 0 for f, w in zip(found, wanted, strict=True) if w == 0)


def test_temperature_0_takes_the_most_probable_token() -> None:
    assert choose(torch.tensor([LOGITS, LOGITS[::-1]]), torch.tensor([0.99, 0.0]), Decoding(temperature=0)).tolist() == [2, 3]


def test_the_ends_of_the_interval_choose_possible_tokens() -> None:
    logits = torch.tensor([[-1e9, 0.0, 1.0, 2.0, -1e9]]).expand(2, -1)
    uniform = torch.tensor([0.0, 1 - 2**-24])
    assert choose(logits, uniform, Decoding()).tolist() == [1, 3]
