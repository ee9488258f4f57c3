"""Prompts that tell of the user in text, and how much of the text stays where there is no room for all of it."""

from bisect import bisect_right
from typing import Literal

from transformers import PreTrainedTokenizerBase

from rlphf.lm.chat import encode_prompts
from rlphf.lm.fit import fit_prompt

Place = Literal["before", "behind"]


def told(question: str, text: str | None, place: Place = "before") -> str:
    """Return the question with the user's text before or behind it; without a text, or with a blank one, the question alone."""
    if not text or not text.strip():
        return question
    return f"{text.strip()} {question}" if place == "before" else f"{question} {text.strip()}"


def fit_told(
    tokenizer: PreTrainedTokenizerBase, question: str, text: str | None = None, place: Place = "before", limit: int = 2**31
) -> list[int]:
    """Return the token ids of a question, told of the user by `text`, in at most `limit` (at least 1) tokens.

    What is too long loses the last words of the user's text first, down to none of them; then the prompt is cut as `fit_prompt`
    says.
    """
    (ids,) = encode_prompts(tokenizer, [told(question, text, place)])
    if len(ids) <= limit:
        return ids
    words = (text or "").split()

    def length(count: int) -> int:
        return len(encode_prompts(tokenizer, [told(question, " ".join(words[:count]), place)])[0])

    kept = bisect_right(range(len(words)), limit, key=length)
    return fit_prompt(tokenizer, told(question, " ".join(words[: max(0, kept - 1)]), place), limit)
