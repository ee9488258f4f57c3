"""What a page claims of the repository, checked: each function returns faults as "line N: what", and none for a right page."""

import argparse
import ast
import io
import json
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from tests.docs.pages import Block, anchors, links, read_page, spans

from rlphf.cli import parser
from rlphf.config import Experiment, parse
from rlphf.errors import InputError
from rlphf.soup.recipe import Recipe

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "rlphf"
PROGRAMS = ("rlphf", "snakemake", "make", "python")
SHELL = ("", "sh", "bash", "console", "text")
# What a reader writes, and what commands write outside of results: named, and in no clone.
YOURS = {"config/experiments/mine.yaml", "config/mine.yaml"}
MADE = {"docs/benchmarks.md", "benchmarks/results.json"}
SOURCES = (".py", ".smk", ".md", ".ipynb", ".toml", ".lock", ".yml")


def check_links(path: Path) -> list[str]:
    """Links to files that are not there, or to headings that are in none."""
    faults = []
    for line, target in links(read_page(path.read_text(encoding="utf-8")).prose):
        file, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        aim = (path.parent / file).resolve() if file else path
        if not aim.exists():
            faults.append(f"line {line}: {target} is not there")
        elif anchor and anchor not in anchors(aim.read_text(encoding="utf-8")):
            faults.append(f"line {line}: {target}: no heading of that name")
    return faults


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
        known = own.is_dir() or own.with_suffix(".py").is_file() or words[1] in ("pytest", "pip", "venv", "snakemake")
        return [] if known else [f"no module {words[1]}"]
    file = next((word for word in words if word.endswith(".py")), None)
    return [f"{file} is not there"] if file and not (ROOT / file).is_file() else []


@cache
def _snakemake() -> Any:
    from snakemake.cli import get_argument_parser

    return get_argument_parser()


@cache
def _rules() -> set[str]:
    files = [ROOT / "Snakefile", *(ROOT / "workflow" / "rules").glob("*.smk")]
    return {name for path in files for name in re.findall(r"^rule (\w+):", path.read_text(encoding="utf-8"), re.MULTILINE)}


def _refused_by_snakemake(words: list[str]) -> list[str]:
    said = _said(_snakemake(), words)
    if said:
        return [said]
    given = _snakemake().parse_args(words)
    files = [str(path) for path in given.configfile or []] + [path for path in (given.workflow_profile, given.profile) if path]
    faults = [f"{file} is not there" for file in files if file not in YOURS and not (ROOT / file).exists()]
    faults += [f"no rule {name}" for name in given.targets or [] if "/" not in name and name not in _rules()]
    keys = [pair.split("=")[0] for pair in given.config or []]
    return faults + [f"no setting {key}" for key in keys if key not in Experiment.model_fields]


def check_settings(text: str, base: dict[str, Any]) -> list[str]:
    """Blocks of YAML that are no experiment over `base`, no profile and no recipe; lines of JSON that are none."""
    faults = []
    for block in read_page(text).blocks:
        try:
            fault = _settings_fault(block, base)
        except (ValueError, yaml.YAMLError) as error:
            fault = str(error).splitlines()[0]
        if fault:
            faults.append(f"line {block.line}: {fault}")
    return faults


def _settings_fault(block: Block, base: dict[str, Any]) -> str:
    if block.language == "json" or not block.language and block.text.startswith("{"):
        for line in block.text.splitlines() if block.text.startswith("{") and "\n" in block.text else [block.text]:
            json.loads(line)
        return ""
    looks = re.match(r"[a-z_-]+:(\s|$)", block.text) and not block.language
    if block.language not in ("yaml", "yml") and not looks:
        return ""
    value = yaml.safe_load(block.text)
    if not isinstance(value, dict):
        return "a list; expected an experiment, a profile or a recipe"
    if set(value) <= set(Recipe.model_fields):
        try:
            Recipe.model_validate(value)
        except ValidationError as error:
            return str(error)
        return ""
    if set(value) & set(Experiment.model_fields):
        try:
            parse(laid_over(base, value), "block")
        except InputError as error:
            return str(error)
        return ""
    options = {string.lstrip("-") for action in _snakemake()._actions for string in action.option_strings}
    odd = sorted(set(value) - options)
    return f"{odd[0]} is neither a setting of an experiment nor of a profile" if odd else ""


