"""Floors: what the measured rates of this machine allow at best for the work that a benchmark does.

Counted are the multiply-adds of linear layers and the bytes that must be read or written; attention, norms and samplers are left
out, so a floor is below what any implementation can reach. Rates are the best of several tries.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Answer, Options, Side, measure
from rlphf.files import read_json

TRIES = 12
SIZE = 1024
FILE_BYTES = 1 << 26
BYTES = {"float32": 4, "bfloat16": 2}


@dataclass(frozen=True)
class Rates:
    """Multiply-adds, bytes of memory, and bytes of a file in the page cache that are read and written, per second."""

    multiply_adds: float
    memory: float
    file_read: float
    file_write: float


@dataclass(frozen=True)
class Shape:
    """A Llama as floors see it: multiply-adds per token of its layers and of its head, and bytes of cache per token."""

    body: int
    head: int
    cache: int
    item: int

    @classmethod
    def of(cls, model: Path, dtype: str) -> "Shape":
        """Return the shape of the model in a folder."""
        config: dict[str, Any] = read_json(model / "config.json")
        width, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
        heads, pairs = config["num_attention_heads"], config["num_key_value_heads"]
        size = config.get("head_dim") or width // heads
        body = layers * (2 * width * heads * size + 2 * width * pairs * size + 3 * width * inner)
        return cls(body, width * config["vocab_size"], 2 * layers * pairs * size * BYTES[dtype], BYTES[dtype])

    @property
    def weights(self) -> int:
        """Bytes that are read to compute one token."""
        return (self.body + self.head) * self.item


def rates(options: Options, dtype: str, working_set: int) -> Rates:
    """Measure the rates with the threads of `options`, in `dtype`; memory is read over and over, `working_set` bytes of it."""
    arguments = {"dtype": dtype, "working_set": working_set, "folder": str(options.work)}
    found = measure(Side("floor", "benchmarks.floor:measured_rates", arguments), options)
    return Rates(found["multiply_adds"], found["memory"], found["file_read"], found["file_write"])


def measured_rates(dtype: str, working_set: int, folder: str) -> Answer:
    """Side: the rates of products of square matrices, of reading a matrix for its product with a vector, and of a file."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = getattr(torch, dtype)
    a, b = (torch.randn(SIZE, SIZE, device=device, dtype=kind) for _ in range(2))
    # On a CPU, products of a bfloat16 matrix with a vector are slower than memory is.
    read = torch.float32 if device == "cpu" else kind
    rows = max(1, working_set // (SIZE * read.itemsize))
    matrix, vector = torch.randn(rows, SIZE, device=device, dtype=read), torch.randn(SIZE, device=device, dtype=read)
    path, content = Path(folder) / "rates.bin", bytes(FILE_BYTES)
    written = best(lambda: path.write_bytes(content))
    found = {"file_write": FILE_BYTES / written, "file_read": FILE_BYTES / best(path.read_bytes)}
    path.unlink()

    def ended(work: Callable[[], Any]) -> Callable[[], None]:
        def done() -> None:
            work()
            if device == "cuda":
                torch.cuda.synchronize()

        return done

    found["multiply_adds"] = SIZE**3 / best(ended(lambda: a @ b))
    return found | {"memory": matrix.nbytes / best(ended(lambda: matrix @ vector))}


def best(work: Callable[[], Any]) -> float:
    """Return the least seconds of several tries."""
    found = math.inf
    for _ in range(TRIES):
        start = time.perf_counter()
        work()
        found = min(found, time.perf_counter() - start)
    return found


def decode_seconds(shape: Shape, rates: Rates, lengths: list[int], new: int) -> float:
    """Return the least seconds of sampling `new` tokens for prompts of `lengths`, in one batch.

    A step computes every row, and reads all weights and the keys and values of all that went before.
    """
    rows, read = len(lengths), sum(lengths)
    seconds = read * shape.body / rates.multiply_adds
    for step in range(new):
        computed = rows * (shape.head + (shape.body if step else 0)) / rates.multiply_adds
        moved = (shape.weights + (read + rows * step) * shape.cache) / rates.memory
        seconds += max(computed, moved)
    return seconds


def update_seconds(shape: Shape, rates: Rates, lengths: list[int], new: int, epochs: int) -> float:
    """Return the least seconds of an outer step of PPO that samples `new` tokens for each prompt and learns from them.

    After sampling come three passes without gradients (policy, reference and reward, the last without the head) and, per
    epoch, one forward and one backward; of frozen weights only the inputs get gradients, as many multiply-adds as forward.
    """
    texts, answers = sum(lengths) + len(lengths) * new, len(lengths) * new
    computed = texts * shape.body * (3 + 2 * epochs) + answers * shape.head * (2 + 2 * epochs)
    return decode_seconds(shape, rates, lengths, new) + computed / rates.multiply_adds
