"""Claims about PRISM's users: who counts, what is said of them, the pairs of a dialogue, and what is cut of its history."""

import pytest

from rlphf.data.sources.raw import Bad, Dropped, Pair
from rlphf.data.user_sources.prism import LONGEST_PROMPT, dialogue, read
from rlphf.errors import InputError


def person(name, completed=3, description="I paint.", **ranks):
    order = {"values": 4, "creativity": 2, "factuality": 1, "safety": 3, **ranks}
    return {
        "user_id": name,
        "num_completed_conversations": completed,
        "self_description": description,
        "order_stated_prefs": order,
        "system_string": "You are kind.",
        "age": "25-34 years old",
        "gender": "Female",
        "education": "University",
        "employment_status": "Retired",
        "marital_status": "Married",
        "english_proficiency": "Fluent",
    }


def said(turn, role, content, chosen=None):
    return {"turn": turn, "role": role, "content": content, "if_chosen": chosen, "score": 50, "within_turn_id": 0}


def turn(number, message, chosen, *rejected):
    answers = [said(number, "model", other, False) for other in rejected]
    return [said(number, "user", message), *answers[:1], said(number, "model", chosen, True), *answers[1:]]


def conversation(name, user, *turns):
    return {
        "conversation_id": name,
        "user_id": user,
        "conversation_turns": len(turns),
        "conversation_history": sum(turns, []),
        "opening_prompt": "",
    }


@pytest.fixture
def folder(write, tmp_path):
    def folder(people, conversations):
        write("prism/survey.jsonl", people)
        write("prism/conversations.jsonl", conversations)
        write("prism/utterances.jsonl", [{"not": "read"}])
        return tmp_path / "prism"

    return folder


def two(user, number=0, **more):
    """Two dialogues of a user, on questions of their own."""
    return [conversation(f"c{n}", user, turn(0, f"Question {user} {n}?", "yes", "no")) for n in (number, number + 1)]


def test_users_without_completed_conversations_are_left_out_and_ids_follow_the_survey(folder):
    path = folder([person("u1", 0), person("u2"), person("u3")], [*two("u3"), *two("u2", 2), *two("u9", 4)])
    people, records = read(path)
    assert [(p.id, p.group, p.kind) for p in people] == [(1, "majority", "factuality"), (2, "majority", "factuality")]
    made = list(records)
    assert [pair.user for pair in made if isinstance(pair, Pair)] == [2, 2, 1, 1]
    assert [r.reason for r in made if isinstance(r, Dropped)] == [
        "user completed no conversation",
        "user is not in the survey, or completed no conversation",
        "user is not in the survey, or completed no conversation",
    ]


def test_the_text_is_the_block_of_the_release_with_the_three_first_preferences_in_their_order(folder):
    people, _ = read(folder([person("u1")], two("u1")))
    assert people[0].text == (
        "User textual information: preference: factuality, creativity, safety; self_description: I paint.; age: 25-34 years old;"
        " gender: Female; education: University; employment: Retired; marital: Married; english_proficiency: Fluent;"
    )


def test_every_turn_gives_a_pair_for_each_rejected_answer_with_the_chosen_course_as_history(folder):
    talk = conversation("c1", "u1", turn(0, "Hi?", "A", "B", "C", "D"), turn(1, "And?", "E", "F"), turn(2, "So?", "G", "H"))
    people, records = read(folder([person("u1")], [talk]))
    found = [(pair.prompt, pair.chosen, pair.rejected) for pair in records if isinstance(pair, Pair)]
    assert [pair[1:] for pair in found] == [("A", "B"), ("A", "C"), ("A", "D"), ("E", "F"), ("G", "H")]
    assert found[0][0] == "Hi?"
    assert found[3][0] == "Human: Hi?\n\nAssistant: A\n\nHuman: And?"
    assert found[4][0] == "Human: Hi?\n\nAssistant: A\n\nHuman: And?\n\nAssistant: E\n\nHuman: So?"
    assert people[0].group == "unseen"  # A single dialogue.


def test_history_loses_whole_turns_from_the_left_and_never_the_last_message():
    turns = [("first", "one"), ("second", "two")]
    whole = dialogue(turns, "third", 1000)
    assert dialogue(turns, "third", len(whole)) == whole
    assert dialogue(turns, "third", len(whole) - 1) == "Human: second\n\nAssistant: two\n\nHuman: third"
    assert dialogue(turns, "third", 20) == "third"
    for limit in (0, -100, -(10**6)):
        assert dialogue(turns, "third", limit) == "third"


