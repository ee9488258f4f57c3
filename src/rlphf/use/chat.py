"""A conversation with a finished run in the terminal, or through pipes: a question per line, an answer per line.

A question is asked behind the turns before it, or alone, as the questions were that the policies were trained on.
"""

import contextlib
import io
import os
import sys
import textwrap
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rlphf.errors import InputError
from rlphf.preferences import instruction, preference
from rlphf.progress import silent
from rlphf.seeds import derive
from rlphf.settings import Backbone, Decoding
from rlphf.soup.recipe import asked
from rlphf.testbed.language import PHRASINGS, topics
from rlphf.use.finished import PLAIN, RESULTS, finished_run, parse_soup, soup_text
from rlphf.use.sample import decoding_of

if TYPE_CHECKING:
    from rlphf.use.served import Answerer

# Turns that are remembered by a backbone that has seen conversations, which those trained in the DAG have not.
HISTORY = 8
# Characters of a line of what is told at length.
WIDTH = 100

HELP = """\
/soup P1A=0.5,P2B=0.5   answer with these policies, mixed by weights that sum to 1
/plain                  answer with the backbone alone
/prompt on|off          whether the soup's preferences are asked for behind the question, as in the paper
/new                    forget the turns before
/help                   this list
/quit                   leave, as Ctrl-D does; Ctrl-C stops an answer"""


class Chat:
    """What a conversation remembers: the soup, whether its preferences are asked for, and up to `history` turns before.

    `subjects` are what the model can be asked about, where it knows nothing else.
    """

    def __init__(
        self,
        served: "Answerer",
        known: list[str],
        weights: dict[str, float],
        decoding: Decoding,
        seed: int,
        history: int = 0,
        subjects: Sequence[str] = (),
    ):
        self.served, self.known, self.weights, self.subjects = served, known, weights, subjects
        self.decoding, self.seed = decoding, seed
        # (question, answer), the oldest first.
        self.turns: deque[tuple[str, str]] = deque(maxlen=history)
        self.prompted, self.count, self.over = True, 0, False

    @property
    def state(self) -> str:
        """The soup, what it is asked for, and how many turns are remembered of those that may be, in a line."""
        ids = asked(self.weights) if self.prompted else []
        kept = f", remembers {len(self.turns)} of {self.turns.maxlen} turns" if self.turns.maxlen else ""
        return f"{soup_text(self.weights)}, asked for {' '.join(ids) or 'nothing'}{kept}"

    @property
    def help(self) -> str:
        """The commands, what the preferences ask for that have a policy, and what can be asked."""
        asking = [f"{name}: {preference(name).prompt}" for name in self.known]
        parts = [HELP, "\n".join(["Policies:", *asking])]
        if self.subjects:
            example = PHRASINGS[0].format(topic=self.subjects[0])
            text = f'The model knows questions such as "{example}" alone, about: {", ".join(self.subjects)}.'
            parts.append(textwrap.fill(text, WIDTH, break_long_words=False))
        return "\n\n".join(parts)

    def command(self, line: str) -> str:
        """Do what a line that begins with "/" says; return what to tell. Raises InputError for a command that is none."""
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        if name == "/quit":
            self.over = True
            return ""
        if name == "/help":
            return self.help
        if name == "/soup" and rest:
            self.weights = parse_soup(rest, self.known)
        elif name == "/plain":
            self.weights = {}
        elif name == "/new" and not rest:
            self.turns.clear()
        elif name == "/prompt" and rest in ("on", "off"):
            self.prompted = rest == "on"
        else:
            raise InputError(f"{line}: is no command; /help lists them")
        return self.state

    def answer(self, question: str, tell: Callable[[str], None] = lambda more: None) -> str:
        """Return the answer to a question; `tell` gets its text as it comes. The same seed gives the same conversation.

        The preferences are asked for behind this question alone. A turn that is stopped is not remembered.
        """
        from rlphf.use.served import Stream

        stream = Stream(self.served.tokenizer)
        before = [text for turn in self.turns for text in turn]
        now = instruction(question, asked(self.weights) if self.prompted else [])
        turns = self.served.fitting((*before, now), self.decoding)
        seed = derive(self.seed, "chat", self.count)
        self.count += 1

        def hear(_: int, token: int) -> None:
            tell(shown(stream.add(token)))

        with silent():
            (found,) = self.served.answer([turns], [self.weights], self.decoding, seed, hear)
        tell(shown(stream.rest()))
        self.turns.append((question, found))
        return found


