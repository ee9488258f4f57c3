"""Text rules in the place of reward models: verifiable rewards, which no model has to learn and none can get wrong.

A policy then learns exactly what the rule measures (`data.rules`, `data.own_rules`), and nothing that it does not.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlphf.lm.chat import decode_response


class RuleRewards:
    """The `rules` of N preferences; each gives a text's score, on its own scale."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rules: Sequence[Callable[[str], float]], device: torch.device):
        self.tokenizer, self.rules, self.device = tokenizer, rules, device

    def score(
        self, judged: Sequence[Sequence[list[int]]], responses: Sequence[list[int]], which: Sequence[int], pad_id: int
    ) -> Tensor:
        """Return the score (B,) that rule `which[i]` gives the text of response i. Rules read no prompts, as in `judged`."""
        scores = [self.rules[i](decode_response(self.tokenizer, ids)[0]) for i, ids in zip(which, responses, strict=True)]
        return torch.tensor(scores, dtype=torch.float32, device=self.device)
