"""The judge that is a reward model: what it is asked, and that its scores are those of the model."""

from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from rlphf.data.records import PAIRS, PROMPTS, RESPONSES
from rlphf.errors import InputError
from rlphf.evaluate.judges.gold import asked, gold_step
from rlphf.evaluate.scores import SCORES, read_scores
from rlphf.files import read_parquet, write_parquet
from rlphf.lm.reward_model import encode_texts, load_reward_model, score
from rlphf.preferences import instruction
from rlphf.train.reward import reward_step

PREFERENCES = ["P1A", "P3A", "P3B"]
METHODS = ["vb", "pp", "psoups_unprompted"]


def responses(method: str, combinations: list[str]) -> list[dict]:
    return [
        {"prompt_id": q, "method": method, "combination": c, "sample": s, "response": f"{q} {method} {c} {s}."}
        | {"tokens": 4, "finished": True}
        for q in ("q0", "q1")
        for c in combinations
        for s in (0, 1)
    ]


PROMPT_ROWS = [{"id": f"q{i}", "prompt": f"Why {i}?", "topic": None, "source": "hand", "split": "test"} for i in range(2)]
TABLES = {
    "vb": pa.Table.from_pylist(responses("vb", [""]), RESPONSES),
    "pp": pa.Table.from_pylist(responses("pp", ["P1A-P3A", "P1A-P3B"]), RESPONSES),
}


def test_first_responses_are_asked_for_what_they_are_judged_by():
    found = asked(pa.Table.from_pylist(PROMPT_ROWS, PROMPTS), TABLES, ["vb", "pp"], ["P1A-P3A", "P1A-P3B"])
    assert all(row["sample"] == 0 for row, _, _ in found)
    by_cell = {}
    for row, criterion, question in found:
        by_cell.setdefault((row["method"], row["combination"]), {}).setdefault(criterion, []).append(question)
    assert set(by_cell["vb", ""]) == {"P1A", "P3A", "P3B", "helpfulness"}
    assert set(by_cell["pp", "P1A-P3B"]) == {"P1A", "P3B", "helpfulness"}
    assert by_cell["pp", "P1A-P3B"]["P3B"] == [instruction("Why 0?", ["P3B"]), instruction("Why 1?", ["P3B"])]
    assert by_cell["vb", ""]["helpfulness"] == ["Why 0?", "Why 1?"]


def test_a_response_to_an_unknown_prompt_is_refused():
    with pytest.raises(InputError, match="pp: row 5: prompt_id 'q1' is not among the prompts"):
        asked(pa.Table.from_pylist(PROMPT_ROWS[:1], PROMPTS), TABLES, ["pp"], ["P1A-P3A", "P1A-P3B"])


def test_methods_that_are_not_compared_are_left_out():
    found = asked(pa.Table.from_pylist(PROMPT_ROWS, PROMPTS), TABLES, ["pp"], ["P1A-P3A", "P1A-P3B"])
    assert {row["method"] for row, _, _ in found} == {"pp"}


@pytest.fixture
def workplace(tmp_path: Path, tiny_backbone: Path) -> Path:
    """Prompts, responses, pairs of three preferences and in general, and a configuration."""
    settings = {
        "experiment": "tiny",
        "preferences": PREFERENCES,
        "combination_preferences": PREFERENCES,
        "reward": {"epochs": 5, "batch_size": 4, "learning_rate": 0.003, "lora": {"rank": 2, "alpha": 4}},
        "evaluation": {"methods": METHODS, "gold_epochs": 1},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    write_parquet(tmp_path / "prompts.parquet", pa.Table.from_pylist(PROMPT_ROWS, PROMPTS))
    for name, table in TABLES.items():
        write_parquet(tmp_path / f"{name}.parquet", table)
    for name in (*PREFERENCES, "general"):
        rows = [
            {"id": f"{name}{i}", "prompt": f"Question {i}?", "chosen": f"Yes, {i} bees.", "rejected": f"No {i}.", "user": None}
            | {"preference": name, "probability": 0.9, "source": "hand", "split": ("train", "validation", "test")[i % 3]}
            for i in range(24)
        ]
        write_parquet(tmp_path / f"{name}_pairs.parquet", pa.Table.from_pylist(rows, PAIRS))
    return tmp_path


def test_it_learns_from_pairs_that_no_policys_reward_model_sees_and_scores_as_the_model_does(workplace, tiny_backbone):
    config = workplace / "config.yaml"
    pairs = [workplace / f"{name}_pairs.parquet" for name in (*PREFERENCES, "general")]
    reward_step(config, "gold", tiny_backbone, pairs, workplace / "gold")
    scored = read_parquet(workplace / "gold" / "scores.parquet").to_pylist()
    counts = {split: sum(row["split"] == split for row in scored) for split in ("train", "validation", "test")}
    # Every fourth of the 32 pairs of training prompts, which are unseen, and of the 64 others.
    assert counts["train"] == 8 and counts["validation"] + counts["test"] == 16
    metrics = [line for line in (workplace / "gold" / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
    assert metrics and '"train_accuracy"' in (workplace / "gold" / "metrics.jsonl").read_text()

    files = [workplace / "vb.parquet", workplace / "pp.parquet"]
    out = workplace / "judge" / "scores.parquet"
    gold_step(config, workplace / "prompts.parquet", files, tiny_backbone, workplace / "gold" / "adapter", out)
    table = read_parquet(out, SCORES).to_pylist()
    assert len(table) == 2 * 4 + 2 * 2 * 3
    model, tokenizer = load_reward_model(tiny_backbone, workplace / "gold" / "adapter")
    text = encode_texts(tokenizer, [instruction("Why 1?", ["P3A"])], ["q1 pp P1A-P3A 0."])
    (found,) = (r["score"] for r in table if (r["prompt_id"], r["combination"], r["criterion"]) == ("q1", "P1A-P3A", "P3A"))
    assert found == pytest.approx(score(model, text, tokenizer.pad_token_id)[0], abs=1e-5)
    assert read_scores(out).cell("vb", "P1A-P3A").samples == 1
