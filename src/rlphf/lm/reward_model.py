"""A reward model alone: a classifier with one output that is loaded, given encoded texts and asked for scores.

It is trained in `train.reward`; beside policies, on one backbone, it scores in `lm.rewards`.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from rlphf.lm.backbone import backbone_sha256, loading, read_model, training_dtype
from rlphf.lm.batches import pad
from rlphf.lm.chat import encode_prompts, encode_responses
from rlphf.lm.fit import fit_prompt, prompt_limit
from rlphf.progress import bar
from rlphf.soup.adapter import check_backbone, read_reward_model


def classifier(backbone: Path | str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the backbone as a sequence classifier with one output; its head is new until an adapter brings one.

    The head computes in float32, as PPO's does, also where the backbone does not. Raises InputError as `load_backbone` does.
    """
    arguments = loading(backbone, training_dtype(backbone, on_cuda=torch.float32)) | {"num_labels": 1}
    model, tokenizer = read_model(AutoModelForSequenceClassification, backbone, arguments, new="score.weight")
    model.score = Float32Head(model.score)
    return model, tokenizer


class Float32Head(nn.Linear):
    """A reward model's head with the weight of `head`, which computes in float32 whatever it reads, and under autocast, too."""

    def __init__(self, head: nn.Linear):
        super().__init__(head.in_features, head.out_features, bias=False, device="meta")
        self.weight = nn.Parameter(head.weight.detach().float())

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return the scores (..., 1) of `states` (..., H)."""
        with torch.autocast(states.device.type, enabled=False):
            return nn.functional.linear(states.float(), self.weight)


def load_reward_model(backbone: Path | str, adapter: Path | str) -> tuple[PeftModel, PreTrainedTokenizerBase]:
    """Load a saved reward model, as plain PEFT does; on CUDA where there is one.

    Raises InputError for an adapter that is no reward model, or one of another backbone.
    """
    # PEFT would load whatever it finds.
    read_reward_model(adapter)
    check_backbone(adapter, backbone_sha256(backbone))
    model, tokenizer = classifier(backbone)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return PeftModel.from_pretrained(model, adapter, use_safetensors=True).eval().to(device), tokenizer


def encode_texts(
    tokenizer: PreTrainedTokenizerBase, instructions: Sequence[str], responses: Sequence[str], limit: int | None = None
) -> list[list[int]]:
    """Return the ids of each whole text, ending in the end token: the form in which PPO scores a response, too.

    What has more than `limit` tokens is cut as in training (`fit_text`).
    """
    return [ids for ids, _ in fit_texts(tokenizer, instructions, responses, limit)]


def fit_texts(
    tokenizer: PreTrainedTokenizerBase, instructions: Sequence[str], responses: Sequence[str], limit: int | None
) -> list[tuple[list[int], bool]]:
    """Return the ids of each whole text, and whether that cut its response; most are short and encoded at once."""
    if not instructions:
        # Tokenizers refuse an empty batch.
        return []
    prompts, answers = encode_prompts(tokenizer, instructions), encode_responses(tokenizer, responses)
    texts = zip(prompts, answers, instructions, responses, strict=True)
    return [
        (p + r, False) if limit is None or len(p) + len(r) <= limit else fit_text(tokenizer, asked, said, limit)
        for p, r, asked, said in texts
    ]


def text_limit(model: PreTrainedModel | PeftModel, max_length: int | None) -> int:
    """Return how many tokens of a text a reward model reads: those that it was trained on, and no more than its context."""
    context = int(model.config.max_position_embeddings)
    return min(max_length or context, context)


def fit_text(tokenizer: PreTrainedTokenizerBase, instruction: str, response: str, limit: int) -> tuple[list[int], bool]:
    """Return the ids of a whole text in at most `limit` tokens, and whether that cut its response.

    A prompt that is too long loses its start, down to half of the tokens: its end, where the response is asked for, stays. A
    response loses what stands before its end token.
    """
    (answer,) = encode_responses(tokenizer, [response])
    prompt = fit_prompt(tokenizer, instruction, prompt_limit(limit, len(answer)))
    room = limit - len(prompt)
    if len(answer) <= room:
        return prompt + answer, False
    return prompt + answer[: room - 1] + answer[-1:], True


@torch.no_grad()
def score(model: PreTrainedModel | PeftModel, texts: Sequence[list[int]], pad_id: int, batch_size: int = 64) -> list[float]:
    """Return the reward model's score of each encoded text."""
    order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
    scores = [0.0] * len(texts)
    with bar(len(texts), "texts scored") as done:
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            tokens, mask = pad([texts[i] for i in chosen], pad_id, model.device)
            for i, value in zip(chosen, model(input_ids=tokens, attention_mask=mask).logits.squeeze(-1).tolist(), strict=True):
                scores[i] = value
            done(len(chosen))
    return scores
