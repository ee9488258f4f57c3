"""Claims about the real raw data, where it is at hand."""

import re
from collections import Counter

import pytest

from rlphf.data.discover import discover
from rlphf.data.prepare import prepare
from rlphf.data.records import PAIRS, PROMPTS, check_pairs, check_prompts
from rlphf.files import read_parquet


@pytest.fixture(scope="module")
def prepared(real_raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared")
    sources = discover(real_raw)
    prepare(sources, out, 1103, 0.1, 0.1, "error", real_raw)
    return sources, out


def test_all_known_folders_are_found(prepared):
    kinds = Counter(source.kind for source in prepared[0])
    assert kinds == {"alpaca_eval": 1, "hh_rlhf": 2, "koala": 1, "table": 20}


def test_everything_real_is_read_without_a_bad_record_and_passes_the_rules(prepared):
    pairs, prompts = (prepared[1] / f"{name}.parquet" for name in ("pairs", "prompts"))
    check_pairs(read_parquet(pairs, PAIRS), "pairs")
    check_prompts(read_parquet(prompts, PROMPTS), "prompts")


def test_counts_agree_with_the_published_sizes(prepared):
    rows = read_parquet(prepared[1] / "data.parquet").to_pylist()
    read = {(row["source"], row["preference"]): row["read"] for row in rows if row["reason"] == "all"}
    assert read["alpaca_eval", "general"] == 10_461
    assert read["hh_rlhf/harmless-base-test.jsonl.gz", "harmless"] == 2312
    assert read["hh_rlhf/vpl-relabeled-helpful.jsonl.gz", "helpful"] == 2157
    assert read["koala/koala_eval_50.json", None] == 50
    total = next(row for row in rows if (row["source"], row["reason"]) == ("all", "all"))
    assert total["dropped"] < 0.1 * total["read"]


def test_no_turn_marker_is_left_at_the_border_of_prompt_and_reply(prepared):
    for row in read_parquet(prepared[1] / "pairs.parquet").to_pylist():
        if row["source"].startswith("hh_rlhf"):
            assert not re.match(r"(Human|Assistant):", row["chosen"]) or "Human: " in row["chosen"]
            assert not row["prompt"].endswith("Assistant:")
            assert row["prompt"].startswith("Human:") == ("\n\nAssistant:" in row["prompt"])


def test_concise_answers_are_chosen_for_p2a_and_long_ones_for_p2b(prepared):
    for row in read_parquet(prepared[1] / "pairs.parquet").to_pylist():
        if row["preference"] in ("P2A", "P2B"):
            assert (len(row["chosen"]) < len(row["rejected"])) == (row["preference"] == "P2A")
