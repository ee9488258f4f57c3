"""Instructions and responses as token ids: one text form for training, sampling and scoring alike."""

from collections.abc import Sequence

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

    A conversation's turns are the user's and the assistant's, one after the other.
    """
    texts = [
        tokenizer.apply_chat_template(_messages(asked), tokenize=False, add_generation_prompt=True) for asked in instructions
    ]
    # Tokenizers refuse an empty batch.
    return tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []


def _messages(asked: Asked) -> list[dict[str, str]]:
    turns = (asked,) if isinstance(asked, str) else asked
    return [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(turns)]


def encode_responses(tokenizer: PreTrainedTokenizerBase, responses: Sequence[str]) -> list[list[int]]:
    """Return the token ids of each response, closed by the end-of-sequence token."""
    return [ids + [tokenizer.eos_token_id] for ids in tokenizer(list(responses), add_special_tokens=False)["input_ids"]]


def decode_response(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[str, bool]:
    """Return (text, finished): the text before the first end token, and whether there was one."""
    finished = tokenizer.eos_token_id in ids
    end = list(ids).index(tokenizer.eos_token_id) if finished else len(ids)
    return str(tokenizer.decode(list(ids[:end]), skip_special_tokens=True)).strip(), finished
