"""Adapters side by side: each row runs through its own sum of them, as a merged soup does."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from peft import PeftModel

from rlphf.errors import InputError
from rlphf.lm.adapters import add_policy, write_policy
from rlphf.lm.backbone import load_backbone
from rlphf.lm.batches import hidden_states, join
from rlphf.lm.sampling import sample
from rlphf.lm.stack import Stack, one_each
from rlphf.settings import Decoding, Lora
from rlphf.soup.adapter import read_adapter
from rlphf.soup.merge import save_soup
from rlphf.soup.recipe import make_recipe

TOKENS = torch.tensor([[2, 40, 41, 42, 3, 43]])
PROMPTS = [[2, 40, 3], [2, 41, 42, 43, 3], [2, 44, 45, 3], [2, 46, 47, 48, 49, 50, 3]]
RECIPES = [[0.5, 0.3, 0.2], [1.0, 0.0, 0.0], [0.4, -0.2, 0.8], [0.0, 0.0, 0.0]]


@pytest.fixture(scope="module")
def adapters(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three policies with random factors, one of another rank and scaling."""
    folders = []
    for number, (rank, alpha) in enumerate([(4, 8), (4, 8), (2, 6)]):
        base = load_backbone(tiny_backbone)[0]
        model = add_policy(base, Lora(rank=rank, alpha=alpha, targets=["q_proj", "v_proj", "down_proj"]), seed=number)
        torch.manual_seed(number)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.3)
        folders.append(tmp_path_factory.mktemp("policy") / "adapter")
        write_policy(model, folders[-1], str(tiny_backbone), {})
    return folders


@pytest.fixture
def stack(tiny_backbone: Path, adapters: list[Path]) -> tuple[torch.nn.Module, Stack]:
    base = load_backbone(tiny_backbone)[0]
    read = [read_adapter(folder) for folder in adapters]
    return base, Stack(base, [adapter.modules for adapter in read], [adapter.scaling for adapter in read])


def merged(backbone: Path, adapters: Sequence[Path], weights: Sequence[float], folder: Path) -> torch.nn.Module:
    """The soup of a recipe, as plain PEFT loads it; the backbone where all weights are 0."""
    base = load_backbone(backbone)[0]
    if not any(weights):
        return base
    names = [str(number) for number in range(len(adapters))]
    recipe = make_recipe(dict(zip(names, weights, strict=True)), {name: name for name in names})
    save_soup(folder, recipe, {name: read_adapter(path, name) for name, path in zip(names, adapters, strict=True)})
    return PeftModel.from_pretrained(base, folder).eval()


def test_each_row_is_its_own_soup(stack, tiny_backbone: Path, adapters, tmp_path: Path) -> None:
    base, mixed = stack
    with torch.no_grad(), mixed.mixing(torch.tensor(RECIPES)):
        found = base(TOKENS.repeat(len(RECIPES), 1)).logits
    for number, weights in enumerate(RECIPES):
        with torch.no_grad():
            wanted = merged(tiny_backbone, adapters, weights, tmp_path / str(number))(TOKENS).logits[0]
        assert torch.allclose(found[number], wanted, atol=1e-4)
    assert (found[0] - found[1]).abs().max() > 0.1


def test_a_grid_of_recipes_is_decoded_in_one_batch_as_each_soup_alone(stack, tiny_backbone, adapters, tmp_path: Path) -> None:
    base, mixed = stack
    decoding = Decoding(temperature=0.8, max_new_tokens=12, batch_size=64)
    prompts = PROMPTS * len(RECIPES)
    weights = torch.tensor(RECIPES).repeat_interleave(len(PROMPTS), 0)
    seeds = list(range(7, 7 + len(RECIPES)))
    with mixed.mixing(weights) as select_rows:
        found = sample(base, prompts, decoding, 1, 0, seeds, select_rows=select_rows)
    for number, recipe in enumerate(RECIPES):
        soup = merged(tiny_backbone, adapters, recipe, tmp_path / str(number))
        own = found[number * len(PROMPTS) : (number + 1) * len(PROMPTS)]
        assert own == sample(soup, PROMPTS, decoding, 1, 0, seeds[number])


