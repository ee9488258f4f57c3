"""Prompts that tell of the user in text, and what is cut where a text is longer than the model's context."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal

from transformers import PreTrainedTokenizerBase

from rlphf.lm.chat import encode_prompts

Place = Literal["before", "behind"]


def told(question: str, text: str | None, place: Place = "before") -> str:
    """Return the question with the user's text before or behind it; without a text, or with a blank one, the question alone."""
    if not text or not text.strip():
        return question
    return f"{text.strip()} {question}" if place == "before" else f"{question} {text.strip()}"


def beginning(prompt: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the number of tokens, 0 or 1, that come before everything else in a prompt: where soft tokens go.

    It is 1 for a token that begins the text (BOS): the paper has [BOS, soft tokens, text]. System turns and turn markers are
    text. Some tokenizers name the marker of a turn their BOS; as it comes again with each turn, it is taken for what it is.
    """
    bos = tokenizer.bos_token_id
    return int(bos is not None and len(prompt) > 0 and prompt[0] == bos and list(prompt).count(bos) == 1)


def prompt_limit(total: int, response: int) -> int:
    """Return how many of `total` tokens a prompt may have before a response of `response` tokens: what it leaves, or half.

    So there is always room for a prompt, and a response that is longer than its half loses its end; at least 1.
    """
    return max(total - response, total // 2, 1)


def fit_prompt(
    tokenizer: PreTrainedTokenizerBase, question: str, text: str | None = None, place: Place = "before", limit: int = 2**31
) -> list[int]:
    """Return the token ids of a question, told of the user by `text`, in at most `limit` (at least 1) tokens.

    What is too long loses the last words of the user's text first, down to none of them; then the prompt loses its start
    behind the BOS. The end, where the response is asked for, always stays.
    """
    (ids,) = encode_prompts(tokenizer, [told(question, text, place)])
    if len(ids) <= limit:
        return ids
    words = (text or "").split()

    def length(count: int) -> int:
        return len(encode_prompts(tokenizer, [told(question, " ".join(words[:count]), place)])[0])

    kept = bisect_right(range(len(words)), limit, key=length)
    (ids,) = encode_prompts(tokenizer, [told(question, " ".join(words[: max(0, kept - 1)]), place)])
    if len(ids) <= limit:
        return ids
    head = min(beginning(ids, tokenizer), limit - 1)
    return ids[:head] + ids[len(ids) - (limit - head) :]
