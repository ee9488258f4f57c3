"""Adam on the rows of a table of which a batch touches a few: time per step and memory do not grow with the table."""

import mmap
from contextlib import suppress

import torch
from torch import Tensor

# Those of torch's Adam.
BETAS, EPSILON = (0.9, 0.999), 1e-8


def zeros(rows: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return zeros (rows, width) whose memory is taken up, page by page, by the rows that are written."""
    size = rows * width * dtype.itemsize
    if not size:
        return torch.zeros(rows, width, dtype=dtype)
    memory = mmap.mmap(-1, size)
    # A huge page would take up 2 MiB for each row that is written; kernels without huge pages refuse the advice.
    with suppress(AttributeError, OSError):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(rows, width)


class RowAdam:
    """Adam (Kingma and Ba 2015) with moments and a count of steps for every row of `rows` (n, R), which it changes in place.

    A row that is not in a batch stays as it is, moments included, so a user's steps do not depend on how many others there are.
    torch's SparseAdam counts steps for the whole table, so a user who is first met late would start with large steps.
    """

    def __init__(self, rows: Tensor):
        self.rows = rows
        self.mean, self.square = zeros(*rows.shape), zeros(*rows.shape)
        self.steps = zeros(len(rows), 1, torch.int64).squeeze(1)

    @torch.no_grad()
    def step(self, slots: Tensor, gradient: Tensor, rate: float) -> None:
        """Move the rows `slots` (m,), each named once, against their `gradient` (m, R) at learning rate `rate`."""
        gradient = gradient.to("cpu", torch.float32)
        steps = self.steps[slots] + 1
        mean = self.mean[slots].lerp_(gradient, 1 - BETAS[0])
        square = self.square[slots].lerp_(gradient.square(), 1 - BETAS[1])
        self.steps[slots], self.mean[slots], self.square[slots] = steps, mean, square
        exponent = steps.double()[:, None]
        corrected, scale = mean / (1 - BETAS[0] ** exponent), (square / (1 - BETAS[1] ** exponent)).sqrt_() + EPSILON
        self.rows[slots] -= (rate * corrected / scale).to(self.rows.dtype)

    def tensors(self) -> dict[str, Tensor]:
        """Return rows and state of the rows that were moved, for a checkpoint."""
        slots = self.steps.nonzero().squeeze(1)
        state = {"rows": self.rows, "mean": self.mean, "square": self.square, "steps": self.steps}
        return {"slots": slots, **{name: value[slots] for name, value in state.items()}}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `tensors` returned; the other rows are to be as they were drawn."""
        slots = tensors["slots"]
        self.rows[slots], self.mean[slots], self.square[slots] = tensors["rows"], tensors["mean"], tensors["square"]
        self.steps[slots] = tensors["steps"]
