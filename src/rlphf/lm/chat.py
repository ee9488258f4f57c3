"""Instructions and responses as token ids: one text form for training, sampling and scoring alike."""

import re
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

# What is asked: an instruction, or the turns of a conversation, from its first question on to the one that is to be answered.
Asked = str | tuple[str, ...]

# Turn markers of the Tulu models, which both papers build on.
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' if not loop.last else '' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n<|assistant|>\n' }}{% endif %}"
)


def encode_prompts(tokenizer: PreTrainedTokenizerBase, instructions: Sequence[Asked]) -> list[list[int]]:
    """Return the token ids of each instruction as a user turn, up to where the response starts.

    A conversation's turns are the user's and the assistant's, one after the other. What a turn holds stays text, also where it is
    that of a special token, such as a turn marker.
    """
    if not instructions:
        # Tokenizers refuse an empty batch.
        return []
    turns = [(asked,) if isinstance(asked, str) else asked for asked in instructions]
    found = tokenizer([_rendered(tokenizer, texts) for texts in turns], add_special_tokens=False)["input_ids"]
    special = _special_tokens(tokenizer)
    return [
        _literal(tokenizer, texts, special) if any(token in text for text in texts for token in special) else ids
        for texts, ids in zip(turns, found, strict=True)
    ]


def _rendered(tokenizer: PreTrainedTokenizerBase, turns: Sequence[str]) -> str:
    """Return turns in the form of the tokenizer's template."""
    messages = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(turns)]
    return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def _special_tokens(tokenizer: Any) -> list[str]:
    """Return the texts that the tokenizer takes for special tokens, the longest first."""
    found = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return sorted(found, key=len, reverse=True)


def _literal(tokenizer: Any, turns: Sequence[str], special: Sequence[str]) -> list[int]:
    """Return the token ids of turns of which no part is taken for a special token: only the template's own are."""
    # The template is filled with the turns' numbers, so that what it brings along can be told from them.
    form = _rendered(tokenizer, [f"\ue000{place}\ue001" for place in range(len(turns))])
    ids: list[int] = []
    for part in re.split(f"({'|'.join(map(re.escape, special))})", form):
        if part in special:
            ids.append(tokenizer.convert_tokens_to_ids(part))
        elif part:
            text = re.sub("\ue000([0-9]+)\ue001", lambda found: turns[int(found[1])], part)
            ids += tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def encode_responses(tokenizer: PreTrainedTokenizerBase, responses: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each response, closed by the end-of-sequence token; no part of it is taken for a special token."""
    found = tokenizer(list(responses), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [ids + [tokenizer.eos_token_id] for ids in found]


def decode_response(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[str, bool]:
    """Return (text, finished): the text before the first end token, and whether there was one."""
    finished = tokenizer.eos_token_id in ids
    end = list(ids).index(tokenizer.eos_token_id) if finished else len(ids)
    return str(tokenizer.decode(list(ids[:end]), skip_special_tokens=True)).strip(), finished