def test_rows_that_leave_the_batch_take_their_weights_along(stack) -> None:
    base, mixed = stack
    decoding = Decoding(temperature=0.8, max_new_tokens=12, batch_size=64)
    weights = torch.tensor(RECIPES)
    with mixed.mixing(weights) as select_rows:
        whole = sample(base, PROMPTS, decoding, -1, 0, 4, select_rows=select_rows)
        # Whatever the second row says third is taken for the end token: rows end at different steps.
        cut = sample(base, PROMPTS, decoding, whole[1][2], 0, 4, select_rows=select_rows)
    assert len(cut[1]) <= 3 and len({len(row) for row in cut}) > 1
    for row, full in zip(cut, whole, strict=True):
        assert row == full[: len(row)]


def test_hidden_states_are_those_of_each_row_alone(stack) -> None:
    base, mixed = stack
    responses = [[50, 1], [51, 52, 53, 1], [54], [55, 56, 1]]
    batch = join(PROMPTS, responses, 0, "cpu")
    with torch.no_grad():
        with mixed.mixing(torch.tensor(RECIPES)) as select_rows:
            states, ends = hidden_states(base, batch, select_rows=select_rows)
        for i, weights in enumerate(RECIPES):
            with mixed.mixing(torch.tensor([weights])) as select_rows:
                alone, end = hidden_states(base, join([PROMPTS[i]], [responses[i]], 0, "cpu"), select_rows=select_rows)
            assert torch.allclose(states[i, : len(responses[i])], alone[0], atol=1e-4)
            assert torch.allclose(ends[i], end[0], atol=1e-4)


def test_gradients_reach_the_adapters_of_the_rows_and_no_other(tiny_backbone: Path, adapters: list[Path]) -> None:
    base = load_backbone(tiny_backbone)[0]
    read = [read_adapter(folder) for folder in adapters]
    mixed = Stack(base, [adapter.modules for adapter in read], [adapter.scaling for adapter in read], trained=True)
    with mixed.mixing(one_each([0, 2], 3, "cpu")):
        base(TOKENS.repeat(2, 1)).logits.logsumexp(-1).sum().backward()
    for number, reached in enumerate([True, False, True]):
        assert all(bool(p.grad.any()) == reached for p in mixed.parameters(number).values())


def test_off_it_is_the_backbone_to_the_bit_also_after_an_error(stack, tiny_backbone: Path) -> None:
    base, mixed = stack
    with torch.no_grad():
        before = load_backbone(tiny_backbone)[0](TOKENS).logits
        assert torch.equal(base(TOKENS).logits, before)
        with pytest.raises(KeyError), mixed.mixing(torch.tensor([RECIPES[0]])):
            assert not torch.equal(base(TOKENS).logits, before)
            raise KeyError
        assert torch.equal(base(TOKENS).logits, before)
        mixed.remove()
        with mixed.mixing(torch.tensor([RECIPES[0]])):
            assert torch.equal(base(TOKENS).logits, before)


@pytest.mark.parametrize("number", [0, 2])
def test_merged_it_is_one_adapter_and_afterwards_the_backbone_to_the_bit(stack, number: int) -> None:
    base, mixed = stack
    before = {name: value.clone() for name, value in base.state_dict().items()}
    with torch.no_grad():
        with mixed.mixing(one_each([number], 3, "cpu")):
            wanted = base(TOKENS).logits
        with pytest.raises(KeyError), mixed.merged(number):
            assert torch.allclose(base(TOKENS).logits, wanted, atol=1e-4)
            raise KeyError
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


def test_an_adapter_of_another_backbone_is_refused_in_one_line(tiny_backbone: Path, adapters: list[Path]) -> None:
    base, modules = load_backbone(tiny_backbone)[0], read_adapter(adapters[0]).modules
    name, (a, b) = next(iter(modules.items()))
    with pytest.raises(InputError, match=r"layers\.7.*the backbone has none"):
        Stack(base, [{"base_model.model.model.layers.7.self_attn.q_proj": (a, b)}], [1.0])
    for other in ("model.norm", "model.embed_tokens", "model.layers.0", ""):
        with pytest.raises(InputError, match=rf"{other}: is no linear layer of the backbone; the adapter was made for another"):
            Stack(base, [{f"base_model.model.{other}": (a, b)}], [1.0])
    with pytest.raises(InputError, match=r"to 31, the backbone has \d+ to 32"):
        Stack(base, [{name: (a[:, :32], torch.zeros(31, b.shape[1]))}], [1.0])
