"""The cache with room against Hugging Face's own, which concatenates."""

import torch
from transformers import DynamicCache

from rlphf.lm.cache import ROOM, RoomyCache


def test_keys_and_values_are_those_of_the_dynamic_cache_through_growth_and_dropped_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = RoomyCache(), DynamicCache()
    rows = 5
    for step, new in enumerate([7, *[1] * (2 * ROOM + 5)]):
        for layer in (0, 1):
            states = [torch.randn(rows, 2, new, 3, generator=generator) for _ in range(2)]
            for mine, wanted in zip(ours.update(*states, layer), theirs.update(*states, layer), strict=True):
                assert torch.equal(mine, wanted)
        assert ours.get_seq_length() == theirs.get_seq_length()
        assert ours.get_mask_sizes(1, 0) == theirs.get_mask_sizes(1, 0)
        if step in (3, ROOM + 1):
            kept = torch.arange(rows)[torch.arange(rows) != 1]
            ours.batch_select_indices(kept)
            theirs.batch_select_indices(kept)
            rows -= 1


def test_most_steps_write_in_place() -> None:
    cache = RoomyCache()
    states = torch.zeros(2, 1, 1, 4)
    cache.update(states, states, 0)
    places = {cache.update(states, states, 0)[0].data_ptr() for _ in range(ROOM)}
    assert len(places) == 1
