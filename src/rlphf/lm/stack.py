"""Adapters side by side on one backbone: every row of a batch runs through its own weighted sum of them.

A soup is such a sum, so a grid of recipes is decoded in one batch without a merged copy of any; policies that train together are
rows with weight 1 on one of them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlphf.errors import InputError
from rlphf.soup.adapter import Factors, read_adapter

# Callback that sets which rows (b,) of the whole batch the next forward pass reads.
SelectRows = Callable[[Tensor], None]

# What PEFT writes before the names of the backbone's layers.
PREFIX = "base_model.model."


class Stack:
    """N LoRA adapters of one backbone, off until rows are mixed.

    `factors`: the adapters' A and B as float32 parameters, trainable only if `trained`. Adapters may differ in ranks and layers.
    """

    def __init__(self, model: nn.Module, adapters: Sequence[Factors], scalings: Sequence[float], trained: bool = False):
        """Hang the adapters on the layers of `model`, which may be in PEFT's hands already.

        Each adds scaling * B @ A to its layers' weights. Raises InputError for a layer that the model does not have, or of
        another size.
        """
        device = next(model.parameters()).device
        self.factors: list[dict[str, tuple[nn.Parameter, nn.Parameter]]] = [
            {name: (_parameter(a, device, trained), _parameter(b, device, trained)) for name, (a, b) in adapter.items()}
            for adapter in adapters
        ]
        self._weights: Tensor | None = None
        self._gates: dict[tuple[int, ...], Tensor] = {}
        self._joined: dict[str, tuple[Tensor, Tensor]] = {}
        # By layer: the rank that each adapter has there, 0 for none. Layers with the same ranks share their gates.
        names = dict.fromkeys(name for adapter in adapters for name in adapter)
        self._ranks = {name: tuple(len(f[name][0]) if name in f else 0 for f in self.factors) for name in names}
        self._scaled = {
            ranks: (
                torch.arange(len(ranks), device=device).repeat_interleave(torch.tensor(ranks, device=device)),
                torch.tensor(scalings, device=device).repeat_interleave(torch.tensor(ranks, device=device)),
            )
            for ranks in set(self._ranks.values())
        }
        self._scalings = list(scalings)
        self._layers = {name: _layer(model, name, self.factors) for name in names}
        self._hooks = [layer.register_forward_hook(partial(self._add, name)) for name, layer in self._layers.items()]

    def __len__(self) -> int:
        return len(self.factors)

    def parameters(self, number: int) -> dict[str, nn.Parameter]:
        """Return the factors of adapter `number` under PEFT's names."""
        found: dict[str, nn.Parameter] = {}
        for name, (a, b) in self.factors[number].items():
            found |= {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}
        return found

    @contextmanager
    def mixing(self, weights: Tensor) -> Iterator[SelectRows]:
        """Route each row through its weighted sum of adapters; yields a function that selects the rows of the next pass.

        `weights` are (rows, N); a row of zeros is the backbone. Until rows are selected, the pass reads all. Factors are read as
        they are at the start, so an optimizer's step needs a new mixing.
        """
        self._weights = weights
        self._select_rows(None)
        try:
            yield self._select_rows
        finally:
            self._weights, self._gates, self._joined = None, {}, {}

    @contextmanager
    def merged(self, number: int) -> Iterator[None]:
        """Add adapter `number` to the backbone's weights, and put them back to the bit afterwards.

        Faster to sample from than a sum at every layer, and as exact as the weights' type: in bfloat16 small updates are lost.
        """
        before = {name: layer.weight.data for name, layer in self._layers.items() if name in self.factors[number]}
        try:
            for name in before:
                a, b = self.factors[number][name]
                delta = self._scalings[number] * (b.data @ a.data)
                self._layers[name].weight.data = before[name] + delta.to(before[name].dtype)
            yield
        finally:
            for name, weight in before.items():
                self._layers[name].weight.data = weight

    def remove(self) -> None:
        """Take the adapters off the model."""
        for hook in self._hooks:
            hook.remove()

    def _select_rows(self, index: Tensor | None) -> None:
        assert self._weights is not None
        now = self._weights if index is None else self._weights[index]
        self._gates = {ranks: (now[:, owners] * scales)[:, None] for ranks, (owners, scales) in self._scaled.items()}

    def _add(self, name: str, _layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        if self._weights is None:
            return None
        if name not in self._joined:
            own = [factors[name] for factors in self.factors if name in factors]
            self._joined[name] = own[0] if len(own) == 1 else (torch.cat([a for a, _ in own]), torch.cat([b for _, b in own], 1))
        a, b = self._joined[name]
        inner = nn.functional.linear(inputs[0].to(a.dtype), a) * self._gates[self._ranks[name]]
        return output + nn.functional.linear(inner, b).to(output.dtype)


def read_stack(model: nn.Module, folders: Sequence[Path]) -> Stack:
    """Read policies or soups in `folders` and hang them on the backbone `model`; raises InputError as `read_adapter` does."""
    adapters = [read_adapter(folder) for folder in folders]
    return Stack(model, [adapter.modules for adapter in adapters], [adapter.scaling for adapter in adapters])


@contextmanager
def hung(model: nn.Module, folders: Sequence[Path]) -> Iterator[Stack]:
    """Give the stack of `read_stack`, and take its adapters off the model afterwards, whatever happened."""
    stack = read_stack(model, folders)
    try:
        yield stack
    finally:
        stack.remove()


def one_each(which: Sequence[int], count: int, device: torch.device | str) -> Tensor:
    """Return weights (rows, `count`) that send each row through the adapter whose number `which` gives."""
    return nn.functional.one_hot(torch.tensor(which, device=device), count).float()


def _parameter(value: Tensor, device: torch.device, trained: bool) -> nn.Parameter:
    return nn.Parameter(value.detach().to(device, torch.float32).clone(), requires_grad=trained)


def _layer(model: nn.Module, name: str, adapters: Sequence[Mapping[str, tuple[Tensor, ...]]]) -> nn.Linear:
    """Return the linear layer that PEFT calls `name`: the plain one, where PEFT has wrapped it."""
    whole: Any = model
    backbone = whole.get_base_model() if hasattr(whole, "get_base_model") else whole
    try:
        layer: Any = backbone.get_submodule(name.removeprefix(PREFIX))
    except AttributeError:
        raise InputError(f"layer {name}: the backbone has none; the adapter was made for another one") from None
    layer = getattr(layer, "base_layer", layer)
    if not isinstance(layer, nn.Linear):
        raise InputError(f"layer {name}: is no linear layer of the backbone; the adapter was made for another one")
    for a, b in (factors[name] for factors in adapters if name in factors):
        if (a.shape[1], b.shape[0]) != (layer.in_features, layer.out_features):
            sizes = f"{a.shape[1]} to {b.shape[0]}, the backbone has {layer.in_features} to {layer.out_features}"
            raise InputError(f"layer {name}: the adapter has {sizes}; it was made for another one")
    return layer
