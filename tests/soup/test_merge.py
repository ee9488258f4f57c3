"""Claims about merging on small random adapters."""

import json
import warnings
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from rlphf.errors import InputError
from rlphf.files import read_json, sha256
from rlphf.soup.adapter import Adapter, read_adapter
from rlphf.soup.merge import Soup, merge, merge_step, relative_errors, save_soup, soup_files
from rlphf.soup.recipe import Recipe, make_recipe, read_recipe, recipe_text, rule_name

Q, V = "base_model.model.model.layers.0.q_proj", "base_model.model.model.layers.1.v_proj"


def recipe_of(weights: dict[str, float], **settings) -> Recipe:
    return make_recipe(weights, {name: f"adapters/{name}" for name in weights}, **settings)


def three(make_adapter, **settings) -> None:
    for seed, name in enumerate("abc", start=1):
        make_adapter(f"adapters/{name}", seed=seed, **settings)


def apart(got: dict, expected: dict) -> float:
    """Largest difference over the modules, relative to the largest weight change."""
    assert got.keys() == expected.keys()
    size = max(float(delta.abs().max()) for delta in expected.values())
    return max(float((got[m] - expected[m]).abs().max()) for m in expected) / size


def weighted_sum(deltas, weights: dict[str, float]) -> dict:
    parts = {name: deltas(f"adapters/{name}") for name in weights}
    return {module: sum(w * parts[name][module] for name, w in weights.items()) for module in (Q, V)}


def frobenius(change: dict) -> float:
    return float(torch.cat([delta.flatten() for delta in change.values()]).norm())


