"""Reward models of raw pairs: which pairs count, which are left out as too long, and what the step measures."""

from pathlib import Path

import pyarrow as pa
import pytest
import yaml

from rlphf.config import load
from rlphf.data.learned import chosen_pairs
from rlphf.data.records import PAIR_SCORES, PAIRS, PROMPTS
from rlphf.errors import InputError
from rlphf.evaluate.bootstrap import Bootstrap
from rlphf.evaluate.runs import reward_models
from rlphf.files import read_parquet, write_parquet
from rlphf.lm.reward_model import classifier
from rlphf.train.reward import encode_pairs, reward_step

LONG = "bees and honey and rivers " * 30


def row(number: int, preference: str, split: str, source: str = "raw/alpaca_eval", **texts: str) -> dict:
    made = {"prompt": f"Question {number}?", "chosen": f"Yes, {number} bees.", "rejected": f"No {number}."} | texts
    return {"id": f"{source}-{preference}-{number}", "preference": preference, "user": None, "probability": None} | {
        "source": source,
        "split": split,
        **made,
    }


SPLIT = ("train", "validation", "test")
RAW = [row(i, name, SPLIT[i % 3]) for name in ("P2A", "general", "helpful") for i in range(24)]
OWN = [row(100 + i, "P1A", SPLIT[i % 3], "questions") for i in range(24)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A seed's folder with pairs of rollouts, raw pairs, prompts that some of them ask, and a configuration."""
    settings = {
        "experiment": "real",
        "preferences": ["P1A", "P2A"],
        "combination_preferences": ["P1A", "P2A"],
        "prompts": {"source": "questions"},
        "annotator": {"kind": "rule"},
        "data": {"sources": [{"kind": "alpaca_eval", "path": "raw"}], "reward_models": ["helpful"]},
        "reward": {"batch_size": 4, "learning_rate": 0.003, "max_pairs": 5, "max_length": 40, "lora": {"rank": 2, "alpha": 4}},
        "ppo": {"keep": "best", "keep_by": "gold"},
        "user_evaluation": {"methods": []},
        "evaluation": {"judges": ["gold"], "methods": ["vb", "psoups"], "gold_raw": ["P2A", "general"]},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    write_parquet(tmp_path / "data" / "pairs.parquet", pa.Table.from_pylist(RAW, PAIRS))
    write_parquet(tmp_path / "pairs" / "P1A" / "pairs.parquet", pa.Table.from_pylist(OWN, PAIRS))
    # Of the raw pairs, those of number 1 and 2 ask what the experiment asks itself, up to punctuation.
    asked = [{"id": f"q{i}", "prompt": f"question {i}", "topic": None, "source": "questions", "split": "test"} for i in (1, 2)]
    write_parquet(tmp_path / "prompts.parquet", pa.Table.from_pylist(asked, PROMPTS))
    return tmp_path


def files(folder: Path) -> list[Path]:
    return [folder / "pairs" / "P1A" / "pairs.parquet", folder / "data" / "pairs.parquet"]


def test_raw_pairs_count_where_they_speak_for_what_is_learned_and_ask_no_prompt_of_the_experiment(folder: Path) -> None:
    experiment = load(folder / "config.yaml")
    golden = chosen_pairs(experiment, "gold", files(folder), folder / "prompts.parquet")
    assert {r["preference"] for r in golden} == {"P1A", "P2A", "general"}
    assert {r["prompt"] for r in RAW} - {r["prompt"] for r in golden} == {"Question 1?", "Question 2?"}
    alone = chosen_pairs(experiment, "raw-helpful", files(folder)[1:], folder / "prompts.parquet")
    assert {r["preference"] for r in alone} == {"helpful"} and len(alone) == 22


def test_a_model_of_one_preference_takes_its_pairs_alone_out_of_a_file_of_many(folder: Path) -> None:
    experiment = load(folder / "config.yaml")
    mixed = files(folder)[1:]
    assert {r["preference"] for r in chosen_pairs(experiment, "P2A", mixed, None)} == {"P2A"}
    with pytest.raises(InputError, match="no pair speaks for P1A, but for P2A, general, helpful; name one of these"):
        chosen_pairs(experiment, "P1A", mixed, None)


def test_policies_may_learn_from_raw_pairs_which_ask_neither_validation_nor_test_prompts(folder: Path) -> None:
    raw = yaml.safe_load((folder / "config.yaml").read_text())
    raw["reward"]["raw"] = ["P2A"]
    (folder / "config.yaml").write_text(yaml.safe_dump(raw))
    experiment, prompts = load(folder / "config.yaml"), folder / "prompts.parquet"
    rows = read_parquet(prompts, PROMPTS).to_pylist()
    write_parquet(
        prompts, pa.Table.from_pylist([row | {"split": split} for row, split in zip(rows, SPLIT, strict=False)], PROMPTS)
    )
    own = [r for r in OWN if r["split"] == "train"]
    # Question 1 is a training prompt now, and question 2 one for validation. The annotator's pairs of P2A count no more.
    labelled = [row(200 + i, "P2A", "train", "questions") for i in range(3)]
    write_parquet(folder / "pairs" / "P2A" / "pairs.parquet", pa.Table.from_pylist(labelled, PAIRS))
    every = [*files(folder), folder / "pairs" / "P2A" / "pairs.parquet"]
    found = chosen_pairs(experiment, "P2A", every, prompts)
    assert {r["source"] for r in found} == {"raw/alpaca_eval"} and {r["preference"] for r in found} == {"P2A"}
    assert {r["prompt"] for r in RAW} - {r["prompt"] for r in found} == {"Question 2?"}
    for everyone in ("pmorl", "mt"):
        both = chosen_pairs(experiment, everyone, every, prompts)
        assert [r for r in both if r["preference"] == "P2A"] == found
        assert [r for r in both if r["preference"] == "P1A" and r["split"] == "train"] == own


def test_a_preference_all_of_whose_pairs_ask_the_experiments_prompts_is_named(folder: Path) -> None:
    everything = [
        {"id": f"q{i}", "prompt": r["prompt"], "topic": None, "source": "questions", "split": "train"}
        for i, r in enumerate(RAW)
        if r["preference"] == "P2A"
    ]
    write_parquet(folder / "prompts.parquet", pa.Table.from_pylist(everything, PROMPTS))
    rows = [r | {"prompt": f"Other {i}?"} if r["preference"] != "P2A" else r for i, r in enumerate(RAW)]
    write_parquet(folder / "data" / "pairs.parquet", pa.Table.from_pylist(rows, PAIRS))
    with pytest.raises(InputError, match="all pairs of P2A ask prompts of the experiment itself, so gold may learn from none"):
        chosen_pairs(load(folder / "config.yaml"), "gold", files(folder), folder / "prompts.parquet")


def test_pairs_of_which_both_responses_would_be_cut_are_left_out(tiny_backbone: Path) -> None:
    tokenizer = classifier(tiny_backbone)[1]
    rows = [row(0, "P2A", "train", rejected=LONG), row(1, "P2A", "train", chosen=LONG, rejected=LONG + LONG)]
    found = encode_pairs(tokenizer, rows, "raw-P2A", 60, None, seed=1)
    assert [pair.row["id"] for pair in found] == [rows[0]["id"]] and len(found[0].rejected) == 60
    assert len(encode_pairs(tokenizer, rows, "raw-P2A", 2**31, None, seed=1)) == 2


def test_so_many_pairs_of_each_preference_and_split_are_drawn_by_the_seed(tiny_backbone: Path) -> None:
    tokenizer = classifier(tiny_backbone)[1]
    drawn = [encode_pairs(tokenizer, RAW, "gold", 512, 3, seed) for seed in (1, 1, 2)]
    ids = [[pair.row["id"] for pair in pairs] for pairs in drawn]
    assert ids[0] == ids[1] != ids[2] and len(ids[0]) == 3 * 3 * 3
    assert ids[0] == [r["id"] for r in RAW if r["id"] in set(ids[0])]


def test_judge_and_selector_learn_from_no_common_prompt_and_are_measured_by_whom_pairs_speak_for(
    folder: Path, tiny_backbone: Path
) -> None:
    whose = {"P1A": files(folder)[:1], "gold": files(folder), "selector": files(folder), "raw-helpful": files(folder)[1:]}
    for name, chosen in whose.items():
        out = folder / "reward" / name
        reward_step(folder / "config.yaml", name, tiny_backbone, chosen, out, folder / "prompts.parquet")
    experiment = load(folder / "config.yaml")
    preferences = experiment.model_copy(update={"preferences": ["P1A"]})
    rows = reward_models(folder, preferences, Bootstrap(1, 20))
    counts = {(r["preference"], r["split"]): r["n"] for r in rows}
    # Five pairs at most are learned from, of which every fourth is measured, so two; of gold ones' unseen ones every fourth.
    assert counts["raw-helpful", "train"] == 2 and counts["raw-helpful", "test"] == 5
    assert counts["gold", "test"] == 4 and counts["selector", "validation"] == 4
    assert {name for name, split in counts if split == "train" and name.startswith("gold")} >= {"gold", "gold/P2A"}
    assert counts["gold", "train"] == sum(n for (name, split), n in counts.items() if name[:5] == "gold/" and split == "train")
    learned = {name: read_parquet(folder / "reward" / name / "scores.parquet", PAIR_SCORES) for name in ("gold", "selector")}
    assert set(learned["gold"]["split"].to_pylist()) == set(SPLIT) == set(learned["selector"]["split"].to_pylist())


def test_no_pair_that_fits_is_an_error_in_one_line(folder: Path, tiny_backbone: Path) -> None:
    rows = [r | {"chosen": LONG, "rejected": LONG + "no"} for r in RAW]
    write_parquet(folder / "data" / "pairs.parquet", pa.Table.from_pylist(rows, PAIRS))
    with pytest.raises(
        InputError, match="pairs.parquet: no pair fits reward.max_length and the backbone's context, 40 tokens; raise it"
    ):
        reward_step(folder / "config.yaml", "raw-helpful", tiny_backbone, files(folder)[1:], folder / "out")
    assert not (folder / "out" / "adapter").exists()
