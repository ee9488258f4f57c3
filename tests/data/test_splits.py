from collections import Counter

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlphf.data.splits import assign, check_leaks, dialogue, group, opening
from rlphf.errors import InputError

DIALOGUE = "Human: Why is the sky blue?\n\nAssistant: Air scatters blue light.\n\nHuman: And red?"


def test_a_dialogue_has_the_form_of_hh_rlhf_and_its_opening_is_its_first_question():
    turns = ["Why is the sky blue?", "Air scatters blue light.", "And red?"]
    assert dialogue(turns) == DIALOGUE and dialogue(turns[:1]) == turns[0]
    assert opening(dialogue(turns)).strip() == turns[0]


def splits(prompts, seed=3, validation=0.2, test=0.3):
    return {prompt: assign(prompt, seed, validation, test) for prompt in prompts}


def table(*rows):
    return pa.table({"prompt": [prompt for prompt, _ in rows], "split": [split for _, split in rows]})


@given(st.lists(st.text()), st.randoms())
def test_the_split_of_a_prompt_depends_on_neither_order_nor_other_prompts(prompts, rng):
    shuffled = prompts[: len(prompts) // 2]
    rng.shuffle(shuffled)
    whole = splits(prompts)
    assert all(whole[prompt] == split for prompt, split in splits(shuffled).items())


@given(st.lists(st.text(), max_size=20))
def test_assigned_splits_never_leak(prompts):
    rows = [(prompt + end, assign(prompt + end, 1, 0.3, 0.3)) for prompt in prompts for end in ("", "!", " \n")]
    check_leaks(table(*rows))


def test_wordings_that_differ_in_case_or_punctuation_share_a_split_for_every_seed():
    for seed in range(50):
        assert len(set(splits(["Why is the sky blue?", "why  is the SKY blue", "“Why is the sky blue”"], seed).values())) == 1


def test_a_dialogue_lies_where_its_first_question_does():
    assert opening(DIALOGUE).strip() == "Why is the sky blue?"
    assert group(DIALOGUE) == group("Why is the sky blue?") != group("And red?")
    assert group(DIALOGUE.replace("\n", "\r\n")) == group("Why is the sky blue?")
    assert opening("Say 'Human: hi'.\n\nAssistant: what?") == "Say 'Human: hi'.\n\nAssistant: what?"


def test_shares_are_met():
    counts = Counter(splits(map(str, range(10_000))).values())
    assert abs(counts["test"] - 3000) < 200 and abs(counts["validation"] - 2000) < 200


def test_shares_of_zero_leave_everything_in_train():
    assert set(splits(map(str, range(100)), validation=0, test=0).values()) == {"train"}


def test_another_seed_gives_other_splits():
    prompts = list(map(str, range(100)))
    assert splits(prompts, seed=1) != splits(prompts, seed=2)


def test_a_larger_test_share_takes_no_prompt_out_of_test():
    small, large = (splits(map(str, range(500)), validation=0, test=share) for share in (0.1, 0.4))
    assert {p for p, s in small.items() if s == "test"} < {p for p, s in large.items() if s == "test"}


def test_a_leak_is_refused_with_the_prompt_and_both_splits():
    with pytest.raises(InputError, match="'why is the sky blue' is in the splits train and test"):
        check_leaks(table(("How?", "train"), ("Why is the sky blue?", "train"), ("why is the sky blue", "test")))


def test_a_leak_across_tables_and_through_a_dialogue_is_refused():
    with pytest.raises(InputError, match="validation and test"):
        check_leaks(table(("Why is the sky blue?", "validation")), table((DIALOGUE, "test")).to_batches())


def test_a_prompt_may_occur_often_in_one_split():
    check_leaks(table(("Why?", "train"), ("why", "train"), ("How?", "test")))
