"""Rollouts: two responses per pair, asked for the preference as the weights say, and labelled with what was asked."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

from rlphf.data.records import PROMPTS, RESPONSES
from rlphf.errors import InputError
from rlphf.files import read_parquet, sha256, write_parquet
from rlphf.lm.rollouts import rollouts_step

CONFIG = """
experiment: test
rollouts: {{train_pairs: 5, validation_pairs: 1, test_pairs: 2, asked: {asked}, decoding: {{max_new_tokens: 4}}}}
"""


@pytest.fixture
def sample(tiny_backbone: Path, tmp_path: Path):
    """Run the step of a preference; return its file."""
    rows = [
        {"id": split, "prompt": f"What is {topic}?", "topic": topic, "source": "testbed", "split": split}
        for split, topic in (("train", "honey"), ("validation", "rain"), ("test", "salt"))
    ]
    write_parquet(tmp_path / "prompts.parquet", pa.Table.from_pylist(rows, PROMPTS))

    def step(preference: str = "P2A", asked: tuple[int, int, int] = (0, 1, 0), folder: str = "out") -> Path:
        config = tmp_path / "config.yaml"
        config.write_text(CONFIG.format(asked=list(asked)))
        out = tmp_path / folder / "responses.parquet"
        rollouts_step(config, preference, tmp_path / "prompts.parquet", tiny_backbone, out)
        return out

    return step


def test_each_split_gets_its_pairs_of_responses(sample) -> None:
    rows = read_parquet(sample(), RESPONSES).to_pylist()
    assert Counter(row["prompt_id"] for row in rows) == {"train": 10, "validation": 2, "test": 4}
    assert [row["sample"] for row in rows if row["prompt_id"] == "test"] == [0, 1, 2, 3]


def test_what_is_asked_follows_the_weights_and_is_on_record(sample) -> None:
    assert {row["combination"] for row in read_parquet(sample(), RESPONSES).to_pylist()} == {"P2A"}
    assert {row["combination"] for row in read_parquet(sample("general", (1, 1, 1)), RESPONSES).to_pylist()} == {""}
    asked = [row["combination"] for row in read_parquet(sample(asked=(1, 1, 1)), RESPONSES).to_pylist()]
    assert {"", "P2A"} < set(asked) and {len(name.split("-")) for name in asked} == {1, 3}
    assert all("P2A" in name for name in asked if name)


def test_the_same_step_gives_the_same_bytes(sample) -> None:
    assert sha256(sample(asked=(1, 1, 1), folder="one")) == sha256(sample(asked=(1, 1, 1), folder="two"))


def test_no_prompts_is_an_error_in_one_line(sample, tmp_path: Path) -> None:
    write_parquet(tmp_path / "prompts.parquet", pa.Table.from_pylist([], PROMPTS))
    with pytest.raises(InputError, match="holds no prompts"):
        sample()
