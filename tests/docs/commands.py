"""Command lines on a page, checked against the programs that they start: ours, Snakemake, make and Python."""

import argparse
import io
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.docs.pages import read_page, spans

from rlphf.cli import parser
from rlphf.config import Experiment

ROOT = Path(__file__).parents[2]
PROGRAMS = ("rlphf", "snakemake", "make", "python")
SHELL = ("", "sh", "bash", "console", "text")
# What a reader writes: named, and in no clone.
YOURS = {"config/experiments/mine.yaml", "site.yaml"}


def check_commands(text: str) -> list[str]:
    """Command lines of ours, Snakemake's, make's and Python's that their programs would refuse.

    Those in blocks have to be whole; within a line of text they may leave out what is needed, and end with "...".
    """
    page, faults = read_page(text), []
    for block in page.blocks:
        if block.language in SHELL:
            lines = block.text.replace("\\\n", "  ").split("\n")
            faults += [f"line {block.line}: {fault}" for line in lines for fault in command_faults(line, whole=True)]
    for line, code in spans(page.prose):
        faults += [f"line {line}: {fault}" for fault in command_faults(code, whole=False)]
    return faults


def command_faults(line: str, whole: bool) -> list[str]:
    """Return what is wrong with a line of a shell; nothing where it starts none of the programs."""
    try:
        words = [word for word in shlex.split(line, comments=True) if word != "..."]
    except ValueError:
        # A sentence with an apostrophe, or a table.
        started = line.split()[:1]
        return [f"{line}: a quote is not closed"] if started and started[0] in PROGRAMS else []
    commands: list[list[str]] = [[]]
    for word in words:
        if word in ("&&", "||", ";", "|", "&"):
            commands.append([])
        else:
            commands[-1].append(word)
    return [f"{line.strip()}: {fault}" for command in commands for fault in _refused(command, whole)]


def _refused(words: list[str], whole: bool) -> list[str]:
    while words and (re.match(r"[A-Z_]+=", words[0]) or words[0] == "$"):
        words = words[1:]
    if not words or Path(words[0]).name not in PROGRAMS:
        return []
    program, words = Path(words[0]).name, words[1:]
    if ">" in words:
        words = words[: words.index(">")]
    if program == "make":
        return _refused_by_make(words)
    if program == "python":
        return _refused_by_python(words)
    if program == "snakemake":
        return _refused_by_snakemake(words)
    said = _said(_ours(whole), words)
    return [said] if said else []


@cache
def _ours(whole: bool) -> argparse.ArgumentParser:
    """Return the parser of `rlphf`; where a command need not be whole, one to which nothing is required."""
    top = parser()
    waiting = [] if whole else [top]
    while waiting:
        for action in waiting.pop()._actions:
            action.required = False
            if isinstance(action, argparse._SubParsersAction):
                waiting += action.choices.values()
    return top


def _said(arguments: Any, words: list[str]) -> str:
    """Return why a parser refuses words; "" where it does not."""
    errors = io.StringIO()
    try:
        with redirect_stderr(errors), redirect_stdout(io.StringIO()):
            arguments.parse_args(words)
    except SystemExit as end:
        return "" if end.code in (0, None) else errors.getvalue().strip().splitlines()[-1]
    return ""


def _refused_by_make(words: list[str]) -> list[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    faults = [
        f"the Makefile has no target {word}" for word in words if "=" not in word and word[0] != "-" and word not in targets
    ]
    named = [word.split("=")[0] for word in words if "=" in word and word[0] != "-"]
    return faults + [f"the Makefile reads no {name}" for name in named if f"$({name})" not in makefile]


def _refused_by_python(words: list[str]) -> list[str]:
    if words[:1] == ["-m"] and words[1:]:
        own = ROOT.joinpath(*words[1].split("."))
        known = own.is_dir() or own.with_suffix(".py").is_file() or find_spec(words[1].split(".")[0]) is not None
        return [] if known else [f"no module {words[1]}"]
    file = next((word for word in words if word.endswith(".py")), None)
    return [f"{file} is not there"] if file and not (ROOT / file).is_file() else []


@cache
def snakemake_parser() -> Any:
    """Return the parser of Snakemake's command line."""
    from snakemake.cli import get_argument_parser

    return get_argument_parser()


@cache
def _rules() -> set[str]:
    files = [ROOT / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")]
    return {name for path in files for name in re.findall(r"^rule (\w+):", path.read_text(encoding="utf-8"), re.MULTILINE)}


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value] if value else []


def _refused_by_snakemake(words: list[str]) -> list[str]:
    said = _said(snakemake_parser(), words)
    if said:
        return [said]
    given = snakemake_parser().parse_args(words)
    profiles = [*_listed(given.workflow_profile), *_listed(given.profile)]
    files = [*map(str, given.configfile or []), *profiles]
    faults = [f"{file} is not there" for file in files if file not in YOURS and not (ROOT / file).exists()]
    faults += [f"no rule {name}" for name in given.targets or [] if "/" not in name and name not in _rules()]
    keys = [pair.split("=")[0] for pair in given.config or []]
    return faults + [f"no setting {key}" for key in keys if key not in Experiment.model_fields]
