"""Claims about TL;DR's users: the release's filter, ranking, drawn preferences and choices by length, on files in its layout."""

import pytest

from rlphf.data.sources.raw import Bad, Dropped, Pair
from rlphf.data.user_sources.tldr import preferences, read
from rlphf.errors import InputError

FIELDS = {"choice": 0, "batch": "batch3", "split": "train"}


def compared(worker, first="A long summary.", second="Short.", n=0, policies=("sup2", "sup4_t.7"), **info):
    post = {"id": f"t3_{n}", "subreddit": "tifu", "title": f"Title {n}", "post": f"Post {n}.", **info}
    summaries = [{"text": said, "policy": by, "note": None} for said, by in zip((first, second), policies, strict=True)]
    return {"info": post, "summaries": summaries, "worker": worker, **FIELDS}


def many(counts, start=0):
    """Comparisons of {worker: how many}, each of a post of its own."""
    rows = []
    for worker, count in counts.items():
        rows += [compared(worker, n=start + len(rows) + k) for k in range(count)]
    return rows


def pairs_of(read):
    return [record for record in read if isinstance(record, Pair)]


def reasons_of(read):
    return [record.reason for record in read if isinstance(record, Dropped)]


def test_the_release_drew_that_users_4_5_and_6_of_ten_like_it_short():
    assert [n for n, like in enumerate(preferences(10, 0.3), 1) if like == "shorter"] == [4, 5, 6]
    assert preferences(40, 0.3)[:10] == preferences(10, 0.3)
    assert set(preferences(10, 0.0)) == {"longer"} and set(preferences(10, 1.0)) == {"shorter"}


def test_workers_are_ranked_by_training_comparisons_then_by_name(write, tmp_path):
    write("tldr/train.jsonl.gz", many({"b": 2, "c": 5, "a": 2, "d": 3}))
    people, records = read(tmp_path / "tldr", None, 0.3)
    assert [(p.id, p.kind, p.group, p.text) for p in people] == [
        (1, "longer", "majority", ""),
        (2, "longer", "majority", ""),
        (3, "longer", "majority", ""),
        (4, "shorter", "minority", ""),
    ]
    numbers = [pair.user for pair in pairs_of(records)]
    assert [numbers.count(n) for n in (1, 2, 3, 4)] == [5, 3, 2, 2]
    assert numbers[:2] == [4, 4]  # "b" comes behind "a".


def test_only_comparisons_of_two_supervised_policies_for_tldr_count_also_in_the_ranking(write, tmp_path):
    other = [("sup2", "ppo_sup"), ("ref", "sup1"), ("cnndm_sup", "sup"), ("sup", "lead-2")]
    rows = [compared("a", n=n, policies=policies) for n, policies in enumerate(other)]
    write("tldr/train.jsonl", [*rows, compared("a", n=10), *many({"b": 2}, 20)])
    people, records = read(tmp_path / "tldr", 1, 0.3)
    made = list(records)
    assert len(people) == 1 and len(pairs_of(made)) == 2
    assert reasons_of(made) == ["a summary is not from a supervised policy"] * 4 + [
        "training comparison of a worker who is not among the top"
    ]


def test_a_comparison_of_news_has_no_post_and_is_filtered_before_that_is_asked_for(write, tmp_path):
    news = compared("a", policies=("cnndm_sup1", "cnndm_sup2"), post=None, article="News.")
    write("tldr/train.jsonl", [news, compared("a")])
    assert not [record for record in read(tmp_path / "tldr", None, 0.3)[1] if isinstance(record, Bad)]


def test_length_in_characters_decides_and_a_tie_takes_the_first_summary_whatever_is_preferred(write, tmp_path):
    rows = [compared("a", "aaa", "b b b b", n=1), compared("a", "12345", "1 2 3", n=2), compared("a", "123", "abc", n=3)]
    write("tldr/train.jsonl", rows)
    for shorter, chosen in ((0.0, ["b b b b", "12345", "123"]), (1.0, ["aaa", "12345", "123"])):
        assert [pair.chosen for pair in pairs_of(read(tmp_path / "tldr", None, shorter)[1])] == chosen


