"""Claims about verdicts in replies, and about the folder of replies."""

import json

import pytest

from rlphf.errors import InputError
from rlphf.evaluate.judges.replies import Reply, keep, kept, kept_as, messages, parse
from rlphf.settings_evaluation import LLMJudge


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("Verdict: A", 1),
        ("Verdict: B", -1),
        ("Verdict: TIE", 0),
        ("verdict: a", 1),
        ("A", 1),
        ("(B)", -1),
        ("**Verdict: TIE**", 0),
        ("**Verdict:** B", -1),
        ("_Verdict_: `A`.", 1),
        ('"Verdict: Tie"', 0),
        ("[[B]]", -1),
        ("A is simpler.\n\nVerdict: A\n", 1),
        ("Verdict: A\nNo, wait.\nVerdict: B", -1),
        ("Verdict: B\nI hope that this helps.", -1),
        ("<think>\nA\n</think>\r\nVerdict: TIE\r\n", 0),
        ("", None),
        ("   \n", None),
        ("Both are fine.", None),
        ("Verdict: A or B", None),
        ("Verdict:", None),
        ("Verdict: C", None),
        ("The verdict is A", None),
        ("A:", None),
        ("A TIE", None),
        ("AB", None),
        ("tied", None),
        ("a good answer", None),
    ],
)
def test_the_last_line_that_is_a_verdict_counts(reply, verdict):
    assert parse(reply) == verdict


def test_a_question_is_asked_again_with_what_was_replied_and_a_reminder():
    assert messages("Which?") == [{"role": "user", "content": "Which?"}]
    again = messages("Which?", Reply("  Both. \n", 1, 1))
    assert [m["role"] for m in again] == ["user", "assistant", "user"]
    assert [m["content"] for m in again[:2]] == ["Which?", "Both."] and "Verdict: TIE" in again[2]["content"]
    assert messages("Which?", Reply("", 1, 0))[1]["content"].strip()


def test_a_reply_is_named_after_all_that_it_depends_on(tmp_path):
    def name(attempt=0, question="Which?", **settings):
        return kept_as(LLMJudge(cache=str(tmp_path), **settings), messages(question), attempt)

    others = [name(1), name(question="Who?"), name(model="m"), name(temperature=0.5), name(max_tokens=9)]
    assert len({name(), *others}) == 6
    # Where the server is and how hard it is tried change nothing.
    assert name() == name(base_url="http://elsewhere/v1", key_variable="MINE", parallel=9, max_retries=0, attempts=9)
    assert name().parent == tmp_path


def test_a_kept_reply_reads_back_and_holds_nothing_else(tmp_path):
    path = tmp_path / "new" / "reply.json"
    assert kept(path) is None
    keep(path, Reply("Größe.\nVerdict: A", 12, 3))
    assert kept(path) == Reply("Größe.\nVerdict: A", 12, 3)
    assert set(json.loads(path.read_text())) == {"text", "prompt_tokens", "completion_tokens"}
    assert [p.name for p in path.parent.iterdir()] == ["reply.json"]


@pytest.mark.parametrize("text", ["{", "[]", '{"text": "A"}', '{"text": 1, "prompt_tokens": 1, "completion_tokens": 1}'])
def test_a_broken_reply_is_named(tmp_path, text):
    (tmp_path / "reply.json").write_text(text)
    with pytest.raises(InputError, match="reply.json: "):
        kept(tmp_path / "reply.json")
