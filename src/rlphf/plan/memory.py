"""What a model, its adapters, a cache and a training pass take of memory, as formulas; no weights are loaded.

Estimates, in bytes: fragments of the allocator and what libraries take besides are one constant. Tests hold parameters and caches
to the real ones, and activations to what autograd keeps.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig

from rlphf.errors import InputError
from rlphf.lm.cache import ROOM
from rlphf.settings import Lora

FLOAT32, BFLOAT16 = 4, 2
# NF4 with double quantization: half a byte, an 8-bit scale for 64 values, and a float32 one for 256 scales.
NF4 = 1 / 2 + 1 / 64 + 4 / (64 * 256)
# The CUDA context or the libraries, and gaps between blocks: an allowance, not a measurement.
OVERHEAD = 10**9
# Copies that autograd keeps of a feed-forward layer's width: gate, its activation and up; or the parts of a written-out GELU.
GATED, PLAIN = 3, 5


@dataclass(frozen=True)
class Shape:
    """A language model's sizes: all parameters, those of the layers' matrices, and widths.

    `linears` are the layers' linear modules as (name, inputs, outputs); `query` and `key` the widths of a token's queries and
    keys in a layer; `feed_forward` and `gated` say how wide it gets there, and whether twice; `eager`, whether attention is
    written out.
    """

    parameters: int
    linears: tuple[tuple[str, int, int], ...]
    layers: int
    heads: int
    width: int
    query: int
    key: int
    feed_forward: int
    gated: bool
    vocabulary: int
    context: int
    eager: bool

    @property
    def matrices(self) -> int:
        """Parameters of the layers' linear modules, which quantization makes smaller."""
        return sum(inputs * outputs for _, inputs, outputs in self.linears)


@dataclass(frozen=True)
class Precision:
    """Bytes of a weight in a layer's matrix, of any other weight, and of a number that is computed with."""

    matrix: float
    other: int
    computed: int


def shape_of(config: PretrainedConfig) -> Shape:
    """Return the sizes of the causal language model that a configuration describes, built on the meta device.

    Of a model that reads other things as well, that is the part for texts. Raises InputError for a model without linear layers;
    transformers and torch raise what they like for sizes that cannot be, and for models of other kinds.
    """
    config = config.get_text_config()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    head = model.get_output_embeddings()
    named = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head]
    linears = tuple((name, module.in_features, module.out_features) for name, module in named)
    if not linears:
        raise InputError("its layers have no linear modules")
    heads = config.num_attention_heads
    dimension = getattr(config, "head_dim", None) or config.hidden_size // heads
    widest = max(outputs for _, _, outputs in linears)
    layers = config.num_hidden_layers
    return Shape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        linears=linears,
        layers=layers,
        heads=heads,
        width=config.hidden_size,
        query=heads * dimension,
        key=(getattr(config, "num_key_value_heads", None) or heads) * dimension,
        feed_forward=widest,
        gated=sum(outputs == widest for _, _, outputs in linears) >= 2 * layers,
        vocabulary=config.vocab_size,
        context=config.max_position_embeddings,
        eager=model.config._attn_implementation == "eager",
    )


def adapted(shape: Shape, lora: Lora) -> list[tuple[int, int]]:
    """Return (inputs, outputs) of every linear module that a LoRA adapts; raise InputError for a target that no module has."""
    found = []
    for target in lora.targets:
        own = [(i, o) for name, i, o in shape.linears if name.endswith(f".{target}")]
        if not own:
            names = sorted({name.rpartition(".")[2] for name, _, _ in shape.linears})
            raise InputError(f"lora.targets: the backbone has no linear layer {target!r}; it has {', '.join(names)}")
        found += own
    return found


def lora_parameters(shape: Shape, lora: Lora) -> int:
    """Return the parameters of a LoRA: rank x (inputs + outputs) of each module. Source: Hu et al. 2021, section 4.1."""
    return sum(lora.rank * (inputs + outputs) for inputs, outputs in adapted(shape, lora))


def weight_bytes(shape: Shape, precision: Precision) -> float:
    """Return the bytes of a backbone's weights."""
    return shape.matrices * precision.matrix + (shape.parameters - shape.matrices) * precision.other


def training_bytes(parameters: int) -> int:
    """Return the bytes of float32 parameters that are trained: themselves, their gradients and Adam's two moments."""
    return 4 * FLOAT32 * parameters


def cache_bytes(shape: Shape, rows: int, tokens: int, computed: int) -> int:
    """Return the bytes of the keys and values of `rows` texts of `tokens` tokens in all layers."""
    return 2 * shape.layers * shape.key * rows * tokens * computed


def sampling_bytes(shape: Shape, rows: int, prompt: int, response: int, precision: Precision, narrowed: bool = False) -> float:
    """Return what sampling `rows` responses takes besides weights: the cache with its room, the pass over prompts, the choice.

    A choice needs logits, probabilities and their sums in float32; where it is `narrowed` to a nucleus, their order, too.
    """
    choice = (7 if narrowed else 3) * rows * shape.vocabulary * FLOAT32
    cache = cache_bytes(shape, rows, prompt + response + ROOM, precision.computed)
    return cache + pass_bytes(shape, rows * prompt, precision.computed) + choice


def pass_bytes(shape: Shape, tokens: int, computed: int) -> int:
    """Return what one layer needs at a time in a pass over `tokens` tokens that keeps nothing for gradients."""
    return tokens * computed * ((2 if shape.gated else 1) * shape.feed_forward + 2 * shape.width + 2 * (shape.query + shape.key))


def activation_bytes(shape: Shape, lora: Lora, tokens: int, length: int, computed: int, dropout: bool = False) -> float:
    """Return what autograd keeps of a pass over `tokens` tokens, in texts of `length`, for the gradients of a LoRA.

    The backbone is frozen, so its matrices keep no inputs. Per token and layer are kept:
    - of two norms, their inputs in float32: 2 x width x 4 bytes;
    - of attention, queries, keys, values and result: 2 x (query + key); written out, a row of weights per head, too;
    - of the feed-forward layer, 3 x its width if it is gated, else 5 x;
    - of each adapted module, its input in float32 and r numbers; with dropout, what is left of it, too, and a byte per number.
    The head comes on top (`head_bytes`).
    """
    layer = 2 * shape.width * FLOAT32
    layer += 2 * (shape.query + shape.key) * computed
    layer += (GATED if shape.gated else PLAIN) * shape.feed_forward * computed
    if shape.eager:
        layer += shape.heads * length * FLOAT32
    inputs = sum(inputs for inputs, _ in adapted(shape, lora))
    ranks = len(adapted(shape, lora)) * lora.rank
    return tokens * (shape.layers * layer + inputs * (FLOAT32 + (FLOAT32 + 1 if dropout else 0)) + ranks * FLOAT32)


def head_bytes(shape: Shape, tokens: int, computed: int, copies: int) -> int:
    """Return the bytes of logits at `tokens` tokens: as computed, and `copies` of them in float32."""
    return tokens * shape.vocabulary * (computed + copies * FLOAT32)
