"""Claims about figures, rows and the page made of them, and about floors."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.floor import Rates, Shape, decode_seconds, update_seconds
from benchmarks.table import Figure, Row, Target, number, spread, store, stored, write_page

SPEED = Figure("samples", "1/s", [30.0, 10.0, 20.0], "TRL", [5.0, 5.0, 5.0], Target("least", 3.0), 100.0, "bytes")
MEMORY = Figure("memory", "MB", [900.0], "TRL", [1800.0], Target("most", 1 / 3))
ROW = Row("ppo", "PPO", [SPEED, MEMORY], {"batch": 64}, {"ours": {"torch": "2"}}, {"cores": 2}, ["TRL saves nothing"])


@pytest.fixture
def page(tmp_path: Path):
    """Write the page of rows, with reasons for what falls short."""

    def write(rows: list[Row], reasons: str = "") -> str:
        for row in rows:
            store(row, tmp_path / "results.json")
        (tmp_path / "reasons.yaml").write_text(reasons)
        write_page(tmp_path / "results.json", tmp_path / "reasons.yaml", tmp_path / "page.md")
        return (tmp_path / "page.md").read_text()

    return write


def test_the_ratio_is_the_median_of_the_rounds_and_each_of_them_has_to_reach_the_target():
    assert SPEED.ratio == 4.0 and SPEED.reached == "in 2 of 3 rounds"
    assert MEMORY.ratio == 0.5 and MEMORY.reached == "no"
    assert replace(SPEED, target=Target("least", 2)).reached == "yes"


def test_a_target_can_be_one_of_the_value_itself():
    limit = Target("most", 1024, "ours")
    assert Figure("memory", "MB", [1000.0], target=limit).reached == "yes"
    assert Figure("memory", "MB", [1100.0], "TRL", [9000.0], limit).reached == "no"


def test_a_figure_without_a_target_reaches_none():
    assert Figure("time", "s", [1.0], "PEFT", [2.0]).reached == ""


def test_the_table_has_medians_spreads_ratios_targets_and_floors(page):
    text = page([ROW])
    assert "| PPO: samples, 1/s | 20 (10 to 30) | TRL | 5 (5 to 5) | 4x | at least 3x | in 2 of 3 rounds | 100 (bytes) |" in text
    assert "| PPO: memory, MB | 900 | TRL | 1 800 | 0.5x | at most 0.333x | no |  |" in text
    assert "- Measured: batch 64" in text and "- Versions, ours: torch 2" in text and "- Machine: cores 2" in text
    assert "- The sides differ: TRL saves nothing" in text


def test_what_falls_short_stays_with_its_reason_or_with_the_lack_of_one(page):
    assert "- Falls short (samples, memory): no reason is given yet." in page([ROW])
    assert "- Falls short (samples, memory): libraries are most of it" in page([ROW], "ppo: libraries are most of it")


def test_what_was_not_measured_says_why(page):
    assert "| PPO, CUDA | not measured: there is none |" in page([Row("cuda", "PPO, CUDA", missing="there is none")])


def test_a_row_is_renewed_alone(page, tmp_path):
    page([ROW, Row("cuda", "PPO, CUDA", missing="there is none")])
    page([Row("cuda", "PPO, CUDA", [MEMORY])])
    rows = stored(tmp_path / "results.json")
    assert [row.name for row in rows] == ["cuda", "ppo"] and rows[0].figures == [MEMORY] and rows[1] == ROW


@pytest.mark.parametrize(("value", "text"), [(1234567.8, "1 234 568"), (99.96, "100"), (4.0, "4"), (0.01234, "0.0123")])
def test_numbers_have_three_digits_that_count(value, text):
    assert number(value) == text


def test_one_round_has_no_spread():
    assert spread([2.0]) == "2"


@pytest.fixture
def shape(tmp_path: Path) -> Shape:
    """A model of two layers of width 4, two heads of which one is a pair, and 10 tokens."""
    config = {"hidden_size": 4, "intermediate_size": 8, "num_hidden_layers": 2, "vocab_size": 10}
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_attention_heads": 2, "num_key_value_heads": 1}))
    return Shape.of(tmp_path, "float32")


def test_a_shape_counts_the_linear_layers_and_the_cache(shape):
    layer = 4 * 4 + 4 * 4 + 2 * (4 * 2) + 3 * (4 * 8)
    assert shape == Shape(2 * layer, 4 * 10, 2 * 2 * 2 * 4, 4)


def test_decoding_takes_the_longer_of_computing_and_of_reading(shape):
    endless = float("inf")
    computing = decode_seconds(shape, Rates(1.0, endless, 1, 1), [3, 5], new=2)
    assert computing == (8 + 2) * shape.body + 4 * shape.head
    reading = decode_seconds(shape, Rates(endless, 1.0, 1, 1), [3, 5], new=2)
    assert reading == 2 * shape.weights + (8 + 10) * shape.cache


def test_an_update_reads_texts_thrice_and_learns_from_them_in_every_epoch(shape):
    rates = Rates(1.0, float("inf"), 1, 1)
    sampled = decode_seconds(shape, rates, [3, 5], new=2)
    learned = update_seconds(shape, rates, [3, 5], new=2, epochs=2) - sampled
    assert learned == 12 * shape.body * (3 + 4) + 4 * shape.head * (2 + 4)