def history_of(backbone: Backbone, history: int | None) -> int:
    """Return how many turns are remembered: those given, or what suits the backbone; raise InputError for fewer than 0."""
    if history is not None and history < 0:
        raise InputError(f"--history {history}: expected 0, where each question stands alone, or more")
    return history if history is not None else 0 if backbone.source == "train" else HISTORY


def subjects_of(backbone: Backbone) -> list[str]:
    """Return what a backbone can be asked about, where it knows nothing else: the testbed's topics, if it was trained on them."""
    return sorted(topic.name for topic in topics().values()) if backbone.source == "train" else []


def shown(text: str) -> str:
    """Return a text without what commands a terminal."""
    return "".join(char for char in text if char.isprintable() or char in "\n\t")


def typed(line: str) -> str:
    """Return a line that was read without blanks around it and halves of characters, which no tokenizer takes."""
    return line.encode(errors="ignore").decode().strip()


def talk(chat: Chat, source: TextIO, out: TextIO, says: TextIO) -> None:
    """Answer the lines of a pipe, a line each, whatever bytes they hold; raise InputError for a command that is none."""
    for line in map(typed, source):
        if line.startswith("/"):
            said = chat.command(line)
            if chat.over:
                return
            print(said, file=says, flush=True)
        elif line:
            print(" ".join(shown(chat.answer(line)).split()), file=out, flush=True)


def converse(chat: Chat, out: TextIO, says: TextIO) -> None:
    """Ask for questions on a terminal until the end; Ctrl-C stops an answer, and leaves where nothing is being answered."""
    bold, plain = ("", "") if os.environ.get("NO_COLOR") else ("\033[1m", "\033[0m")
    print(f"{chat.state}; /help lists the commands{' and what can be asked' if chat.subjects else ''}", file=says)
    while not chat.over:
        # What does not print is marked, or line editing would count it.
        try:
            line = typed(input(f"\001{bold}\002> \001{plain}\002" if bold else "> "))
        except (EOFError, KeyboardInterrupt):
            print(file=out)
            return
        try:
            if line.startswith("/"):
                if said := chat.command(line):
                    print(said, file=says)
            elif line:
                chat.answer(line, lambda more: print(more, end="", file=out, flush=True))
                print(file=out)
        except KeyboardInterrupt:
            print(" ...", file=out)
        except InputError as error:
            print(error, file=says)


def chat_step(
    soup: str | None = None,
    history: int | None = None,
    results: Path | None = None,
    temperature: float | None = None,
    max_new_tokens: int | None = None,
    seed: int | None = None,
) -> None:
    """Answer questions with a soup of a finished run, mixed by weights from its policies, which all stay in memory.

    On a terminal it is a conversation; otherwise each line of standard input is a question, and its answer a line of standard
    output. `history` turns are remembered: unless given, none where the run trained its backbone, which it did on single turns.
    Decoding and seed are the run's own unless given. Raises InputError before a model is loaded.
    """
    run = finished_run(results or RESULTS)
    known = run.preferences
    weights = parse_soup(soup or PLAIN, known)
    remembered = history_of(run.experiment.backbone, history)
    decoding = decoding_of(run, temperature, max_new_tokens)
    # Imports torch and transformers, which bad input need not wait for.
    from rlphf.use.served import Answerer

    served = Answerer(run.backbone, {name: run.policy(name) for name in known})
    own_seed, subjects = run.experiment.seed if seed is None else seed, subjects_of(run.experiment.backbone)
    chat = Chat(served, known, weights, decoding, own_seed, remembered, subjects)
    if isinstance(sys.stdin, io.TextIOWrapper):
        # Bytes that are no text are marked, and the question is asked all the same.
        sys.stdin.reconfigure(errors="replace")
    if sys.stdin.isatty() and sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            # Lets `input` edit lines, and brings earlier ones back.
            import readline  # noqa: F401
        converse(chat, sys.stdout, sys.stderr)
    else:
        talk(chat, sys.stdin, sys.stdout, sys.stderr)
