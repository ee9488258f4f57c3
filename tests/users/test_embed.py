"""Soft tokens in the backbone: where they go, that padding and the cache change nothing, and that they are heard."""

from collections.abc import Iterator

import pytest
import torch
from tests.users.conftest import made
from torch import Tensor

from rlphf.lm.batches import pad
from rlphf.lm.branches import branch
from rlphf.lm.chat import encode_prompts
from rlphf.lm.sampling import sample
from rlphf.settings import Decoding
from rlphf.users.embed import SoftPrompts, answer_users, response_logprobs
from rlphf.users.model import UserModel

INSTRUCTIONS = ["Bees?", "Tell me about honey.", "What is important about volcanoes?", "Explain rivers to me.", "Why?"]
RESPONSES = [[40, 41, 1], [50, 51, 52, 53, 54, 55], [1], [60, 61, 62, 63, 1], [70, 0, 71]]
# Two responses to each prompt, of different lengths.
ANSWERS = list(zip(RESPONSES, RESPONSES[2:] + RESPONSES[:2], strict=True))
IDS = [2, 1, 0, 2, 9]
GREEDY = Decoding(temperature=0, max_new_tokens=10, batch_size=3)


def each_answer() -> Iterator[tuple[int, int, list[int]]]:
    """(prompt, number of its response, response) of all of ANSWERS."""
    return ((i, k, response) for i, pair in enumerate(ANSWERS) for k, response in enumerate(pair))


@pytest.fixture
def users(model) -> UserModel:
    return made(model.get_input_embeddings().weight, [1, 2], model="individual", start="drawn")


@pytest.fixture
def prompts(tokenizer) -> list[list[int]]:
    return encode_prompts(tokenizer, INSTRUCTIONS)


def embedded(model, prompt: list[int], soft: Tensor, response: list[int], at: int = 0) -> Tensor:
    """Embeddings (1, S, H) of a whole text by hand: soft tokens at a place of the prompt."""
    table = model.get_input_embeddings().weight
    return torch.cat([table[prompt[:at]], soft, table[prompt[at:]], table[response]])[None]


def plain_logprob(model, prompt: list[int], response: list[int], soft: Tensor, at: int = 0) -> float:
    """Log-probability of a response by one forward pass of the whole model on one text."""
    logits = model(inputs_embeds=embedded(model, prompt, soft, response, at)).logits[0].log_softmax(-1)
    start = len(prompt) + len(soft) - 1
    return float(sum(logits[start + t, token] for t, token in enumerate(response)))


@torch.no_grad()
def test_log_probabilities_are_those_of_soft_tokens_before_the_text(model, tokenizer, prompts, users) -> None:
    soft = users(IDS)
    found = response_logprobs(model, prompts, ANSWERS, tokenizer, soft)
    for i, k, response in each_answer():
        assert float(found[i, k]) == pytest.approx(plain_logprob(model, prompts[i], response, soft[i]), abs=1e-4)
    # They are heard: other soft tokens, or none, give other log-probabilities.
    for other in (users([1, 2, 1, 0, 1]), None):
        assert (response_logprobs(model, prompts, ANSWERS, tokenizer, other) - found).abs().min() > 1e-3


@torch.no_grad()
def test_no_soft_tokens_are_the_model_as_it_is(model, tokenizer, prompts) -> None:
    nobody = made(model.get_input_embeddings().weight, [], model="uniform")
    found = response_logprobs(model, prompts, ANSWERS, tokenizer, nobody(IDS))
    assert torch.equal(found, response_logprobs(model, prompts, ANSWERS, tokenizer))
    for i, k, response in each_answer():
        wanted = plain_logprob(model, prompts[i], response, torch.zeros(0, 32))
        assert float(found[i, k]) == pytest.approx(wanted, abs=1e-4)


@torch.no_grad()
def test_soft_tokens_go_behind_the_token_that_begins_a_text(model, begins, prompts, users) -> None:
    tokenizer = begins(9)
    begun, soft = [[9, *prompt] for prompt in prompts], users(IDS)
    found = response_logprobs(model, begun, ANSWERS, tokenizer, soft)
    for i, k, response in each_answer():
        assert float(found[i, k]) == pytest.approx(plain_logprob(model, begun[i], response, soft[i], at=1), abs=1e-4)
        assert abs(float(found[i, k]) - plain_logprob(model, begun[i], response, soft[i], at=0)) > 1e-4


def test_gradients_reach_the_soft_tokens_and_each_its_own_text_alone(model, tokenizer, prompts, users) -> None:
    soft = users(IDS).detach().requires_grad_()
    response_logprobs(model, prompts, ANSWERS, tokenizer, soft)[1].sum().backward()
    assert soft.grad is not None and soft.grad[1].abs().min() > 0
    assert not soft.grad[[0, 2, 3, 4]].any()


