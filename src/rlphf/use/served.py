"""Soups of a finished run, ready to answer: the backbone with policies beside each other, mixed row by row."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from rlphf.lm.backbone import backbone_sha256, load_backbone
from rlphf.lm.chat import Asked, encode_prompts
from rlphf.lm.sampling import Hear, answer, room
from rlphf.lm.stack import read_stack
from rlphf.settings import Decoding
from rlphf.soup.adapter import check_backbone


class Answerer:
    """A backbone and adapters on it, by name."""

    def __init__(self, backbone: Path, adapters: Mapping[str, Path]):
        """Load the backbone and the `adapters` {name: folder}; raise InputError for one that was made for another backbone."""
        digest = backbone_sha256(backbone)
        for folder in adapters.values():
            check_backbone(folder, digest)
        self.model, self.tokenizer = load_backbone(backbone)
        self.names = list(adapters)
        self.stack = read_stack(self.model, list(adapters.values()))

    def answer(
        self,
        questions: Sequence[Asked],
        soups: Sequence[Mapping[str, float]],
        decoding: Decoding,
        seed: int | Sequence[int],
        hear: Hear | None = None,
    ) -> list[str]:
        """Return the answer to each question, or to a conversation's last, by the soup {adapter: weight} of the same place.

        {} is the backbone. `seed` and `hear` are as in `lm.sampling.sample`: all are answered in the same batches. Raises
        InputError as `lm.sampling.answer` does.
        """
        weights = torch.tensor([[soup.get(name, 0.0) for name in self.names] for soup in soups])
        if not self.names:
            return [text for text, _, _ in answer(self.model, self.tokenizer, questions, decoding, seed, hear=hear)]
        with self.stack.mixing(weights.to(self.model.device)) as select_rows:
            found = answer(self.model, self.tokenizer, questions, decoding, seed, select_rows, hear)
        return [text for text, _, _ in found]

    def fitting(self, turns: tuple[str, ...], decoding: Decoding) -> tuple[str, ...]:
        """Return a conversation's turns without the oldest questions and answers that the context has no room for.

        The last question stays whatever its length; `decoding` says how much room the answer needs.
        """
        while len(turns) > 1 and len(encode_prompts(self.tokenizer, [turns])[0]) > room(self.model, decoding):
            turns = turns[2:]
        return turns


class Stream:
    """Text that grows token by token; it never takes back what it gave."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.given = ""

    def add(self, token: int) -> str:
        """Take one more token; return the text that it adds, "" while a character is incomplete."""
        self.ids.append(token)
        return "" if self._text().endswith("\ufffd") else self.rest()

    def rest(self) -> str:
        """Return what has not been given yet, also of a character that stays incomplete."""
        text = self._text()
        more, self.given = text[len(self.given) :], text
        return more

    def _text(self) -> str:
        return str(self.tokenizer.decode(self.ids, skip_special_tokens=True)).lstrip()