def test_a_long_self_description_leaves_no_history_but_every_message_whole(folder):
    talk = conversation("c1", "u1", *(turn(n, f"Message {n} " + "x" * 200, f"Answer {n}", "No") for n in range(4)))
    long, short = (read(folder([person("u1", description="d" * size)], [talk])) for size in (1500, 10))
    assert len(long[0][0].text) > LONGEST_PROMPT
    assert [pair.prompt for pair in long[1]] == [f"Message {n} " + "x" * 200 for n in range(4)]
    prompts = [pair.prompt for pair in short[1]]
    assert all(len(prompt) + len(short[0][0].text) <= LONGEST_PROMPT for prompt in prompts)
    assert prompts[3].startswith("Human: Message 0") and prompts[3].endswith("Human: Message 3 " + "x" * 200)


def test_long_answers_and_turns_without_a_choice_are_dropped(folder):
    turns = [turn(0, "Hi?", "A", "x" * 2297, "y" * 2296), [said(1, "user", "And?"), said(1, "model", "B", False)]]
    made = list(read(folder([person("u1")], [conversation("c1", "u1", *turns)]))[1])
    assert [type(record) for record in made] == [Dropped, Pair, Dropped]
    assert made[0].reason == "message and answer have 2300 characters or more"
    assert made[2].reason == "turn without a message, a chosen answer or a rejected one"


def test_a_dialogue_lies_in_one_split_also_where_its_beginning_was_cut(folder, imported):
    people = [person(f"u{n}", description="d" * 1300) for n in range(30)]
    talks = []
    for n in range(30):
        for k in range(3):
            question = f"Question {n} {k}?"
            talks.append(conversation(f"c{n}-{k}", f"u{n}", turn(0, question, "A", "B"), turn(1, f"{question} More?", "C", "D")))
    folder(people, talks)
    tables = imported("prism", "prism", validation=0.2, test=0.2)
    splits = {}
    for row in tables["pairs"]:
        dialogue = row["prompt"].removesuffix(" More?")
        assert splits.setdefault(dialogue, row["split"]) == row["split"]
    assert {"train", "validation", "test"} == set(splits.values())


def test_a_message_that_several_dialogues_were_cut_to_is_kept_in_the_latest_split_only(folder, imported):
    people = [person(f"u{n}", description="d" * 1500) for n in range(40)]
    talks = []
    for n in range(40):
        talks += [
            conversation(f"c{n}-{k}", f"u{n}", turn(0, f"Question {n} {k}?", "A", "B"), turn(1, "Go on.", f"C{n}", "D"))
            for k in range(2)
        ]
    folder(people, talks)
    tables = imported("prism", "prism", test=0.3)
    assert {row["split"] for row in tables["pairs"] if row["prompt"] == "Go on."} == {"test"}
    assert (
        sum(r["dropped"] for r in tables["counts"] if r["reason"] == "prompt lies in a later split" and r["source"] != "all") > 20
    )


def test_a_tenth_of_the_users_and_those_of_one_dialogue_are_unseen(folder, imported):
    people = [person(f"u{n}") for n in range(40)]
    folder(people, [talk for n in range(40) for talk in two(f"u{n}")[: 1 if n < 4 else 2]])
    tables = imported("prism", "prism", unseen=0.1)
    unseen = {p["id"] for p in tables["users"] if p["group"] == "unseen"}
    assert {1, 2, 3, 4} <= unseen and 4 < len(unseen) <= 8
    assert {row["split"] for row in tables["pairs"] if row["user"] in unseen} == {"test"}
    assert {row["split"] for row in tables["pairs"] if row["user"] not in unseen} == {"train"}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"order_stated_prefs": [1, 2]}, "order_stated_prefs"),
        ({"age": None}, "age"),
        ({"num_completed_conversations": "some"}, "num_completed_conversations"),
        ({"user_id": "u1"}, "user_id"),
    ],
)
def test_what_is_no_row_of_the_survey_is_bad(folder, change, field):
    path = folder([person("u1"), person("u2") | change], two("u1"))
    (bad,) = [record for record in read(path)[1] if isinstance(record, Bad)]
    assert (bad.field, bad.place.number) == (field, 2)


@pytest.mark.parametrize(
    ("history", "field"),
    [
        ("Hi", "conversation_history"),
        ([said(0, "system", "Hi")], "role"),
        ([said("x", "user", "Hi")], "turn"),
        ([said(0, "user", None)], "content"),
        ([said(0, "user", "Why?"), said(0, "model", "So.", "false")], "if_chosen"),
    ],
)
def test_what_is_no_dialogue_is_bad(folder, history, field):
    path = folder([person("u1")], [conversation("c1", "u1") | {"conversation_history": history}])
    (bad,) = read(path)[1]
    assert isinstance(bad, Bad) and bad.field == field


def test_a_folder_without_one_of_the_files_is_refused(write, tmp_path):
    write("prism/survey.jsonl", [person("u1")])
    with pytest.raises(InputError, match="0 files have 'conversations' in their names"):
        read(tmp_path / "prism")
