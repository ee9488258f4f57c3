"""Claims about users of a table of one's own, known by any names."""

import pytest

from rlphf.errors import InputError


def row(n: int, user, **more) -> dict:
    return {"prompt": f"Question {n}?", "chosen": f"yes {n}", "rejected": f"no {n}", "user": user, **more}


def test_users_are_numbered_as_they_come_and_have_what_any_record_says_of_them(write, imported):
    rows = [row(1, "ann"), row(2, 17, kind="doctor"), row(3, "ann", text="I like it short.", group="minority"), row(4, "ann")]
    write("mine.jsonl", rows)
    tables = imported("table", "mine.jsonl")
    assert tables["users"] == [
        {"id": 1, "group": "minority", "kind": "user", "text": "I like it short."},
        {"id": 2, "group": "majority", "kind": "doctor", "text": ""},
    ]
    assert [(p["user"], p["preference"], p["chosen"]) for p in tables["pairs"]] == [
        (1, "user", "yes 1"),
        (2, "doctor", "yes 2"),
        (1, "user", "yes 3"),
        (1, "user", "yes 4"),
    ]


def test_columns_of_other_names_and_other_formats_are_read(write, imported, tmp_path):
    (tmp_path / "mine.csv").write_text("q,better,worse,annotator_id\nWhy?,a,b,7\nHow?,c,d,eve\n")
    columns = {"prompt": "q", "chosen": "better", "rejected": "worse", "user": "annotator_id"}
    tables = imported("table", "mine.csv", columns=columns)
    assert [(p["prompt"], p["user"]) for p in tables["pairs"]] == [("Why?", 1), ("How?", 2)]
    with pytest.raises(InputError, match="user_data.columns: 'owner' is none of ours; choose from prompt, chosen,"):
        imported("table", "mine.csv", columns={"owner": "annotator_id"})


def test_what_is_blank_says_nothing_of_a_user(write, imported):
    write("mine.jsonl", [row(1, "ann", kind=" ", text=" ", group="\t", split=" "), row(2, "ann", kind="doctor", text=None)])
    assert imported("table", "mine.jsonl")["users"] == [{"id": 1, "group": "majority", "kind": "doctor", "text": ""}]


@pytest.mark.parametrize("name", ["text", "kind", "group", "split"])
def test_a_column_that_no_record_has_is_refused(write, imported, name):
    write("mine.jsonl", [row(1, "ann"), row(2, "eve", theirs="")])
    with pytest.raises(
        InputError, match=f"user_data.columns: no record of .* has 'thiers', which is to be {name}; correct the name"
    ):
        imported("table", "mine.jsonl", columns={name: "thiers"})
    assert len(imported("table", "mine.jsonl", columns={name: "theirs"})["pairs"]) == 2


def test_dialogues_of_users_are_read_as_tables_are(write, imported):
    asked = [{"role": "user", "content": "Why?"}]
    answers = [[*asked, {"role": "assistant", "content": text}] for text in ("So.", "Because.")]
    write("mine.jsonl", [{"user": "ann", "chosen": answers[0], "rejected": answers[1]}])
    (pair,) = imported("table", "mine.jsonl")["pairs"]
    assert (pair["prompt"], pair["chosen"], pair["rejected"], pair["user"]) == ("Why?", "So.", "Because.", 1)


def test_the_tables_own_split_is_kept_and_prompts_stay_disjoint(write, imported):
    rows = [row(n, user, split="test" if n < 5 else "train") for n in range(20) for user in ("ann", "bob")]
    write("mine.jsonl", rows)
    tables = imported("table", "mine.jsonl")
    assert {p["prompt"] for p in tables["pairs"] if p["split"] == "test"} == {f"Question {n}?" for n in range(5)}
    write("mine.jsonl", [row(n, user) for n in range(60) for user in ("ann", "bob", "eve")])
    tables = imported("table", "mine.jsonl", validation=0.2, test=0.2, unseen=0.3)
    assert {p["split"] for p in tables["pairs"]} == {"train", "validation", "test"}
    assert [p["group"] for p in tables["users"]].count("unseen") == 1


@pytest.mark.parametrize(
    ("bad", "field", "reason"),
    [
        (row(2, ""), "user", "is empty"),
        (row(2, None), "user", "expected text, got null"),
        (row(2, True), "user", "expected text, got bool"),
        (row(2, "ann", text="I like it long."), "text", "is not what user ann had before: 'I like it short.'"),
        (row(2, "ann", group="some"), "group", "is 'some', expected majority or minority"),
        (row(2, "ann", split="dev"), "split", "is 'dev', expected train or test"),
        ({"prompt": "Why?", "chosen": "a", "user": "ann"}, "rejected", "is missing"),
    ],
)
def test_a_record_that_says_no_user_or_contradicts_others_is_refused_or_set_aside(write, imported, bad, field, reason):
    write("mine.jsonl", [row(1, "ann", text="I like it short."), bad, row(3, "ann")])
    with pytest.raises(InputError, match=f"mine.jsonl, line 2, field {field}: {reason}"):
        imported("table", "mine.jsonl")
    tables = imported("table", "mine.jsonl", bad="quarantine")
    assert len(tables["pairs"]) == 2 and len(tables["quarantine"]) == 1
