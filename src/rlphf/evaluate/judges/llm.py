"""Judge "llm": a language model compares two responses, in both orders. What it replied is kept and not asked again."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from rlphf.config import load
from rlphf.errors import InputError
from rlphf.evaluate.judges.client import Client
from rlphf.evaluate.judges.comparisons import Question, questions, row, table_of
from rlphf.evaluate.judges.inputs import named, read_inputs
from rlphf.evaluate.judges.replies import Messages, Reply, keep, kept, kept_as, messages, parse
from rlphf.evaluate.judges.templates.texts import comparison
from rlphf.files import write_parquet
from rlphf.progress import bar
from rlphf.settings_evaluation import LLMJudge
from rlphf.tracking.record import step

# Comparisons between two entries in the metrics of a running step.
LOG_EVERY = 100


@dataclass
class Tally:
    """How far a run is, and what it asked and used; shared by the threads that ask."""

    settings: LLMJudge
    settled: int = 0
    asked: int = 0
    cached: int = 0
    retried: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    start: float = field(default_factory=time.monotonic)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def cost(self) -> float:
        """What the replies of this run cost, in the unit of the prices."""
        settings = self.settings
        return (self.prompt_tokens * settings.price_in + self.completion_tokens * settings.price_out) / 1e6

    def add(self, reply: Reply, retries: int) -> None:
        """Count a reply that was asked for."""
        with self.lock:
            self.asked += 1
            self.retried += retries
            self.prompt_tokens += reply.prompt_tokens
            self.completion_tokens += reply.completion_tokens

    def exhausted(self) -> str | None:
        """Return the limit that is reached, None if none is; what is under way by then still comes to its end."""
        settings = self.settings
        if settings.max_cost is not None and self.cost >= settings.max_cost:
            return f"max_cost: {settings.max_cost:g}"
        if settings.max_seconds is not None and time.monotonic() - self.start >= settings.max_seconds:
            return f"max_seconds: {settings.max_seconds:g}"
        return None

    def metrics(self) -> dict[str, float]:
        """Return what a step logs of it; tokens and cost are those of replies that were asked for, not of kept ones."""
        return {
            "replies_asked": self.asked,
            "replies_from_cache": self.cached,
            "retried": self.retried,
            "tokens_in": self.prompt_tokens,
            "tokens_out": self.completion_tokens,
            "cost": self.cost,
        }


@dataclass(frozen=True)
class Outcome:
    """Result of asking: `settled` with a verdict, settled without one (None), or not settled yet."""

    settled: bool
    verdict: int | None = None


Ask = Callable[[Path, Messages], Reply | None]
Log = Callable[[int], None]


def follow(settings: LLMJudge, text: str, ask: Ask) -> Outcome:
    """Ask a text until a reply has a verdict, at most `attempts` times; not settled where `ask` gives None.

    `ask` takes the file in which the reply is kept, and the messages.
    """
    before = None
    for attempt in range(settings.attempts):
        sent = messages(text, before)
        before = ask(kept_as(settings, sent, attempt), sent)
        if before is None:
            return Outcome(False)
        verdict = parse(before.text)
        if verdict is not None:
            return Outcome(True, verdict)
    return Outcome(True)


def outcomes(settings: LLMJudge, texts: Sequence[str], tally: Tally, log: Log | None = None) -> list[Outcome]:
    """Return the outcome of each text, from kept replies and, unless `replay` is on, from the server; equal texts are asked once.

    `log` is called with the number of settled texts now and then. Raises InputError when replies are missing in a replay, the
    server cannot be used, or a limit is reached; what was replied by then is kept.
    """

    def look_up(path: Path, _: Messages) -> Reply | None:
        reply = kept(path)
        tally.cached += reply is not None
        return reply

    found = {text: follow(settings, text, look_up) for text in dict.fromkeys(texts)}
    waiting = [text for text, outcome in found.items() if not outcome.settled]
    tally.settled = len(found) - len(waiting)
    if waiting and settings.replay:
        about = f"replies to {len(waiting)} of {len(found)} comparisons are missing"
        raise InputError(f"{settings.cache}: {about}; set evaluation.llm.replay to false to ask for them")
    if waiting:
        found |= _ask_all(settings, waiting, tally, log)
    if tally.settled < len(found):
        advice = "the replies so far are kept, raise the limit or run again to go on"
        raise InputError(
            f"evaluation.llm.{tally.exhausted()} is reached after {tally.settled} of {len(found)} comparisons; {advice}"
        )
    return [found[text] for text in texts]


def _ask_all(settings: LLMJudge, waiting: Sequence[str], tally: Tally, log: Log | None) -> dict[str, Outcome]:
    """Return {text: outcome}, asked for in `parallel` threads; which of them is first changes nothing."""
    client = Client(settings)

    def ask(path: Path, sent: Messages) -> Reply | None:
        reply = kept(path)
        if reply is None and tally.exhausted() is None:
            reply, retries = client.ask(sent)
            keep(path, reply)
            tally.add(reply, retries)
        return reply

    found = {}
    pool = ThreadPoolExecutor(settings.parallel)
    try:
        futures = {pool.submit(follow, settings, text, ask): text for text in waiting}
        with bar(len(futures), "comparisons") as done:
            for future in as_completed(futures):
                outcome = found[futures[future]] = future.result()
                tally.settled += outcome.settled
                if log is not None and outcome.settled and tally.settled % LOG_EVERY == 0:
                    log(tally.settled)
                done(1)
    finally:
        # After an error, what is under way comes to its end and is kept; the rest is not begun.
        pool.shutdown(cancel_futures=True)
        client.close()
    return found


def judge(settings: LLMJudge, asked: Sequence[Question], tally: Tally, log: Log | None = None) -> pa.Table:
    """Return the COMPARISONS table of all questions; raises InputError as `outcomes` does, and when too many are malformed."""
    texts = [comparison(question.prompt, question.criterion, *question.shown) for question in asked]
    found = outcomes(settings, texts, tally, log)
    rows = [row(question.columns, outcome.verdict) for question, outcome in zip(asked, found, strict=True)]
    malformed = sum(made["malformed"] for made in rows)
    if malformed > settings.max_malformed * len(rows):
        about = f"{malformed} of {len(rows)} comparisons have no verdict after {settings.attempts} attempts"
        advice = f"read the replies in {settings.cache}, and take another model or raise evaluation.llm.max_malformed"
        raise InputError(f"judge {settings.model}: {about}; {advice}")
    return table_of(rows)


def llm_step(config: Path, prompts: Path, responses: Sequence[Path], out: Path) -> None:
    """Write a language model's verdicts on all pairs of the paper's methods to `out`, in a folder of its own."""
    experiment = load(config)
    settings = experiment.evaluation.llm
    inputs = named(prompts, responses)
    tags = {"judge": "llm", "model": settings.model}
    with step("judge llm", out.parent, experiment, experiment.evaluation, inputs, tags) as run:
        asked = questions(experiment, *read_inputs(prompts, responses))
        tally = Tally(settings)
        try:
            table = judge(settings, asked, tally, lambda settled: run.log(tally.metrics(), settled))
        finally:
            run.log(tally.metrics(), tally.settled)
        run.log({"comparisons": table.num_rows, "malformed": sum(table["malformed"].to_pylist())})
        write_parquet(out, table)
        run.output(out)
