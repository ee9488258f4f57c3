"""Adam on rows: the same as torch's on a row's own steps, and nothing else moves or takes up memory."""

import resource
import time

import torch

from rlphf.users.rows import RowAdam, zeros


def gradients(count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(2, 4, generator=generator) for _ in range(count)]


def test_a_row_moves_as_under_torchs_adam_on_its_own_steps() -> None:
    start = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    table = start.clone()
    optimizer = RowAdam(table)
    alone = {row: torch.nn.Parameter(start[row].clone()) for row in range(6)}
    adams = {row: torch.optim.Adam([p], lr=0.1) for row, p in alone.items()}
    for number, gradient in enumerate(gradients(12)):
        slots = torch.tensor([1, 4] if number % 3 else [0, 4])
        optimizer.step(slots, gradient, 0.1)
        for row, part in zip(slots.tolist(), gradient, strict=True):
            alone[row].grad = part
            adams[row].step()
    for row in range(6):
        assert torch.allclose(table[row], alone[row].detach(), atol=1e-5), row
    assert optimizer.steps.tolist() == [4, 8, 0, 0, 12, 0]
    for untouched in (2, 3, 5):
        assert torch.equal(table[untouched], start[untouched])
        assert not optimizer.mean[untouched].any() and not optimizer.square[untouched].any()


def test_a_restored_optimizer_goes_on_to_the_bit() -> None:
    steps = gradients(8)
    whole, halves = torch.zeros(5, 4), torch.zeros(5, 4)
    undisturbed, first = RowAdam(whole), RowAdam(halves)
    for gradient in steps:
        undisturbed.step(torch.tensor([0, 3]), gradient, 0.1)
    for gradient in steps[:5]:
        first.step(torch.tensor([0, 3]), gradient, 0.1)
    kept = {name: value.clone() for name, value in first.tensors().items()}
    assert kept["slots"].tolist() == [0, 3] and kept["rows"].shape == (2, 4)
    again = torch.zeros(5, 4)
    second = RowAdam(again)
    second.restore(kept)
    for gradient in steps[5:]:
        second.step(torch.tensor([0, 3]), gradient, 0.1)
    assert torch.equal(again, whole)


def test_a_million_users_cost_a_step_no_more_than_ten() -> None:
    def cost(users: int) -> float:
        optimizer = RowAdam(zeros(users, 400))
        slots = torch.tensor([0, users // 2, users - 1])
        times = []
        for _ in range(30):
            began = time.perf_counter()
            optimizer.step(slots, torch.ones(3, 400), 0.1)
            times.append(time.perf_counter() - began)
        return sorted(times)[0]

    few = cost(10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    many = cost(1_000_000)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    # Written in full, table and moments would be 4.8 GB; pages of three rows, and 8 bytes a user, are what is written.
    assert grown < 50 * 1024 and many < 5 * few
