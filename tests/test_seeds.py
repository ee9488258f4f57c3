"""Claims about random streams."""

from itertools import product

from rlphf.seeds import derive


def test_a_stream_is_the_same_in_every_process_and_version():
    assert derive(1103, "ppo", "P1A") == 2580342055


def test_streams_of_other_seeds_and_names_differ():
    drawn = [derive(seed, kind, name) for seed, kind, name in product(range(50), ("ppo", "reward"), ("P1A", "P1B", 3))]
    assert len(set(drawn)) == len(drawn) == 300
    assert all(0 <= value < 2**32 for value in drawn)
