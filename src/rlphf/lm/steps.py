"""How sampling reads: the prompts once, and then a token per row at every step, with what is already read in a cache.

On a GPU the operations of a small model take less time than it takes to start them. There a step is recorded once as a CUDA
graph, which starts them all at once, and replayed until the rows change; for this its shapes and its memory stay as they are.
"""

import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from rlphf.address import said
from rlphf.lm.cache import FixedCache, RoomyCache

if TYPE_CHECKING:
    from peft import PeftModel

    from rlphf.lm.mixing import Mixture


class Steps(Protocol):
    """Reads for B rows; all return the logits (B, V) of the next tokens, which are good until the next step."""

    def read(self, inputs: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        """Read prompts, padded on the left: `inputs` are ids (B, S), or embeddings (B, S, H), `mask` (B, S) is 0 for padding."""

    def keep(self, index: Tensor) -> None:
        """Go on with the rows `index` (b,), in their order; a row may go on several times."""

    def step(self, tokens: Tensor) -> Tensor:
        """Read one more token (B,) of every row."""


def steps(model: Any, longest: int) -> Steps:
    """Return the way to read texts of at most `longest` tokens with a language model, plain, in PEFT's hands or a mixture."""
    return Recorded(model, longest) if can_be_recorded(model) else Growing(model)


def can_be_recorded(model: Any) -> bool:
    """Return whether steps of a model are recorded: one on a GPU, in whose layers every token attends to all before it.

    Mixtures make their inputs on the CPU, and what kernels for 4-bit weights do is not known.
    """
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    whole = kinds == {"full_attention"} and not getattr(config, "sliding_window", None)
    plain = not hasattr(model, "new_cache") and not getattr(model, "is_quantized", False)
    return bool(model.device.type == "cuda" and whole and plain)


class Growing:
    """Every pass has the shapes that it needs."""

    def __init__(self, model: "PreTrainedModel | PeftModel | Mixture"):
        self.model = model
        # A model that mixes several has a cache of its own kind (`lm.mixing`).
        self.cache = getattr(model, "new_cache", RoomyCache)()

    def read(self, inputs: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        """Read prompts, as `Steps` says."""
        self.mask, self.positions = mask, _positions(mask)
        return self._pass(inputs)

    def keep(self, index: Tensor) -> None:
        """Go on with the rows `index` (b,)."""
        self.mask, self.positions = self.mask[index], self.positions[index]
        self.cache.batch_select_indices(index)

    def step(self, tokens: Tensor) -> Tensor:
        """Read one more token (B,) of every row."""
        self.positions = self.positions[:, -1:] + 1
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], 1)
        return self._pass({"input_ids": tokens[:, None]})

    def _pass(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return _logits(self.model, inputs, self.mask, self.positions, self.cache)


class Recorded:
    """Every step has the same shapes, for texts of at most `longest` tokens; on a GPU it is recorded and replayed.

    Elsewhere each step runs as it is written.
    """

    def __init__(self, model: "PreTrainedModel | PeftModel", longest: int):
        self.model, self.longest = model, longest
        self.records = model.device.type == "cuda"
        self.run: Callable[[], object] | None = None

    def read(self, inputs: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        """Read prompts, as `Steps` says."""
        positions = _positions(mask)
        # Where in the cache the newest tokens lie.
        self.place = torch.tensor([mask.shape[1] - 1], device=mask.device)
        self.cache = FixedCache(self.longest, self.place)
        logits = _logits(self.model, inputs, mask, positions, self.cache)
        self.positions = positions[:, -1:].clone()
        # What each row may attend to, in the form that attention takes.
        self.seen = torch.nn.functional.pad(mask.bool(), (0, self.longest - mask.shape[1]))[:, None, None]
        return logits

    def keep(self, index: Tensor) -> None:
        """Go on with the rows `index` (b,)."""
        self.positions, self.seen = self.positions[index], self.seen[index]
        self.cache.batch_select_indices(index)
        self.run = None

    def step(self, tokens: Tensor) -> Tensor:
        """Read one more token (B,) of every row."""
        self.positions += 1
        self.place += 1
        if self.run is None:
            self.tokens = tokens[:, None].clone()
            self.run = self._recorded() if self.records else self._pass
        self.tokens.copy_(tokens[:, None])
        self.run()
        return self.logits

    def _recorded(self) -> Callable[[], object]:
        try:
            return _record(self._pass)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            # An operation of a model that nobody has tried: its steps are as slow as they would be otherwise.
            logging.getLogger(__name__).warning("steps of sampling cannot be recorded (%s); each is run by itself", said(error))
            self.records = False
            return self._pass

    def _pass(self) -> None:
        self.seen.index_fill_(3, self.place, True)
        self.logits = _logits(self.model, {"input_ids": self.tokens}, self.seen, self.positions, self.cache)


def _positions(mask: Tensor) -> Tensor:
    """Return the positions (B, S) of tokens that are padded on the left."""
    return (mask.cumsum(1) - 1).clamp(min=0)


def _logits(model: Any, inputs: Mapping[str, Tensor], mask: Tensor, positions: Tensor, cache: Any) -> Tensor:
    output = model(**inputs, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
    logits: Tensor = output.logits[:, -1]
    return logits


def _record(run: Callable[[], object]) -> Callable[[], object]:
    """Record what `run` does on the GPU; return what does the same again with the same tensors.

    It runs once before, because libraries set themselves up in their first calls, which cannot be recorded.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        run()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        run()
    return graph.replay
