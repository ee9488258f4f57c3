"""The rules that thin out deltas, against their papers' formulas entry by entry, and as soups."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rlphf.soup.merge import relative_errors, save_soup
from rlphf.soup.recipe import Recipe, make_recipe
from rlphf.soup.sparse import low_rank, thinned

THIRDS = [1 / 3, 1 / 3, 1 / 3]


def drawn(count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(6, 5, generator=generator, dtype=torch.float64) for _ in range(count)]


def plain_ties(deltas: list[Tensor], density: float) -> Tensor:
    """Yadav et al. 2023, algorithm 1, with lambda = 1: trim, elect the sign, mean over those that have it; entry by entry."""
    kept = int(density * deltas[0].numel())
    merged = torch.zeros_like(deltas[0])
    least = [delta.abs().flatten().sort(descending=True).values[kept - 1] for delta in deltas]
    for i in range(merged.shape[0]):
        for j in range(merged.shape[1]):
            entries = [float(d[i, j]) if d[i, j].abs() >= size else 0.0 for d, size in zip(deltas, least, strict=True)]
            sign = 1 if sum(entries) >= 0 else -1
            agreeing = [x for x in entries if x * sign > 0]
            merged[i, j] = sum(agreeing) / len(agreeing) if agreeing else 0.0
    return merged


@pytest.mark.parametrize("density", [0.2, 0.5, 1.0])
def test_ties_is_the_papers_algorithm_for_equal_weights(density: float) -> None:
    found = thinned(drawn(), THIRDS, "ties", density, seed=0)
    assert torch.allclose(found, plain_ties(drawn(), density), atol=1e-12)


def test_dare_keeps_scaled_entries_and_is_right_in_the_mean() -> None:
    (delta,) = drawn(1)
    found = [thinned([delta], [1.0], "dare", 0.25, seed) for seed in range(2000)]
    kept = torch.stack([merged != 0 for merged in found]).double()
    assert float(kept.mean()) == pytest.approx(0.25, abs=0.01)
    assert all(torch.allclose(merged[merged != 0], (delta * 4)[merged != 0]) for merged in found[:20])
    # The standard error of an entry is sqrt(3) of it over sqrt(2000).
    assert (torch.stack(found).mean(0) - delta).abs().max() < 5 * 3**0.5 * float(delta.abs().max()) / 2000**0.5


def test_dare_that_keeps_everything_is_the_weighted_sum() -> None:
    weights = [0.5, -0.2, 0.7]
    wanted = sum(w * d for w, d in zip(weights, drawn(), strict=True))
    assert torch.allclose(thinned(drawn(), weights, "dare", 1.0, seed=0), wanted, atol=1e-12)


def test_drawing_leaves_the_global_random_state_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    thinned(drawn(), THIRDS, "dare", 0.5, seed=3)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("rank", [2, 5, 9])
def test_factors_are_the_best_of_their_rank(rank: int) -> None:
    (matrix,) = drawn(1)
    a, b = low_rank(matrix, rank)
    assert a.shape == (rank, 5) and b.shape == (6, rank)
    tail = torch.linalg.svdvals(matrix)[rank:]
    assert float((matrix - b @ a).norm()) == pytest.approx(float(tail.norm()), abs=1e-9)


# As soups.


def soup_of(rule: str, **settings) -> Recipe:
    names = "abc"
    return make_recipe(dict.fromkeys(names, 1 / 3), {name: f"adapters/{name}" for name in names}, rule=rule, **settings)


@pytest.fixture
def adapters(make_adapter) -> None:
    for seed, name in enumerate("abc", start=1):
        make_adapter(f"adapters/{name}", seed=seed)


@pytest.mark.parametrize("rule", ["ties", "dare"])
def test_a_soup_is_the_merge_of_the_deltas_cut_to_its_rank(adapters, deltas, rule: str) -> None:
    soup = save_soup("soup", soup_of(rule, density=0.5, svd_rank=10))
    parts = [deltas(f"adapters/{name}") for name in "abc"]
    exact = {module: sum(part[module] for part in parts) / 3 for module in parts[0]}
    error = torch.cat([(found - exact[module]).flatten() for module, found in deltas("soup").items()]).norm()
    assert json.loads(Path("soup/adapter_config.json").read_text())["r"] == 10
    # No module is wider than rank 10, so nothing is cut off and the error is what thinning out costs.
    wanted = float(error / torch.cat([d.flatten() for d in exact.values()]).norm())
    assert soup.results.relative_error == pytest.approx(wanted, rel=1e-4) and wanted > 0.1
    if rule == "ties":
        for module, found in deltas("soup").items():
            assert torch.allclose(found, plain_ties([part[module] for part in parts], 0.5), atol=1e-4)


@pytest.mark.parametrize("rule", ["ties", "dare"])
def test_one_recipe_has_one_soup_in_any_order(adapters, rule: str) -> None:
    recipe = soup_of(rule, density=0.3)
    turned = make_recipe({n: 1 / 3 for n in "cab"}, {n: f"adapters/{n}" for n in "bca"}, rule=rule, density=0.3)
    save_soup("one", recipe)
    save_soup("two", turned)
    files = ("adapter_model.safetensors", "adapter_config.json", "recipe.yaml")
    assert all(Path("one", name).read_bytes() == Path("two", name).read_bytes() for name in files)


def test_its_error_stands_beside_the_other_rules(adapters) -> None:
    errors = relative_errors(soup_of("ties", density=0.5))
    assert set(errors) == {"delta", "factor", "svd4", "ties"}
    assert errors["delta"] == 0 and errors["ties"] > 0


def test_the_sum_of_ranks_is_its_rank_unless_said(adapters) -> None:
    assert save_soup("soup", soup_of("dare", density=0.5)).config["r"] == 12
