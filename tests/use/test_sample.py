"""Answers to files of prompts: by the very soups that were named, alike every time, and refused before a model is loaded."""

import json
from pathlib import Path

import pytest
from tests.users.serving import greedy

from rlphf.cli import main
from rlphf.lm.backbone import load_backbone
from rlphf.preferences import instruction
from rlphf.soup.merge import save_soup
from rlphf.soup.recipe import make_recipe

QUESTIONS = ["What can you tell me about bees?", "Tell me about volcanoes.", "Explain tides to me."]


@pytest.fixture
def workplace(seed_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which `run` is the finished run and questions.txt has the QUESTIONS."""
    monkeypatch.chdir(tmp_path)
    Path("run").symlink_to(seed_folder)
    Path("questions.txt").write_text("\n".join(QUESTIONS))
    return tmp_path


def sampled(*arguments: str) -> list[dict[str, str]]:
    """Run the command on the questions; return what it wrote."""
    assert main(["sample", "--results", "run", "--prompts", "questions.txt", "--out", "out.jsonl", *arguments]) == 0
    return [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]


def test_the_backbone_and_soups_answer_side_by_side_as_each_would_alone(workplace):
    soups = ["plain", "P1A=1", "P1A=0.5,P3A=0.5"]
    rows = sampled("--soup", *soups)
    assert [(row["prompt"], row["soup"]) for row in rows] == [(text, soup) for text in QUESTIONS for soup in soups]
    assert all(set(row) == {"prompt", "soup", "answer"} for row in rows)
    for soup in soups:
        assert sampled("--soup", soup) == [row for row in rows if row["soup"] == soup]
    assert sampled() == [row for row in rows if row["soup"] == "plain"]
    assert len({row["answer"] for row in rows}) > len(QUESTIONS)


def test_one_seed_gives_the_same_bytes_and_another_one_others(workplace):
    texts = []
    for seed in ("3", "3", "4"):
        sampled("--soup", "P1B=0.7,P3A=0.3", "--temperature", "1", "--seed", seed)
        texts.append(Path("out.jsonl").read_bytes())
    assert texts[0] == texts[1] != texts[2]


def test_policies_mixed_by_weights_answer_as_their_merged_soup(workplace):
    paths = {name: f"run/ppo/{name}/adapter" for name in ("P1A", "P3A")}
    save_soup("soup", make_recipe({"P1A": 0.5, "P3A": 0.5}, paths))
    mixed = sampled("--soup", "P1A=0.5,P3A=0.5", "--soup", "P1A=1", "--soup-folder", "soup")
    answers = {name: [row["answer"] for row in mixed if row["soup"] == name] for name in ("P1A=0.5,P3A=0.5", "soup", "P1A=1")}
    assert answers["P1A=0.5,P3A=0.5"] == answers["soup"] != answers["P1A=1"]


def test_answers_are_those_of_the_model_asked_for_its_preferences(workplace, seed_folder):
    model, tokenizer = load_backbone(seed_folder / "backbone" / "model")
    (plain, *_) = sampled("--temperature", "0")
    assert plain["answer"] == greedy(model, tokenizer, QUESTIONS[0])
    from peft import PeftModel

    policy = PeftModel.from_pretrained(model, seed_folder / "ppo" / "P1A" / "adapter").eval()
    (asked, *_) = sampled("--soup", "P1A=1", "--temperature", "0")
    (bare, *_) = sampled("--soup", "P1A=1", "--temperature", "0", "--unprompted")
    assert asked["answer"] == greedy(policy, tokenizer, instruction(QUESTIONS[0], ["P1A"]))
    assert bare["answer"] == greedy(policy, tokenizer, QUESTIONS[0])


def test_an_answer_is_no_longer_than_asked(workplace):
    long, short = (sampled("--max-new-tokens", number, "--temperature", "0") for number in ("6", "2"))
    for row, other in zip(long, short, strict=True):
        assert row["answer"] != other["answer"] and row["answer"].startswith(other["answer"].rstrip("\ufffd"))


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--soup", "P1A=0.5"], "the weights sum to 0.5"),
        (["--soup", "P2A=1"], "this run has no policy of 'P2A'"),
        (["--temperature", "-1"], "--temperature -1: expected 0"),
        (["--temperature", "nan"], "--temperature nan: expected 0"),
        (["--max-new-tokens", "0"], "--max-new-tokens 0: expected 1"),
        (["--soup-folder", "none"], "none/recipe.yaml: cannot be read"),
        (
            ["--soup-folder", "run/ppo/P1A/adapter"],
            "adapter: has no recipe.yaml, so it is no soup; name a soup's folder, or a policy",
        ),
        (["--out", "run"], "run: is no file; give the file itself"),
        (["--results", "nowhere"], "nowhere: holds no finished run; run `make demo`"),
        (["--prompts", "none.csv"], "none.csv: no such file"),
    ],
)
def test_bad_input_is_one_line_and_no_output(workplace, capsys, monkeypatch, arguments, fault):
    monkeypatch.setattr("rlphf.lm.backbone.load_backbone", None)
    assert main(["sample", "--results", "run", "--prompts", "questions.txt", "--out", "out.jsonl", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.startswith("rlphf: error: ") and fault in said and said.count("\n") == 1
    assert not Path("out.jsonl").exists()


def test_a_prompt_that_leaves_no_room_in_the_context_is_refused_and_nothing_is_written(workplace, capsys):
    Path("questions.txt").write_text("Tell me about bees.\n" + "word " * 3000 + "end?\n")
    assert main(["sample", "--results", "run", "--prompts", "questions.txt", "--out", "out.jsonl"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("rlphf: error: 'word word ") and "tokens, and beside a response of" in said and "shorten it" in said
    assert not Path("out.jsonl").exists()