@pytest.mark.parametrize("rule", ["delta", "factor"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_soup_of_one_adapter_is_that_adapter(make_adapter, rule, dtype):
    state = make_adapter("adapters/a", seed=1, lora_alpha=5, use_rslora=True)
    state = make_adapter("adapters/a", state={k: t.to(dtype) for k, t in state.items()}, lora_alpha=5, use_rslora=True)
    save_soup("soup", recipe_of({"a": 1.0}, rule=rule))
    written = load_file("soup/adapter_model.safetensors")
    assert written.keys() == state.keys()
    assert all(written[k].dtype == dtype and torch.equal(written[k], state[k]) for k in state)
    config = json.loads(Path("soup/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (4, 5, True)


@pytest.mark.parametrize("weights", [{"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}, {"a": 0.7, "b": -0.4, "c": 2.0}, {"a": -1.5}])
def test_delta_soup_is_the_weighted_sum_of_deltas(make_adapter, deltas, weights):
    three(make_adapter)
    save_soup("soup", recipe_of(weights))
    assert apart(deltas("soup"), weighted_sum(deltas, weights)) < 1e-6


def test_delta_soup_takes_ranks_and_scalings_that_differ(make_adapter, deltas):
    make_adapter("adapters/a", seed=1, rank=2, lora_alpha=32)
    make_adapter("adapters/b", seed=2, rank=5, lora_alpha=3, use_rslora=True)
    soup = save_soup("soup", recipe_of({"a": 0.5, "b": 0.8}))
    assert (soup.config["r"], soup.config["lora_alpha"], soup.config["use_rslora"]) == (7, 7, False)
    assert apart(deltas("soup"), weighted_sum(deltas, {"a": 0.5, "b": 0.8})) < 1e-6


def test_negative_weight_takes_an_adapter_away_again(make_adapter, deltas):
    make_adapter("adapters/a", seed=1)
    make_adapter("adapters/b", seed=1)
    save_soup("soup", recipe_of({"a": 1.0, "b": -1.0}))
    assert all(float(delta.abs().max()) < 1e-5 for delta in deltas("soup").values())


def test_adapter_of_weight_zero_is_left_out_but_checked(make_adapter):
    three(make_adapter)
    with_zero = merge(recipe_of({"a": 1.0, "b": 0.0}))
    assert with_zero.config["r"] == 4
    assert torch.equal(with_zero.modules[Q][0], read_adapter("adapters/a").modules[Q][0])
    make_adapter("adapters/b", base_model_name_or_path="another")
    with pytest.raises(InputError, match="another"):
        merge(recipe_of({"a": 1.0, "b": 0.0}))


@pytest.mark.parametrize("rule", ["delta", "factor"])
def test_soup_of_zero_weights_changes_nothing(make_adapter, deltas, rule):
    three(make_adapter)
    soup = save_soup("soup", recipe_of({"a": 0.0, "b": 0.0}, rule=rule))
    assert frobenius(deltas("soup")) == 0 and soup.results.relative_error == 0


@pytest.mark.parametrize("settings", [{}, {"rule": "factor"}, {"svd_rank": 3}])
def test_order_of_adapters_does_not_change_a_byte(make_adapter, settings):
    three(make_adapter)
    save_soup("one", recipe_of({"a": 0.2, "b": 0.5, "c": 0.3}, **settings))
    save_soup("two", recipe_of({"c": 0.3, "a": 0.2, "b": 0.5}, **settings))
    assert sha256("one") == sha256("two")


def test_factor_soup_is_the_weighted_mean_of_each_factor(make_adapter):
    three(make_adapter)
    soup = merge(recipe_of({"a": 0.5, "b": 0.25, "c": 0.25}, rule="factor"))
    a, b, c = (read_adapter(f"adapters/{name}") for name in "abc")
    for module in (Q, V):
        for i in (0, 1):
            expected = 0.5 * a.modules[module][i] + 0.25 * b.modules[module][i] + 0.25 * c.modules[module][i]
            assert torch.allclose(soup.modules[module][i], expected, atol=1e-6)
    assert (soup.config["r"], soup.config["lora_alpha"]) == (4, 8)


def test_equal_a_makes_both_rules_agree(make_adapter, deltas):
    start = make_adapter("adapters/a", seed=1)
    for seed, name in enumerate("bc", start=2):
        other = make_adapter(f"adapters/{name}", seed=seed)
        make_adapter(f"adapters/{name}", state={k: start[k] if "lora_A" in k else t for k, t in other.items()})
    weights = {"a": 0.2, "b": 0.5, "c": 0.3}
    soup = save_soup("soup", recipe_of(weights, rule="factor"))
    assert apart(deltas("soup"), weighted_sum(deltas, weights)) < 1e-6
    assert soup.results.relative_error < 1e-6


def test_reported_error_of_factor_is_that_of_the_full_matrices(make_adapter, deltas):
    three(make_adapter)
    weights = {"a": 0.2, "b": 0.5, "c": 0.3}
    soup = save_soup("soup", recipe_of(weights, rule="factor"))
    exact, got = weighted_sum(deltas, weights), deltas("soup")
    wrong = {module: got[module] - exact[module] for module in exact}
    assert soup.results.relative_error == pytest.approx(frobenius(wrong) / frobenius(exact), rel=1e-4)
    for module in (Q, V):
        expected = float(wrong[module].norm() / exact[module].norm())
        assert soup.results.module_errors[module] == pytest.approx(expected, rel=1e-4)
    assert soup.results.relative_error > 0.1


@pytest.mark.parametrize("rank", [1, 3, 8, 11])
def test_truncation_is_the_best_approximation_of_its_rank(make_adapter, deltas, rank):
    three(make_adapter)
    weights = {"a": 0.7, "b": -0.4, "c": 0.5}
    soup = save_soup("soup", recipe_of(weights, svd_rank=rank))
    assert read_adapter("soup").rank == rank
    best, exact = {}, weighted_sum(deltas, weights)
    for module, delta in exact.items():
        u, s, vh = torch.linalg.svd(delta, full_matrices=False)
        best[module] = u[:, :rank] * s[:rank] @ vh[:rank]
    assert apart(deltas("soup"), best) < 1e-5
    lost = {module: best[module] - exact[module] for module in exact}
    assert soup.results.relative_error == pytest.approx(frobenius(lost) / frobenius(exact), rel=1e-4, abs=1e-6)


def test_truncation_to_the_stacked_rank_or_above_is_exact(make_adapter):
    three(make_adapter)
    soup = merge(recipe_of({"a": 0.5, "b": 0.5}, svd_rank=8))
    assert soup.results.relative_error == 0 and soup.config["r"] == 8


def test_error_of_a_soup_that_cancels_is_no_rounding_noise(make_adapter):
    make_adapter("adapters/a", seed=1)
    make_adapter("adapters/b", seed=1)
    assert relative_errors(recipe_of({"a": 1.0, "b": -1.0})) == {"delta": 0.0, "factor": 0.0, "svd4": 0.0}


def test_relative_errors_name_the_own_rank_and_the_asked_one(make_adapter):
    three(make_adapter)
    errors = relative_errors(recipe_of({"a": 0.5, "b": 0.5}, svd_rank=2))
    assert list(errors) == ["delta", "factor", "svd2", "svd4"]
    assert errors["delta"] == 0 < errors["svd4"] < errors["svd2"]
    assert rule_name("delta", 2) == "svd2"
    make_adapter("adapters/b", seed=2, rank=3)
    assert list(relative_errors(recipe_of({"a": 0.5, "b": 0.5}))) == ["delta", "svd4"]


@pytest.mark.parametrize(
    ("settings", "rule", "words"),
    [
        ({"rank": 3}, "factor", "rank 4, scaling 2; rank 3"),
        ({"lora_alpha": 4}, "factor", "scaling 1"),
        ({"base_model_name_or_path": "another"}, "delta", "base_model_name_or_path"),
        ({"target_modules": ["q_proj"]}, "delta", "target_modules"),
        ({"fan_in_fan_out": True}, "delta", "fan_in_fan_out"),
        ({"about": {"backbone_sha256": "2"}}, "delta", "backbone_sha256"),
        ({"about": {"kind": "reward", "backbone_sha256": "1"}}, "delta", "reward"),
    ],
)
def test_adapters_that_do_not_fit_are_refused_by_name(make_adapter, settings, rule, words):
    make_adapter("adapters/a", seed=1, about={"kind": "policy", "backbone_sha256": "1"})
    make_adapter("adapters/b", seed=2, **settings)
    with pytest.raises(InputError, match=words) as caught:
        save_soup("soup", recipe_of({"a": 0.5, "b": 0.5}, rule=rule))
    assert "adapters/b" in str(caught.value) and not Path("soup").exists()


def test_adapters_of_two_backbones_are_refused_beside_one_that_names_none(make_adapter):
    for name, sha in (("a", None), ("b", "1"), ("c", "2")):
        make_adapter(f"adapters/{name}", seed=1, about={"kind": "policy"} | ({"backbone_sha256": sha} if sha else {}))
    merge(recipe_of({"a": 0.5, "b": 0.5}))
    with pytest.raises(InputError, match="adapter b .* and adapter c .* were trained on different backbones"):
        merge(recipe_of({"a": 0.3, "b": 0.3, "c": 0.4}))


def test_modules_that_differ_are_refused_with_the_module(make_adapter):
    state = make_adapter("adapters/a", seed=1)
    make_adapter("adapters/b", state={k: t for k, t in state.items() if Q in k})
    with pytest.raises(InputError, match=f"adapter a .* module {V} and adapter b .* does not"):
        merge(recipe_of({"a": 0.5, "b": 0.5}))
    make_adapter("adapters/b", state={k: torch.ones(4, 9) if k == f"{V}.lora_A.weight" else t for k, t in state.items()})
    with pytest.raises(InputError, match=f"adapter a .* adapter b .*{V} \\(10 to 6 and 9 to 6\\)"):
        merge(recipe_of({"a": 0.5, "b": 0.5}))


def test_lists_of_targets_in_another_order_are_the_same(make_adapter):
    make_adapter("adapters/a", seed=1, target_modules=["q_proj", "v_proj"], exclude_modules=[])
    make_adapter("adapters/b", seed=2, target_modules=["v_proj", "q_proj"], revision=None)
    assert merge(recipe_of({"a": 0.5, "b": 0.5})).config["target_modules"] == ["q_proj", "v_proj"]


def test_weights_too_large_for_float32_are_refused(make_adapter):
    three(make_adapter)
    with pytest.raises(InputError, match="overflows"):
        merge(recipe_of({"a": 1e300, "b": 1.0}))


def test_factor_over_different_initialisations_warns_and_records_it(make_adapter):
    for name, sha in (("a", "1"), ("b", "2")):
        make_adapter(f"adapters/{name}", seed=int(sha), about={"kind": "policy", "backbone_sha256": "x", "lora_a_sha256": sha})
    with pytest.warns(UserWarning, match="a, b start from different LoRA-A"):
        save_soup("soup", recipe_of({"a": 0.5, "b": 0.5}, rule="factor"))
    assert yaml.safe_load(Path("soup/recipe.yaml").read_text())["results"]["shared_init"] is False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert merge(recipe_of({"a": 0.5, "b": 0.5})).results.shared_init is None
        make_adapter("adapters/b", seed=2, about={"kind": "policy", "backbone_sha256": "x", "lora_a_sha256": "1"})
        assert merge(recipe_of({"a": 0.5, "b": 0.5}, rule="factor")).results.shared_init is True


def test_soup_folder_says_what_it_is(make_adapter):
    for seed, name in enumerate("ab"):
        make_adapter(f"adapters/{name}", seed=seed, about={"kind": "policy", "backbone_sha256": "x"})
    save_soup("soup", recipe_of({"a": 0.5, "b": 0.5}))
    names = sorted(path.name for path in Path("soup").iterdir())
    assert names == ["README.md", "adapter.json", "adapter_config.json", "adapter_model.safetensors", "recipe.yaml"]
    assert json.loads(Path("soup/adapter.json").read_text()) == {"kind": "soup", "backbone_sha256": "x"}
    assert json.loads(Path("soup/adapter_config.json").read_text())["base_model_name_or_path"] == "backbone"
    text = yaml.safe_load(Path("soup/recipe.yaml").read_text())
    assert text["weights"] == {"a": 0.5, "b": 0.5} and text["paths"] == {"a": "adapters/a", "b": "adapters/b"}


def test_recipe_of_a_soup_makes_the_same_soup_again(make_adapter):
    three(make_adapter)
    save_soup("soup", recipe_of({"a": 0.5, "b": 0.5}, svd_rank=3))
    merge_step(Path("soup/recipe.yaml"), Path("again"))
    assert {path.name: sha256(path) for path in soup_files(Path("again"))} == {
        path.name: sha256(path) for path in Path("soup").iterdir()
    }
    assert read_recipe("again/recipe.yaml").results.relative_error > 0


def test_soups_can_be_merged(make_adapter, deltas):
    three(make_adapter, about={"kind": "policy", "backbone_sha256": "x"})
    save_soup("adapters/ab", recipe_of({"a": 0.5, "b": 0.5}))
    save_soup("soup", recipe_of({"ab": 0.5, "c": 0.5}))
    assert apart(deltas("soup"), weighted_sum(deltas, {"a": 0.25, "b": 0.25, "c": 0.5})) < 1e-6


def test_only_a_soup_is_replaced(make_adapter, workplace):
    three(make_adapter)
    recipe = recipe_of({"a": 0.5, "b": 0.5})
    save_soup("soup", recipe)
    save_soup("soup", recipe_of({"a": 1.0}))
    assert read_recipe("soup/recipe.yaml").weights == {"a": 1.0}
    (workplace / "notes").mkdir()
    (workplace / "notes/recipe.yaml").write_text("mine")
    (workplace / "file").write_text("mine")
    for taken in ("notes", "file", "adapters", "adapters/a", "adapters/c"):
        before = sha256(taken)
        with pytest.raises(InputError, match="choose another folder"):
            save_soup(taken, recipe)
        assert sha256(taken) == before


def test_a_soup_of_ones_own_says_what_it_is_made_of_and_replaces_an_older_one(make_adapter):
    three(make_adapter)
    for number, weights in enumerate(({"a": 0.5, "b": 0.5}, {"a": 1.0})):
        Path("recipe.yaml").write_text(recipe_text(recipe_of(weights)))
        merge_step(Path("recipe.yaml"), Path("mine"))
        record = read_json("mine/record.json")
        assert (record["step"], record["status"]) == ("soup merge", "finished") and record["params"]["weights"] == weights
        given = {name: described["path"] for name, described in record["inputs"].items()}
        assert given == {"recipe": "recipe.yaml", **{f"adapter/{name}": f"adapters/{name}" for name in weights}}
        files = ["README.md", "adapter.json", "adapter_config.json", "adapter_model.safetensors", "recipe.yaml"]
        assert sorted(record["outputs"]) == [f"mine/{name}" for name in files]
        assert {path.name for path in Path("mine").iterdir() if path.name[0] != "."} == {*files, "record.json", "metrics.jsonl"}
        # What another command left beside its soup is none of this one's.
        Path("mine/weights.json").write_text(str(number))


def test_what_cannot_be_merged_leaves_no_folder(make_adapter):
    three(make_adapter)
    Path("recipe.yaml").write_text(recipe_text(recipe_of({"a": 3e38, "b": 3e38})))
    with pytest.raises(InputError, match="overflows"):
        merge_step(Path("recipe.yaml"), Path("mine"))
    assert not Path("mine").exists()


def in_memory(seed: int) -> dict[str, Adapter]:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    config = {"lora_alpha": 3, "target_modules": ["q_proj"]}
    return {
        name: Adapter(name, name, config, {Q: (random(rank, 7), random(5, rank))}, rank, 3 / rank, {})
        for name, rank in (("a", 1), ("b", 2), ("c", 4))
    }


def full(soup: Soup) -> torch.Tensor:
    a, b = soup.modules[Q]
    return soup.config["lora_alpha"] / soup.config["r"] * b.double() @ a.double()


weight = st.floats(-3, 3, allow_nan=False, width=32)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.lists(weight, min_size=3, max_size=3), weight, st.permutations("abc"))
def test_delta_soup_is_linear_in_its_weights_in_any_order(seed, weights, factor, order):
    adapters = in_memory(seed)
    named = dict(zip("abc", weights, strict=True))
    together = full(merge(recipe_of({name: named[name] for name in order}), adapters))
    alone = [full(merge(recipe_of({name: w}), adapters)) for name, w in named.items()]
    scaled = full(merge(recipe_of({name: factor * w for name, w in named.items()}), adapters))
    assert torch.allclose(together, sum(alone), atol=1e-4)
    assert torch.allclose(scaled, factor * together, atol=1e-4)
    permuted = merge(recipe_of({name: named[name] for name in order}), adapters).modules[Q]
    sorted_ = merge(recipe_of(named), adapters).modules[Q]
    assert torch.equal(permuted[0], sorted_[0]) and torch.equal(permuted[1], sorted_[1])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.sampled_from("abc"))
def test_soup_of_one_adapter_of_weight_one_is_that_adapter(seed, name):
    adapters = in_memory(seed)
    soup = merge(recipe_of({name: 1.0}), adapters)
    assert all(torch.equal(made, own) for made, own in zip(soup.modules[Q], adapters[name].modules[Q], strict=True))
    assert soup.results.relative_error == 0
