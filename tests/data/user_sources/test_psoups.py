"""Claims about the six users of Personalized Soups' files."""

from rlphf.preferences import PREFERENCES, instruction

SIX = ("P1A", "P1B", "P2A", "P2B", "P3A", "P3B")


def files(write, questions=8, names=SIX):
    for name in names:
        rows = [
            {"user_input": instruction(f"Question {n}?", [name]), "completion_a": f"{name} {n}", "completion_b": f"not {name}"}
            for n in range(questions)
        ]
        write(f"rm_training/{name}.json", [row for row in rows for _ in range(5)])


def test_each_preference_is_a_user_with_its_prompt_for_a_text(write, imported):
    files(write)
    tables = imported("psoups", "rm_training")
    assert [(p["id"], p["kind"]) for p in tables["users"]] == list(enumerate(SIX, 1))
    assert {p["group"] for p in tables["users"]} == {"majority"}
    assert all(p["text"] == PREFERENCES[p["kind"]].prompt for p in tables["users"])


def test_prompts_have_no_preference_and_the_releases_copies_are_dropped(write, imported):
    files(write)
    tables = imported("psoups", "rm_training")
    assert len(tables["pairs"]) == 6 * 8 and len(tables["prompts"]) == 8
    assert {row["prompt"] for row in tables["pairs"]} == {f"Question {n}?" for n in range(8)}
    assert all(SIX[row["user"] - 1] == row["preference"] == row["chosen"].split()[0] for row in tables["pairs"])
    total = next(row for row in tables["counts"] if row["source"] == "all" and row["reason"] == "repeated")
    assert total["dropped"] == 4 * 6 * 8


def test_a_question_of_all_six_lies_in_one_split(write, imported):
    files(write, questions=60)
    tables = imported("psoups", "rm_training", validation=0.2, test=0.2)
    splits = {}
    for row in tables["pairs"]:
        assert splits.setdefault(row["prompt"], row["split"]) == row["split"]
    assert set(splits.values()) == {"train", "validation", "test"} and len(tables["pairs"]) == 6 * 60


def test_ids_do_not_depend_on_which_files_there_are(write, imported):
    files(write, names=("P1B", "P3B"))
    assert [(p["id"], p["kind"]) for p in imported("psoups", "rm_training")["users"]] == [(2, "P1B"), (6, "P3B")]