@torch.no_grad()
@pytest.mark.parametrize("left", [True, False])
def test_padding_on_either_side_changes_no_logits(model, tokenizer, prompts, users, left: bool) -> None:
    placed = SoftPrompts(model, prompts, users(IDS), tokenizer)
    tokens, mask = pad(placed.prompts, tokenizer.pad_token_id, model.device, left=left)
    read = placed.embed(torch.arange(5), tokens, mask)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    together = model(inputs_embeds=read, attention_mask=mask, position_ids=positions).logits
    for i, prompt in enumerate(prompts):
        alone = model(inputs_embeds=embedded(model, prompt, placed.soft[i], [])).logits[0]
        assert len(alone) == len(prompt) + 3
        assert torch.allclose(together[i][mask[i].bool()], alone, atol=1e-4)


@torch.no_grad()
def test_cached_generation_is_that_without_a_cache(model, tokenizer, prompts, users) -> None:
    placed = SoftPrompts(model, prompts, users(IDS), tokenizer)
    found = sample(model, placed.prompts, GREEDY, eos_id=-1, pad_id=tokenizer.pad_token_id, seed=0, embed=placed.embed)
    for i, prompt in enumerate(prompts):
        row: list[int] = []
        for _ in range(10):
            whole = embedded(model, prompt, placed.soft[i], row)
            row.append(int(model(inputs_embeds=whole, use_cache=False).logits[0, -1].argmax()))
        assert found[i] == row
    plain = sample(model, prompts, GREEDY, eos_id=-1, pad_id=tokenizer.pad_token_id, seed=0)
    assert any(a != b for a, b in zip(found, plain, strict=True))


@torch.no_grad()
def test_rows_that_end_leave_the_others_their_users(model, tokenizer, prompts, users) -> None:
    placed = SoftPrompts(model, prompts, users(IDS), tokenizer)
    free = sample(model, placed.prompts, Decoding(batch_size=5, max_new_tokens=8), -1, 0, 3, placed.embed)
    end = free[0][2]
    ended = sample(model, placed.prompts, Decoding(batch_size=5, max_new_tokens=8), end, 0, 3, placed.embed)
    assert ended == [row[: row.index(end) + 1] if end in row else row for row in free]


@torch.no_grad()
def test_embeddings_of_the_tokens_themselves_change_no_byte(model, tokenizer, prompts) -> None:
    table = model.get_input_embeddings()

    def embed(rows: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        return table(tokens)

    decoding = Decoding(max_new_tokens=8, batch_size=3)
    assert sample(model, prompts, decoding, 1, 0, 4, embed) == sample(model, prompts, decoding, 1, 0, 4)
    one, other = branch(model, prompts, ANSWERS, 0, embed), branch(model, prompts, ANSWERS, 0)
    assert torch.equal(one.states, other.states) and torch.equal(one.ends, other.ends)


def test_an_unknown_user_is_answered_as_the_generic_one(model, tokenizer, users) -> None:
    questions = ["Tell me about honey."] * 4
    answers = answer_users(model, users, tokenizer, questions, [0, 77, 1, 2], GREEDY, seed=0)
    assert answers[0] == answers[1] and len({text for text, _, _ in answers}) == 3


def test_one_question_of_two_users_is_answered_for_each_however_often(model, tokenizer, users) -> None:
    questions = ["Tell me about honey."] * 5
    answers = answer_users(model, users, tokenizer, questions, [1, 2, 1, 2, 1], GREEDY, seed=0)
    alone = [answer_users(model, users, tokenizer, questions[:1], [user], GREEDY, seed=0)[0] for user in (1, 2)]
    assert answers == [alone[0], alone[1], alone[0], alone[1], alone[0]] and alone[0] != alone[1]


def test_an_answer_heeds_the_users_text_and_fits_the_context(model, tokenizer, users) -> None:
    questions = ["Tell me about honey."] * 3
    texts = [None, "I like bees.", "I like rivers and cats. " * 400]
    answers = answer_users(model, users, tokenizer, questions, [1, 1, 1], GREEDY, 0, texts)
    assert answers[0] != answers[1] and all(tokens <= 10 for _, tokens, _ in answers)
    # The longest response may have what the longest prompt leaves.
    room = model.config.max_position_embeddings - users.tokens_per_user
    longest = GREEDY.model_copy(update={"max_new_tokens": room})
    found = answer_users(model, users, tokenizer, questions, [1] * 3, longest, 0, texts)
    assert all(0 < tokens <= 0.6 * room for _, tokens, _ in found)
    # The text that is longer than the context is cut to it, and the answer is one to what is left.
    assert answers[2][1] >= 1 and answers[2] != answers[0]
