"""Key-value caches for sampling: one that is not copied at every step, and one whose shapes never change."""

from functools import partial

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

# Steps of room that a full buffer is given.
ROOM = 32


class RoomyLayer(DynamicLayer):
    """A layer's keys and values (B, H, T, D) as views of buffers with room for more steps.

    Hugging Face's own layer concatenates at every step, which copies all that is cached.
    """

    buffers: list[Tensor]

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Append the states of new tokens (B, H, t, D); return all keys and values."""
        length = self.get_seq_length() if self.is_initialized else 0
        end = length + key_states.shape[2]
        if not self.is_initialized or end > self.buffers[0].shape[2]:
            self._grow(key_states, length, end + ROOM)
        for buffer, states in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, length:end] = states
        self.keys, self.values = (buffer[:, :, :end] for buffer in self.buffers)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows `indices`."""
        length = self.get_seq_length()
        self.buffers = [buffer[indices] for buffer in self.buffers]
        self.keys, self.values = (buffer[:, :, :length] for buffer in self.buffers)

    def _grow(self, states: Tensor, length: int, size: int) -> None:
        rows, heads, _, width = states.shape
        grown = [states.new_empty(rows, heads, size, width) for _ in range(2)]
        if length:
            for buffer, old in zip(grown, self.buffers, strict=True):
                buffer[:, :, :length] = old[:, :, :length]
        self.dtype, self.device, self.is_initialized = states.dtype, states.device, True
        self.buffers = grown


class RoomyCache(Cache):
    """Such layers, made as a model first reaches them."""

    def __init__(self) -> None:
        super().__init__(layer_class_to_replicate=RoomyLayer)


class FixedLayer(DynamicLayer):
    """A layer's keys and values (B, H, `length`, D), zero where nothing is cached yet.

    The first pass fills the beginning. Each later one has a token per row, whose states go where the tensor `place` (1,) says, so
    that the same operations on the same memory serve every step.
    """

    def __init__(self, length: int, place: Tensor):
        super().__init__()
        self.length, self.place = length, place

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        """Cache the states of new tokens (B, H, t, D); return those of the first pass, later all that is there for any token."""
        if self.keys is not None and self.values is not None:
            self.keys.index_copy_(2, self.place, key_states)
            self.values.index_copy_(2, self.place, value_states)
            return self.keys, self.values
        # What is not cached yet has to be a number: its weight in attention is 0.
        room = (0, 0, 0, self.length - key_states.shape[2])
        self.keys, self.values = (torch.nn.functional.pad(states, room) for states in (key_states, value_states))
        self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
        return key_states, value_states


class FixedCache(Cache):
    """Such layers for texts of at most `length` tokens, made as a model first reaches them."""

    def __init__(self, length: int, place: Tensor) -> None:
        super().__init__(layer_class_to_replicate=partial(FixedLayer, length, place))  # type: ignore[arg-type]
