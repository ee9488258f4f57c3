"""How soft tokens enter the backbone: as input embeddings in the prompt, behind its BOS and before all text.

A prompt gets T padding ids as placeholders for its user's soft tokens, which replace their embeddings. So lengths, masks and
positions count them like any token, padding works on either side, and sampling caches them.
"""

from collections.abc import Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlphf.lm.branches import Branches, branch
from rlphf.lm.chat import decode_response
from rlphf.lm.fit import beginning, prompt_limit
from rlphf.lm.sampling import sample
from rlphf.settings import Decoding
from rlphf.users.model import UserModel
from rlphf.users.prompts import Place, fit_told

Model = PreTrainedModel | PeftModel


class SoftPrompts:
    """B prompts with the soft tokens (B, T, H) of their users.

    `prompts` are the encoded prompts with room for them; `embed` gives the embeddings that the backbone is to read.
    """

    def __init__(self, model: Model, prompts: Sequence[Sequence[int]], soft: Tensor, tokenizer: PreTrainedTokenizerBase):
        self.soft, self.table = soft, model.get_input_embeddings()
        room = [int(tokenizer.pad_token_id)] * soft.shape[1]
        starts = [beginning(prompt, tokenizer) for prompt in prompts]
        self.prompts = [[*prompt[:start], *room, *prompt[start:]] for prompt, start in zip(prompts, starts, strict=True)]
        self.starts = torch.tensor(starts, dtype=torch.int64, device=soft.device)

    def embed(self, rows: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return the embeddings (b, S, H) of texts (b, S), padded on either side, that begin with the prompts `rows` (b,)."""
        embedded = self.table(tokens)
        if not self.soft.shape[1]:
            return embedded
        # Position of the first token that is no padding.
        begins = mask.argmax(1)
        places = (begins + self.starts[rows])[:, None] + torch.arange(self.soft.shape[1], device=tokens.device)
        index = places.unsqueeze(-1).expand(-1, -1, embedded.shape[-1])
        return embedded.scatter(1, index, self.soft[rows].to(embedded.dtype))


def response_logprobs(
    model: Model,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Sequence[int]]],
    tokenizer: PreTrainedTokenizerBase,
    soft: Tensor | None = None,
) -> Tensor:
    """Return log pi(response | prompt, user) (B, R) of R responses to each prompt, summed over their tokens; none may be empty.

    `soft` (B, T, H) are the users' soft tokens, None for none.
    """
    whole: Any = model
    found = _read(model, prompts, responses, tokenizer, soft)
    keep = found.mask.bool()
    # Logits of response tokens alone: the rest is padding, and the vocabulary is large.
    logits = whole.get_output_embeddings()(found.states[keep]).float()
    logprobs = -torch.nn.functional.cross_entropy(logits, found.tokens[keep], reduction="none")
    return torch.zeros_like(found.mask, dtype=logprobs.dtype).masked_scatter(keep, logprobs).sum(1).view(len(prompts), -1)


def last_states(
    model: Model,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Sequence[int]]],
    tokenizer: PreTrainedTokenizerBase,
    soft: Tensor | None = None,
) -> Tensor:
    """Return the last hidden state (B, R, H) at the last token of each text, which a reward model's head reads."""
    ends = _read(model, prompts, responses, tokenizer, soft).ends
    return ends.view(len(prompts), -1, ends.shape[-1])


def _read(
    model: Model,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[Sequence[int]]],
    tokenizer: PreTrainedTokenizerBase,
    soft: Tensor | None,
) -> Branches:
    placed = None if soft is None or not soft.shape[1] else SoftPrompts(model, prompts, soft, tokenizer)
    pad_id = int(tokenizer.pad_token_id)
    return branch(model, placed.prompts if placed else prompts, responses, pad_id, placed.embed if placed else None)


@torch.no_grad()
def answer_users(
    model: Model,
    user_model: UserModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    ids: Sequence[int],
    decoding: Decoding,
    seed: int,
    texts: Sequence[str | None] | None = None,
    place: Place = "before",
) -> list[tuple[str, int, bool]]:
    """Sample a response to each question for its user; return (text, number of tokens, whether it ended by itself).

    `texts` are the users' own, None for none. Soft tokens, prompt and response fit the model's context: a prompt is cut as
    `fit_told` says, and where the longest response would take more than half of the context, it may have what prompts leave.
    """
    whole: Any = model
    total = whole.config.max_position_embeddings - user_model.tokens_per_user
    limit = prompt_limit(total, decoding.max_new_tokens)
    prompts = [
        fit_told(tokenizer, question, text, place, limit)
        for question, text in zip(questions, texts or [None] * len(questions), strict=True)
    ]
    most = min(decoding.max_new_tokens, total - max(map(len, prompts), default=0))
    decoding = decoding.model_copy(update={"max_new_tokens": most})
    placed = SoftPrompts(model, prompts, user_model(ids), tokenizer)
    embed = placed.embed if user_model.tokens_per_user else None
    eos, padding = tokenizer.eos_token_id, tokenizer.pad_token_id
    sampled = sample(model, placed.prompts, decoding, eos, padding, seed, embed, kinds=list(ids))
    return [(text, len(row), done) for row in sampled for text, done in [decode_response(tokenizer, row)]]
