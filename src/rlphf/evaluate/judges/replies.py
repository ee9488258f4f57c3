"""What a language model is asked and replies: messages, verdicts in replies, and the folder in which replies are kept."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path

from rlphf.errors import InputError
from rlphf.evaluate.judges.templates.texts import again
from rlphf.files import digest, read_json, write_json
from rlphf.settings_evaluation import LLMJudge

Messages = list[dict[str, str]]

# A line that is a verdict and nothing else, apart from emphasis, brackets, quotes and a full stop around it.
_AROUND = r"[\s*_`\"'()\[\].]*"
_VERDICT = re.compile(rf"{_AROUND}(?:verdict{_AROUND}:)?{_AROUND}(a|b|tie){_AROUND}", re.IGNORECASE)
_MEANING = {"a": 1, "b": -1, "tie": 0}


@dataclass(frozen=True)
class Reply:
    """One reply of a judge, and what it used."""

    text: str
    prompt_tokens: int
    completion_tokens: int


def parse(reply: str) -> int | None:
    """Return the verdict of a reply's last line that is one: 1 for A, -1 for B, 0 for a tie; None if no line is."""
    found = [match[1].lower() for line in reply.splitlines() if (match := _VERDICT.fullmatch(line))]
    return _MEANING[found[-1]] if found else None


def messages(question: str, before: Reply | None = None) -> Messages:
    """Return what is sent to ask a question; after a reply without a verdict, it and a reminder of the form follow."""
    asked = [{"role": "user", "content": question}]
    if before is not None:
        # Chat templates may insist on turns, and servers on turns that say something.
        asked.append({"role": "assistant", "content": before.text.strip() or "..."})
        asked.append({"role": "user", "content": again()})
    return asked


def kept_as(settings: LLMJudge, sent: Messages, attempt: int) -> Path:
    """Return the file of a reply: its name is a digest of all that the reply depends on, address and key aside."""
    about = {"model": settings.model, "messages": sent, "temperature": settings.temperature}
    return Path(settings.cache) / f"{digest(about | {'max_tokens': settings.max_tokens, 'attempt': attempt})}.json"


def keep(path: Path, reply: Reply) -> None:
    """Write a reply atomically."""
    write_json(path, asdict(reply))


def kept(path: Path) -> Reply | None:
    """Return the reply in a file, None if there is no such file; raise InputError for one that holds no reply."""
    if not path.exists():
        return None
    stored = read_json(path)
    kinds = {"text": str, "prompt_tokens": int, "completion_tokens": int}
    if not isinstance(stored, dict) or {name: type(value) for name, value in stored.items()} != kinds:
        raise InputError(f"{path}: holds no judge's reply; remove the file, so that it is asked again")
    return Reply(**stored)
