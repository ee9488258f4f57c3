"""Rounded weights: how many values they have, how far off they are, and what is left alone."""

from pathlib import Path

import torch

from rlphf.lm.backbone import load_backbone
from rlphf.lm.rounding import BLOCK, round_weights


def test_each_block_has_as_many_values_as_the_bits_allow_and_its_largest_stays(tiny_backbone: Path) -> None:
    model = load_backbone(tiny_backbone)[0]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    round_weights(model, 4)
    rounded = 0
    for name, value in model.state_dict().items():
        if "_proj" not in name:
            assert torch.equal(value, before[name]), name
            continue
        rounded += 1
        for old, new in zip(before[name].split(BLOCK, dim=1), value.split(BLOCK, dim=1), strict=True):
            scale = old.abs().amax(1)
            torch.testing.assert_close(new.abs().amax(1), scale)
            assert all(len(row.unique()) <= 15 for row in new)
            assert bool(((old - new).abs() <= scale[:, None] / 14 * 1.001).all())
    assert rounded > 7


def test_more_bits_are_closer(tiny_backbone: Path) -> None:
    errors = []
    for bits in (4, 8):
        model = load_backbone(tiny_backbone)[0]
        weight = model.model.layers[0].mlp.up_proj.weight
        before = weight.clone()
        round_weights(model, bits)
        errors.append(float((weight - before).norm() / before.norm()))
    assert 0.03 < errors[0] < 0.2 and errors[1] < errors[0] / 10


def test_zeros_stay_zeros(tiny_backbone: Path) -> None:
    model = load_backbone(tiny_backbone)[0]
    weight = model.model.layers[0].mlp.up_proj.weight
    with torch.no_grad():
        weight[0] = 0
    round_weights(model, 4)
    assert bool((weight[0] == 0).all()) and bool(torch.isfinite(weight).all())
