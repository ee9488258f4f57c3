"""Steps of fixed shapes against steps that grow: the same texts, whatever ends, is selected, or is read in place of tokens."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, MistralConfig, Qwen2Config

from rlphf.lm import sampling
from rlphf.lm import steps as module
from rlphf.lm.cache import FixedCache
from rlphf.lm.sampling import sample
from rlphf.lm.stack import Stack
from rlphf.lm.steps import Growing, Recorded, can_be_recorded
from rlphf.settings import Decoding

PROMPTS = [[2, 40, 3], [2, 41, 42, 43, 3], [2, 44, 45, 3], [2, 46, 47, 48, 49, 50, 3], [2, 40, 3]]
DECODING = Decoding(temperature=0.8, max_new_tokens=12, batch_size=4)
KINDS = {"growing": lambda model, longest: Growing(model), "recorded": Recorded}


def sampled(monkeypatch: pytest.MonkeyPatch, run) -> list[list[list[int]]]:
    """What `run` samples with steps that grow, and with steps of fixed shapes."""
    found = []
    for kind in KINDS.values():
        monkeypatch.setattr(sampling, "steps", kind)
        found.append(run())
    return found


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_texts_are_the_same(model, monkeypatch, temperature: float) -> None:
    decoding = DECODING.model_copy(update={"temperature": temperature})
    growing, recorded = sampled(monkeypatch, lambda: sample(model, PROMPTS, decoding, -1, 0, 5))
    assert growing == recorded and all(len(row) == 12 for row in growing)
    # What the second row says third ends it: rows leave the batch, and the others go on as they would have.
    end = growing[1][2]
    growing, recorded = sampled(monkeypatch, lambda: sample(model, PROMPTS, decoding, end, 0, 5))
    assert growing == recorded and len(growing[1]) <= 3


def test_so_they_are_where_embeddings_are_read(model, monkeypatch) -> None:
    table = model.get_input_embeddings()
    moved = torch.randn(len(PROMPTS), 1, model.config.hidden_size, generator=torch.Generator().manual_seed(0))

    def embed(rows: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        return table(tokens) + moved[rows]

    growing, recorded = sampled(monkeypatch, lambda: sample(model, PROMPTS, DECODING, -1, 0, 5, embed))
    assert growing == recorded != sample(model, PROMPTS, DECODING, -1, 0, 5)


def test_so_they_are_where_rows_have_adapters_of_their_own(model, monkeypatch) -> None:
    name, generator = "base_model.model.model.layers.0.mlp.down_proj", torch.Generator().manual_seed(0)
    sizes = model.config.intermediate_size, model.config.hidden_size
    a, b = torch.randn(2, sizes[0], generator=generator), torch.randn(sizes[1], 2, generator=generator)
    stack = Stack(model, [{name: (a, b)}], [1.0])
    weights = torch.tensor([[0.0], [1.0], [0.5], [-1.0], [2.0]])

    def run(end: int = -1) -> list[list[int]]:
        with stack.mixing(weights) as select_rows:
            return sample(model, PROMPTS, DECODING, end, 0, 5, select_rows=select_rows)

    growing, recorded = sampled(monkeypatch, run)
    assert growing == recorded
    growing, recorded = sampled(monkeypatch, lambda: run(growing[1][2]))
    assert growing == recorded
    stack.remove()
    assert growing != sample(model, PROMPTS, DECODING, -1, 0, 5)


@torch.no_grad()
def test_a_step_uses_the_memory_of_the_one_before_until_the_rows_change(model) -> None:
    steps = Recorded(model, 8)
    tokens = torch.tensor([[0, 5, 6], [7, 8, 9]])
    steps.read({"input_ids": tokens}, (tokens > 0).long())

    def places() -> list[int]:
        layers = [tensor for layer in steps.cache.layers for tensor in (layer.keys, layer.values)]
        return [tensor.data_ptr() for tensor in (steps.tokens, steps.positions, steps.place, steps.seen, *layers)]

    steps.step(torch.tensor([10, 11]))
    before = places()
    steps.step(torch.tensor([12, 13]))
    assert places() == before and steps.positions.tolist() == [[3], [4]] and steps.place.tolist() == [4]
    wanted = [[False, *[True] * 4, *[False] * 3], [True] * 5 + [False] * 3]
    assert steps.seen[:, 0, 0].tolist() == wanted
    steps.keep(torch.tensor([1, 0, 1]))
    logits = steps.step(torch.tensor([14, 15, 14]))
    assert torch.allclose(logits[0], logits[2], atol=1e-5) and (logits[0] - logits[1]).abs().max() > 0.1
    assert len(logits) == 3 and steps.positions.tolist() == [[5], [4], [5]]


@torch.no_grad()
def test_a_step_is_recorded_once_for_the_same_rows_and_run_where_that_fails(model, monkeypatch, caplog) -> None:
    made: list[int] = []

    def record(run):
        made.append(1)
        run()
        return run

    tokens = torch.tensor([[0, 5, 6], [7, 8, 9]])

    def logits(recording) -> list[Tensor]:
        monkeypatch.setattr(module, "_record", recording)
        steps = Recorded(model, 9)
        steps.records = recording is not None
        steps.read({"input_ids": tokens}, (tokens > 0).long())
        found = [steps.step(torch.tensor([10, 11])), steps.step(torch.tensor([12, 13]))]
        steps.keep(torch.tensor([1]))
        return [*found, steps.step(torch.tensor([14])), steps.step(torch.tensor([15]))]

    def fail(run):
        raise RuntimeError("operation not permitted\nwhen stream is capturing")

    wanted = logits(None)
    for recording in (record, fail):
        assert all(torch.equal(one, other) for one, other in zip(logits(recording), wanted, strict=True))
    assert len(made) == 2
    assert [r.getMessage() for r in caplog.records] == [
        "steps of sampling cannot be recorded (operation not permitted when stream is capturing); each is run by itself"
    ]


def test_what_is_not_cached_yet_is_zero() -> None:
    cache = FixedCache(5, torch.tensor([2]))
    states = torch.ones(1, 2, 2, 3)
    assert cache.update(states, states, 0)[0].shape[2] == 2
    keys, values = cache.update(2 * states[:, :, :1], 3 * states[:, :, :1], 0)
    assert keys[0, 0, :, 0].tolist() == [1, 1, 2, 0, 0] and values[0, 0, :, 0].tolist() == [1, 1, 3, 0, 0]


@pytest.mark.parametrize(
    ("config", "more", "wanted"),
    [
        (LlamaConfig(), {}, True),
        (Qwen2Config(), {}, True),
        (LlamaConfig(), {"device": torch.device("cpu")}, False),
        (LlamaConfig(), {"is_quantized": True}, False),
        (LlamaConfig(), {"new_cache": FixedCache}, False),
        (MistralConfig(sliding_window=64), {}, False),
        (Qwen2Config(use_sliding_window=True, sliding_window=64, max_window_layers=2), {}, False),
    ],
)
def test_only_plain_models_on_a_gpu_are_recorded(config, more, wanted: bool) -> None:
    assert can_be_recorded(SimpleNamespace(**{"config": config, "device": torch.device("cuda"), **more})) == wanted


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_recorded_step_says_what_one_that_is_run_does(model, monkeypatch) -> None:
    model.to("cuda")
    try:
        growing, recorded = sampled(monkeypatch, lambda: sample(model, PROMPTS * 8, DECODING, -1, 0, 5))
        ended = sampled(monkeypatch, lambda: sample(model, PROMPTS * 8, DECODING, growing[1][2], 0, 5))
    finally:
        model.to("cpu")
    assert growing == recorded and ended[0] == ended[1]
