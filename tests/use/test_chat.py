"""Conversations: through pipes and on a terminal, with commands that change the soup, and an answer that can be stopped."""

import io
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlphf.cli import main
from rlphf.errors import InputError
from rlphf.lm.chat import encode_prompts
from rlphf.preferences import instruction, preference
from rlphf.seeds import derive
from rlphf.settings import Backbone, Decoding
from rlphf.testbed.language import topics
from rlphf.use import chat as module
from rlphf.use.chat import HELP, HISTORY, Chat, converse, history_of, shown, subjects_of, talk
from rlphf.use.served import Answerer, Stream

ROOT = Path(__file__).parent.parent.parent
QUESTION = "Tell me about volcanoes."
DECODING = Decoding(temperature=1.0, max_new_tokens=12)


@pytest.fixture(scope="module")
def served(seed_folder: Path) -> Answerer:
    names = ("P1A", "P1B", "P3A")
    return Answerer(seed_folder / "backbone" / "model", {name: seed_folder / "ppo" / name / "adapter" for name in names})


@pytest.fixture
def chat(served: Answerer) -> Chat:
    return Chat(served, served.names, {"P1A": 0.5, "P3A": 0.5}, DECODING, seed=3)


def test_an_answer_comes_in_pieces_and_is_that_of_the_soup(chat, served):
    pieces: list[str] = []
    found = chat.answer(QUESTION, pieces.append)
    assert len([piece for piece in pieces if piece]) > 3 and "".join(pieces).strip() == found
    text, seed = instruction(QUESTION, ["P1A", "P3A"]), derive(3, "chat", 0)
    assert served.answer([text], [{"P1A": 0.5, "P3A": 0.5}], DECODING, seed) == [found]


def test_the_same_seed_gives_the_same_conversation(chat, served):
    again = Chat(served, served.names, {"P1A": 0.5, "P3A": 0.5}, DECODING, seed=3)
    assert [chat.answer(QUESTION) for _ in range(3)] == [again.answer(QUESTION) for _ in range(3)]


def test_commands_change_the_soup_and_what_is_asked(chat):
    assert chat.command("/soup P1B=1") == "P1B=1, asked for P1B" and chat.weights == {"P1B": 1.0}
    assert chat.command("/prompt off") == "P1B=1, asked for nothing" and not chat.prompted
    assert chat.command("/prompt on") == "P1B=1, asked for P1B"
    assert chat.command("/plain") == "plain, asked for nothing" and chat.weights == {}
    assert chat.command("/help").startswith(HELP)
    assert chat.command("/quit") == "" and chat.over


def test_help_tells_what_the_policies_are_for_and_what_can_be_asked(served):
    said = {}
    for source in ("train", "hub"):
        subjects = subjects_of(Backbone(source=source, name="a/b"))
        said[source] = Chat(served, served.names, {}, DECODING, seed=3, subjects=subjects).command("/help")
        assert said[source].startswith(HELP) and f"\nP1A: {preference('P1A').prompt}\n" in said[source]
    # What the testbed's model was trained on is all that it can be asked; others can be asked anything.
    asked_about = said["train"].removeprefix(said["hub"]).split("about: ")[1].rstrip(".").replace("\n", " ").split(", ")
    assert asked_about == sorted(topic.name for topic in topics().values()) and "volcanoes" in asked_about
    assert max(map(len, said["train"].splitlines())) <= 110 and "volcanoes" not in said["hub"]


@pytest.mark.parametrize(
    "line", ["/soup", "/soup P1A=2", "/soup P2A=1", "/prompt", "/prompt maybe", "/new one", "/sup P1A=1", "/"]
)
def test_a_command_that_is_none_changes_nothing(chat, line):
    before = chat.state
    with pytest.raises(InputError):
        chat.command(line)
    assert chat.state == before


def test_the_soups_answer_differs_from_the_backbones(chat):
    chat.decoding = Decoding(temperature=0.0, max_new_tokens=12)
    own = chat.answer(QUESTION)
    chat.command("/plain")
    assert chat.answer(QUESTION) != own