def laid_over(base: Any, change: Any) -> Any:
    """Return `base` with `change` over it, key by key, as Snakemake lays files over each other."""
    if not (isinstance(base, dict) and isinstance(change, dict)):
        return change
    return {**base, **{key: laid_over(base.get(key), value) for key, value in change.items()}}


def check_python(text: str) -> list[str]:
    """Blocks of Python that do not compile, or import from this package what it has not."""
    faults = []
    for block in read_page(text).blocks:
        if block.language not in ("python", "py"):
            continue
        try:
            tree = ast.parse(block.text)
        except SyntaxError as error:
            faults.append(f"line {block.line}: {error}")
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rlphf":
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names if alias.name.split(".")[0] == "rlphf"]
            else:
                continue
            faults += [f"line {block.line}: no {name}" for name in names if not _is_module(name) and not _defines(name)]
    return faults


def check_paths(text: str) -> list[str]:
    """Paths of the repository that are named and not there: in text as code, and in blocks."""
    page, faults = read_page(text), []
    for line, code in spans(page.prose):
        if re.fullmatch(r"[\w./*-]+", code) and _looks_like_ours(code) and not _is_there(code):
            faults.append(f"line {line}: {code} is not there")
    tops = "|".join(sorted(path.name for path in ROOT.iterdir() if path.is_dir() and path.name in _tops()))
    for block in page.blocks:
        for named in re.findall(rf"(?<![\w./-])((?:{tops})/[\w./-]+)", block.text):
            if not _is_there(named.rstrip(".")):
                faults.append(f"line {block.line}: {named} is not there")
    return faults


def _tops() -> tuple[str, ...]:
    return ("src", "config", "docs", "tests", "workflow", "notebooks", "benchmarks", ".ci")


def _looks_like_ours(code: str) -> bool:
    first = code.split("/")[0]
    if "..." in code or code.startswith("."):
        return code.startswith(".ci/")
    return ("/" in code and (first in _tops() or (PACKAGE / first).is_dir())) or Path(code).suffix in SOURCES


@cache
def _names() -> set[str]:
    return {path.name for top in _tops() for path in (ROOT / top).rglob("*") if path.is_file()}


def _is_there(code: str) -> bool:
    if code in YOURS | MADE:
        return True
    if "*" in code:
        return any(True for _ in ROOT.glob(code))
    return (ROOT / code).exists() or (PACKAGE / code).exists() or ("/" not in code and code in _names())


def check_names(text: str) -> list[str]:
    """What is not there of functions, named as module:function or as a dotted name, and of tests, named as pytest does."""
    faults = []
    for line, code in spans(read_page(text).prose):
        if re.fullmatch(r"rlphf(\.\w+)+(:\w+(\.\w+)*)?", code):
            if not _is_module(code) and not _defines(code.replace(":", ".")):
                faults.append(f"line {line}: no {code}")
        elif re.fullmatch(r"tests/[\w/]+\.py(::\w+)+", code):
            file, *names = code.split("::")
            if not (ROOT / file).is_file() or not _has(ROOT / file, names):
                faults.append(f"line {line}: no {code}")
    return faults


def _is_module(name: str) -> bool:
    path = PACKAGE.parent.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def _defines(name: str) -> bool:
    """Return whether a dotted name is that of something at the top of a module, or of what is in a class there."""
    parts = name.split(".")
    for i in range(len(parts) - 1, 0, -1):
        path = PACKAGE.parent.joinpath(*parts[:i]).with_suffix(".py")
        if path.is_file():
            return _has(path, parts[i:])
    return False


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _has(path: Path, names: list[str]) -> bool:
    body: list[ast.stmt] = _tree(path).body
    for name in names:
        found = [node for node in body if name in _named(node)]
        if not found:
            return False
        body = getattr(found[0], "body", []) if isinstance(found[0], ast.ClassDef) else []
    return True


def _named(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    aims = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {inner.id for aim in aims for inner in ast.walk(aim) if isinstance(inner, ast.Name)}