def test_the_prompt_is_the_releases_and_the_workers_own_choice_is_not_used(write, tmp_path):
    write("tldr/train.jsonl", [compared("a") | {"choice": 1}])
    (pair,) = read(tmp_path / "tldr", None, 0.0)[1]
    assert pair.prompt == "SUBREDDIT: r/tifu\nTITLE: Title 0\nPOST: Post 0.\nTL;DR: "
    assert (pair.chosen, pair.rejected, pair.split) == ("A long summary.", "Short.", "train")


def test_identical_summaries_and_long_ones_are_dropped(write, tmp_path):
    overhead = len("SUBREDDIT: r/tifu\nTITLE: Title 0\nPOST: \nTL;DR: ")
    fits = "x" * (4800 - overhead - len("A long summary."))
    rows = [compared("a", "same", "same"), compared("a", post=fits), compared("a", post=fits + "x")]
    write("tldr/train.jsonl", rows)
    made = list(read(tmp_path / "tldr", None, 0.0)[1])
    assert len(pairs_of(made)) == 1 and len(pairs_of(made)[0].prompt) + len("A long summary.") == 4800
    assert reasons_of(made) == ["identical answers", "longer than 4800 characters"]


def test_other_workers_of_the_validation_file_are_unseen_and_theirs_are_test_pairs(write, imported):
    write("tldr/comparisons_train.jsonl", many({"a": 30, "b": 20, "c": 10}))
    write("tldr/comparisons_validation.jsonl", many({"a": 2, "c": 3, "new": 1}, start=100))
    tables = imported("tldr", "tldr", users=2, validation=0.3)
    assert [(p["id"], p["group"]) for p in tables["users"]] == [(1, "majority"), (2, "majority"), (3, "unseen"), (4, "unseen")]
    by_split = {(row["user"], row["split"]) for row in tables["pairs"]}
    assert by_split == {(1, "train"), (1, "validation"), (2, "train"), (2, "validation"), (1, "test"), (3, "test"), (4, "test")}
    assert {row["preference"] for row in tables["pairs"] if row["user"] == 4} == {"shorter"}
    assert len(tables["pairs"]) == 56


def test_a_post_of_both_files_is_kept_for_tests_alone_and_counted(write, imported):
    write("tldr/train.jsonl", many({"a": 5, "b": 5}))
    write("tldr/valid.jsonl", [compared("b", n=0), compared("b", "Other one.", "Summary", n=7)])
    tables = imported("tldr", "tldr")
    prompts = {row["prompt"]: row["split"] for row in tables["prompts"]}
    assert len(prompts) == 10 and sorted(prompts.values()).count("test") == 2
    assert {row["reason"]: row["dropped"] for row in tables["counts"] if row["source"] == "all"} == {
        "all": 2,
        "prompt lies in a later split": 2,
    }


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"summaries": [{"text": "a", "policy": "sup"}]}, "summaries"),
        ({"summaries": "ab"}, "summaries"),
        ({"summaries": [{"text": None, "policy": "sup"}, {"text": "b", "policy": "sup"}]}, "text"),
        ({"summaries": [{"text": "a"}, {"text": "b", "policy": "sup"}]}, "policy"),
        ({"info": None}, "info"),
        ({"info": {"subreddit": "tifu", "title": "T", "post": None}}, "post"),
        ({"worker": ""}, "worker"),
    ],
)
def test_what_is_no_comparison_is_bad_with_its_line_and_field(write, tmp_path, change, field):
    write("tldr/train.jsonl", [compared("a"), compared("a", n=1) | change])
    (bad,) = [record for record in read(tmp_path / "tldr", None, 0.3)[1] if isinstance(record, Bad)]
    assert (bad.field, bad.place.number) == (field, 2)


def test_a_file_of_unknown_split_is_refused(write, tmp_path):
    write("tldr/batch3.jsonl", [compared("a")])
    with pytest.raises(InputError, match="neither train nor valid is in its name"):
        read(tmp_path / "tldr", None, 0.3)
