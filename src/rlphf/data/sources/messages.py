"""Pairs whose texts may be lists of messages {role, content}, as in most preference data sets on the Hugging Face hub.

ShareGPT's messages {from, value} are read as well, and a message alone as a list of one.
"""

from typing import Any

from rlphf.data.sources.raw import BadField, text
from rlphf.data.splits import dialogue

USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
# {their name of a role: ours} in messages that have these keys in place of "role" and "content".
SHAREGPT, SHAREGPT_KEYS = {"human": USER, "gpt": ASSISTANT, "system": SYSTEM}, {"from", "value"}
HAS_SYSTEM = "has a system message, which prompts do not hold"
_Turn = tuple[str, str]  # Role and text.


def is_messages(value: Any) -> bool:
    """Return whether a field holds a list of messages."""
    return isinstance(value, list) and bool(value) and all(map(_is_message, value))


def question(record: dict[str, Any], field: str) -> str | None:
    """Return the prompt out of a text or messages, or None if a system message says something; BadField for anything else."""
    turns = _turns(record, field, USER)
    return None if _has_system(turns) else _prompt(turns, field)


def parts(record: dict[str, Any], prompt: str | None, chosen: str, rejected: str) -> tuple[str, str, str] | None:
    """Return (prompt, chosen answer, rejected answer) out of three fields, or None if a system message says something.

    Each is a text or messages. Answers are an answer alone, or dialogues that share all but their last message and begin with
    the prompt; the prompt is then all that they share. `prompt` is None for a record without that field. Answers may be empty.
    Raises BadField for anything else.
    """
    asked = [] if prompt is None else _turns(record, prompt, USER)
    (*shared, good), (*other, bad) = (_turns(record, field, ASSISTANT) for field in (chosen, rejected))
    if shared != other:
        raise BadField(rejected, f"differs from {chosen} before the last message")
    if _has_system(asked + shared):
        return None
    if shared and shared[: len(asked)] != asked:
        raise BadField(chosen, f"is a dialogue that does not begin with {prompt}")
    if not asked and not shared:
        raise BadField(chosen, "has no message before the answer, and the record no prompt")
    return _prompt(shared or asked, chosen if shared else prompt or chosen), good[1], bad[1]


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and ({"role", "content"} <= value.keys() or SHAREGPT_KEYS <= value.keys())


def _has_system(turns: list[_Turn]) -> bool:
    return any(role == SYSTEM for role, _ in turns)


def _prompt(turns: list[_Turn], field: str) -> str:
    if [role for role, _ in turns] != [USER, ASSISTANT] * (len(turns) // 2) + [USER]:
        raise BadField(field, "user and assistant do not take turns before the answer, first and last the user")
    return dialogue([said for _, said in turns])


def _turns(record: dict[str, Any], field: str, role: str) -> list[_Turn]:
    """Return the turns of a field, which end with one of `role`; a text is one such turn. Empty system messages are left out."""
    may_be_blank = role == ASSISTANT
    messages = record.get(field)
    if _is_message(messages):
        messages = [messages]
    if not isinstance(messages, list):
        return [(role, text(record, field, blank=may_be_blank))]
    turns = []
    for n, message in enumerate(messages, 1):
        turn = _turn(message, n, field, may_be_blank and n == len(messages))
        if turn[1] or turn[0] != SYSTEM:
            turns.append(turn)
    if not turns:
        raise BadField(field, "has no message with a text")
    if turns[-1][0] != role:
        raise BadField(field, f"its last message is the {turns[-1][0]}'s, expected the {role}'s")
    return turns


def _turn(message: Any, n: int, field: str, may_be_blank: bool) -> _Turn:
    if not isinstance(message, dict):
        raise BadField(field, f"message {n}: expected an object with role and content, got {type(message).__name__}")
    if SHAREGPT_KEYS <= message.keys():
        named = message["from"]
        message = {"role": SHAREGPT.get(named, named) if isinstance(named, str) else named, "content": message["value"]}
    try:
        role = text(message, "role")
        if role not in (USER, ASSISTANT, SYSTEM):
            raise BadField("role", f"is {role[:40]!r}, expected {USER}, {ASSISTANT} or {SYSTEM}")
        return role, text(message, "content", blank=may_be_blank or role == SYSTEM)
    except BadField as error:
        raise BadField(field, f"message {n}, {error.field}: {error.reason}") from None
