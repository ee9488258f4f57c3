"""Decode-time mixing: the distribution is the weighted geometric mean of the adapters' own, in whatever batch it is computed."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from rlphf.lm.adapters import add_policy, write_policy
from rlphf.lm.backbone import load_backbone
from rlphf.lm.mixing import Mixture, mixture
from rlphf.lm.sampling import sample
from rlphf.settings import Decoding, Lora

PROMPTS = [[10, 11, 12], [13], [14, 15, 16, 17, 18], [19, 20]]
DECODING = Decoding(temperature=0.7, max_new_tokens=12, batch_size=4)


@pytest.fixture(scope="module")
def adapters(tiny_backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of three policies with random factors."""
    folders = []
    for seed in range(3):
        base, _ = load_backbone(tiny_backbone)
        model = add_policy(base, Lora(rank=4, alpha=8, dropout=0.0, targets=["q_proj", "v_proj", "down_proj"]), seed)
        torch.manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.5)
        folders.append(tmp_path_factory.mktemp("adapters") / str(seed))
        write_policy(model, folders[-1], str(tiny_backbone), {"backbone_sha256": "x"})
    return folders


def logprobs(backbone: Path, adapter: Path, tokens: list[int]) -> torch.Tensor:
    """Next-token log-probabilities (V,) of one adapter, by plain PEFT, alone in its batch."""
    model = PeftModel.from_pretrained(load_backbone(backbone)[0], adapter).eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([tokens])).logits[0, -1].log_softmax(-1)


def mixed(model: Mixture, tokens: list[list[int]]) -> torch.Tensor:
    """Next-token logits (B, V) of a mixture for texts of one length."""
    ids = torch.tensor(tokens)
    mask = torch.ones_like(ids)
    return model(input_ids=ids, attention_mask=mask, position_ids=mask.cumsum(1) - 1, logits_to_keep=1).logits[:, -1]


def test_log_probabilities_are_the_weighted_sum_of_those_of_plain_peft(tiny_backbone: Path, adapters: list[Path]) -> None:
    weights = [0.5, 0.3, 0.2]
    texts = [[10, 11, 12], [30, 31, 32]]
    with mixture(load_backbone(tiny_backbone)[0], dict(zip(adapters, weights, strict=True))) as model:
        rows = mixed(model, texts)
    for row, text in zip(rows, texts, strict=True):
        each = [logprobs(tiny_backbone, adapter, text) for adapter in adapters]
        assert torch.allclose(row, sum(w * one for w, one in zip(weights, each, strict=True)), atol=1e-4)
        assert all((row - one).abs().max() > 0.1 for one in each)


def test_the_backbone_has_what_the_weights_leave_of_1(tiny_backbone: Path, adapters: list[Path]) -> None:
    text = [10, 11, 12]
    base = load_backbone(tiny_backbone)[0]
    with torch.no_grad():
        own = base(torch.tensor([text])).logits[0, -1].log_softmax(-1)
    each = [logprobs(tiny_backbone, adapter, text) for adapter in adapters[:2]]
    for weights in ([0.5, 0.3], [0.9, 0.8], [0.4]):
        with mixture(base, dict(zip(adapters[: len(weights)], weights, strict=True))) as model:
            (row,) = mixed(model, [text])
        wanted = own + sum(w * (one - own) for w, one in zip(weights, each[: len(weights)], strict=True))
        assert torch.allclose(row, wanted, atol=1e-4) and (row - own).abs().max() > 0.1


def test_a_mixture_of_one_samples_what_its_adapter_samples(tiny_backbone: Path, adapters: list[Path]) -> None:
    plain = PeftModel.from_pretrained(load_backbone(tiny_backbone)[0], adapters[1]).eval()
    with mixture(load_backbone(tiny_backbone)[0], {adapters[1]: 1.0}) as model:
        assert sample(plain, PROMPTS, DECODING, 1, 0, seed=4) == sample(model, PROMPTS, DECODING, 1, 0, seed=4)


def test_equal_prompts_that_are_read_once_are_answered_as_if_each_was_read(tiny_backbone: Path, adapters: list[Path]) -> None:
    with mixture(load_backbone(tiny_backbone)[0], {adapters[0]: 0.7, adapters[1]: 0.3}) as model:
        wanted = sample(model, PROMPTS * 3, DECODING, 1, 0, seed=4, kinds=range(12))
        assert sample(model, PROMPTS * 3, DECODING, 1, 0, seed=4) == wanted and len(set(map(tuple, wanted))) == 12


def test_sampling_is_that_of_a_plain_loop_without_cache_or_batch(tiny_backbone: Path, adapters: list[Path]) -> None:
    greedy = DECODING.model_copy(update={"temperature": 0.0})
    with mixture(load_backbone(tiny_backbone)[0], dict.fromkeys(adapters, 1 / 3)) as model:
        found = sample(model, PROMPTS, greedy, 1, 0, seed=4)
    assert all(row[-1] == 1 or len(row) == DECODING.max_new_tokens for row in found)
    for prompt, row in zip(PROMPTS, found, strict=True):
        text = list(prompt)
        for token in row:
            best = sum(logprobs(tiny_backbone, adapter, text) for adapter in adapters)
            assert float(best.max() - best[token]) < 1e-3
            text.append(token)


def test_rows_that_ended_leave_the_others_as_they_were(tiny_backbone: Path, adapters: list[Path]) -> None:
    with mixture(load_backbone(tiny_backbone)[0], dict.fromkeys(adapters, 1 / 3)) as model:
        whole = sample(model, PROMPTS, DECODING, -1, 0, seed=4)
        # Whatever the first row says third is taken for the end token: rows end at different steps.
        cut = sample(model, PROMPTS, DECODING, whole[0][2], 0, seed=4)
    assert len(cut[0]) <= 3 and len({len(row) for row in cut}) > 1
    for row, full in zip(cut, whole, strict=True):
        assert row == full[: len(row)]


def test_afterwards_there_is_the_backbone(tiny_backbone: Path, adapters: list[Path]) -> None:
    base, _ = load_backbone(tiny_backbone)
    tokens = torch.tensor([[10, 11, 12]])
    with torch.no_grad():
        before = base(tokens).logits
        with mixture(base, dict.fromkeys(adapters, 1 / 3)):
            pass
        assert torch.equal(base(tokens).logits, before)
