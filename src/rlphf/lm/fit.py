"""What is cut where a prompt is longer than its share of the model's context. Users' texts are cut before, in `users.prompts`."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from rlphf.lm.chat import encode_prompts


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


def fit_prompt(tokenizer: PreTrainedTokenizerBase, question: str, limit: int) -> list[int]:
    """Return the token ids of a question as a prompt, in at most `limit` (at least 1) tokens.

    A prompt that is too long loses its start behind the BOS. The end, where the response is asked for, always stays.
    """
    (ids,) = encode_prompts(tokenizer, [question])
    if len(ids) <= limit:
        return ids
    head = min(beginning(ids, tokenizer), limit - 1)
    return ids[:head] + ids[len(ids) - (limit - head) :]