@pytest.fixture
def asked(served: Answerer, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What the model is asked from here on, conversation by conversation; it answers "Answer 1.", "Answer 2." and so on."""
    found: list[tuple[str, ...]] = []

    def answer(questions: list[tuple[str, ...]], *_: object) -> list[str]:
        found.extend(questions)
        return [f"Answer {len(found)}."]

    monkeypatch.setattr(served, "answer", answer)
    return found


def remembering(served: Answerer, history: int) -> Chat:
    return Chat(served, served.names, {"P1A": 1.0}, DECODING, seed=3, history=history)


def wanted(question: str) -> str:
    return instruction(question, ["P1A"])


def test_a_question_is_asked_behind_the_last_turns_and_preferences_behind_it_alone(served, asked):
    chat = remembering(served, 2)
    for question in ("One?", "Two?", "Three?", "Four?"):
        chat.answer(question)
    assert asked[0] == (wanted("One?"),)
    assert asked[1] == ("One?", "Answer 1.", wanted("Two?"))
    assert asked[3] == ("Two?", "Answer 2.", "Three?", "Answer 3.", wanted("Four?"))


def test_new_begins_anew(served, asked):
    chat = remembering(served, 2)
    chat.answer("One?")
    assert chat.state == "P1A=1, asked for P1A, remembers 1 of 2 turns"
    assert chat.command("/new") == "P1A=1, asked for P1A, remembers 0 of 2 turns"
    chat.answer("Two?")
    assert asked[1] == (wanted("Two?"),)


def test_without_a_history_each_question_stands_alone(chat, asked):
    chat.weights = {"P1A": 1.0}
    for question in ("One?", "Two?"):
        chat.answer(question)
    assert asked == [(wanted("One?"),), (wanted("Two?"),)]


def test_what_was_said_before_changes_the_answer(served):
    greedy = Decoding(temperature=0.0, max_new_tokens=12)
    answers = []
    for history in (0, 1):
        chat = Chat(served, served.names, {"P1A": 1.0}, greedy, seed=3, history=history)
        answers.append([chat.answer(QUESTION), chat.answer("And honey?")])
    assert answers[0][0] == answers[1][0] and answers[0][1] != answers[1][1]


def test_a_full_context_loses_the_oldest_turns_and_never_the_question(served, monkeypatch):
    turns = ("One?", "First.", "Two?", "Second.", "Three?")
    sizes = [len(encode_prompts(served.tokenizer, [turns[start:]])[0]) for start in (0, 2, 4)]
    for size, kept in ((sizes[0], turns), (sizes[0] - 1, turns[2:]), (sizes[1] - 1, turns[4:]), (1, turns[4:])):
        monkeypatch.setattr(served.model.config, "max_position_embeddings", size + DECODING.max_new_tokens)
        assert served.fitting(turns, DECODING) == kept


def test_a_turn_that_was_stopped_is_not_remembered(served, monkeypatch):
    chat = remembering(served, 2)

    def stopped(*_: object) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(served, "answer", stopped)
    with pytest.raises(KeyboardInterrupt):
        chat.answer("One?")
    assert not chat.turns


def test_only_a_backbone_that_has_seen_conversations_remembers_turns_unless_told():
    assert history_of(Backbone(source="train"), None) == 0
    assert [history_of(Backbone(source="hub", name="a/b"), history) for history in (None, 0, 3)] == [HISTORY, 0, 3]
    assert history_of(Backbone(), 3) == 3


def test_a_history_of_less_than_nothing_is_refused(seed_folder, capsys):
    assert main(["chat", "--results", str(seed_folder), "--history", "-1"]) == 2
    assert capsys.readouterr().err == "rlphf: error: --history -1: expected 0, where each question stands alone, or more\n"


def test_the_option_reaches_the_conversation(seed_folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("/plain\n"))
    assert main(["chat", "--results", str(seed_folder), "--history", "4"]) == 0
    assert capsys.readouterr().err == "plain, asked for nothing, remembers 0 of 4 turns\n"


def test_a_pipe_gets_a_line_for_each_question_and_nothing_else(chat):
    out, says = io.StringIO(), io.StringIO()
    talk(chat, io.StringIO(f"{QUESTION}\n\n/soup P1B=1\n{QUESTION}\n/quit\n{QUESTION}\n"), out, says)
    assert len(out.getvalue().splitlines()) == 2 and "\033" not in out.getvalue()
    assert says.getvalue() == "P1B=1, asked for P1B\n"


def test_a_bad_command_in_a_pipe_ends_it(chat):
    with pytest.raises(InputError, match="/sup: is no command; /help lists them"):
        talk(chat, io.StringIO("/sup\n"), io.StringIO(), io.StringIO())


def test_ctrl_c_stops_an_answer_and_leaves_at_the_prompt(chat, monkeypatch):
    lines = iter([QUESTION, "/soup P1A=3", "/plain"])

    def typed(prompt: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise KeyboardInterrupt from None

    def stopped(*_: object) -> str:
        raise KeyboardInterrupt

    out, says = io.StringIO(), io.StringIO()
    monkeypatch.setattr("builtins.input", typed)
    monkeypatch.setattr(chat.served, "answer", stopped)
    converse(chat, out, says)
    assert out.getvalue() == " ...\n\n"
    assert "the weights sum to 3" in says.getvalue() and says.getvalue().endswith("plain, asked for nothing\n")


def test_what_is_said_commands_no_terminal():
    assert shown("a\033[2Jb\n\tc\x07") == "a[2Jb\n\tc"


def test_a_stream_waits_for_whole_characters(served):
    text = "Caffè, naïve. "
    ids = served.tokenizer(text, add_special_tokens=False)["input_ids"]
    stream = Stream(served.tokenizer)
    pieces = [stream.add(token) for token in [*ids, served.tokenizer.eos_token_id]]
    assert "".join(pieces) == text and "\ufffd" not in "".join(pieces)


def test_without_a_run_the_command_says_what_to_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "RESULTS", Path("results/demo"))
    assert main(["chat", "--soup", "P1A=1"]) == 2
    assert capsys.readouterr().err == (
        "rlphf: error: results/demo: holds no finished run; run `make demo` first, or name another folder with --results\n"
    )


def command(seed_folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "rlphf.cli", "chat", "--results", str(seed_folder), *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


def test_the_command_reads_a_pipe(seed_folder, monkeypatch, capsys):
    said = []
    for seed in ("1", "1", "2"):
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{QUESTION}\n{QUESTION}\n"))
        arguments = ["--temperature", "1", "--max-new-tokens", "9"]
        assert main(["chat", "--results", str(seed_folder), "--soup", "P1A=1", "--seed", seed, *arguments]) == 0
        shown = capsys.readouterr()
        assert len(shown.out.splitlines()) == 2 and shown.err == ""
        said.append(shown.out)
    assert said[0] == said[1] != said[2]


def test_bytes_that_are_no_text_are_asked_all_the_same(seed_folder, monkeypatch, capsys):
    piped = io.TextIOWrapper(io.BytesIO(b"Tell me\xff about \xe2\x82 honey.\n"), encoding="utf-8", errors="strict")
    monkeypatch.setattr(sys, "stdin", piped)
    assert main(["chat", "--results", str(seed_folder), "--max-new-tokens", "3"]) == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 1 and shown.err == ""


def test_halves_of_characters_are_left_out(served, asked, monkeypatch):
    chat, out = remembering(served, 0), io.StringIO()
    talk(chat, io.StringIO("One\udcff?\n\udcff \n"), out, io.StringIO())
    lines = iter(["Two\ud800?", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    converse(chat, out, io.StringIO())
    assert asked == [(wanted("One?"),), (wanted("Two?"),)]


def test_ctrl_c_ends_a_pipe_without_a_traceback(seed_folder):
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    with subprocess.Popen(command(seed_folder, "--max-new-tokens", "2"), env=environment(), text=True, **pipes) as process:
        process.stdin.write(f"{QUESTION}\n")
        process.stdin.flush()
        assert process.stdout.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == -signal.SIGINT
        assert process.stderr.read() == ""


def test_a_terminal_is_talked_to_and_ctrl_c_stops_one_answer(seed_folder):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(seed_folder, "--soup", "P1A=1", "--max-new-tokens", "200000", "--temperature", "1"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**environment(), "NO_COLOR": "1"},
        start_new_session=True,
    )
    os.close(theirs)
    seen = ""

    def until(text: str, seconds: float = 60) -> None:
        nonlocal seen
        end = time.monotonic() + seconds
        while text not in seen:
            assert time.monotonic() < end, seen
            if select.select([ours], [], [], 0.2)[0]:
                seen += os.read(ours, 4096).decode(errors="replace")

    try:
        until("> ")
        assert "P1A=1, asked for P1A; /help lists the commands and what can be asked" in seen
        seen = ""
        os.write(ours, f"{QUESTION}\n".encode())
        until("\n")
        until("\n" + seen.partition("\n")[2][:1])
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        until("...")
        until("> ")
        seen = ""
        os.write(ours, b"/quit\n")
        assert process.wait(30) == 0
    finally:
        process.kill()
        os.close(ours)
