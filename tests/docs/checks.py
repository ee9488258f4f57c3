"""What a page claims of the repository, checked: each function returns faults as "line N: what", and none for a right page."""

import ast
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from tests.docs.commands import ROOT, YOURS, snakemake_parser
from tests.docs.pages import Block, anchors, links, read_page, spans

from rlphf.config import Experiment, parse
from rlphf.errors import InputError
from rlphf.evaluate.schemas import SCHEMAS
from rlphf.settings import Section
from rlphf.soup.recipe import Recipe

PACKAGE = ROOT / "src" / "rlphf"
# What commands write outside of results, and a clone may lack.
MADE = {"docs/benchmarks.md", "benchmarks/results.json"}
FILES = ("json", "jsonl", "parquet", "csv", "yaml", "txt")
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
        # One object, or one a line.
        for text in block.text.splitlines() if block.text.count("\n{") else [block.text]:
            json.loads(text)
        return ""
    # A message of ours has a colon, too.
    looks = not block.language and re.match(r"[a-z_-]+:(\s|$)", block.text) and not block.text.startswith("rlphf:")
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
    options = {string.lstrip("-") for action in snakemake_parser()._actions for string in action.option_strings}
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
    """Settings ("ppo.lam"), functions (module:function, or a dotted name) and tests (as pytest names them) that are not there."""
    faults = []
    for line, code in spans(read_page(text).prose):
        if _is_key(code) and not _setting(code.partition(":")[0].split(".")):
            faults.append(f"line {line}: no setting {code}")
        elif re.fullmatch(r"rlphf(\.\w+)+(:\w+(\.\w+)*)?", code):
            if not _is_module(code) and not _defines(code.replace(":", ".")):
                faults.append(f"line {line}: no {code}")
        elif re.fullmatch(r"tests/[\w/]+\.py(::\w+)+", code):
            file, *names = code.split("::")
            if not (ROOT / file).is_file() or not _has(ROOT / file, names):
                faults.append(f"line {line}: no {code}")
    return faults


def _is_key(code: str) -> bool:
    """Return whether what is code names a setting of a section, maybe with a value: "ppo.keep: best"."""
    key = re.fullmatch(r"([a-z_]+)\.[a-z_.]*?([a-z_]+)(: .+)?", code)
    return bool(key) and key[1] in Experiment.model_fields and key[2] not in (*FILES, "py", "md")


def _setting(parts: list[str]) -> bool:
    here: Any = Experiment
    for part in parts:
        if not (isinstance(here, type) and issubclass(here, Section)) or part not in here.model_fields:
            return False
        here = here.model_fields[part].annotation
    return True


def check_results(text: str) -> list[str]:
    """Tables and figures of results that are named ("tables `matrix` and `averages`") and that no run makes."""
    names = r"((?:`\w+`(?:,?\s+and\s+|,\s+)?)+)"
    prose, faults = read_page(text).prose, []
    for match in re.finditer(rf"\b((?:tables?|figures?)(?: and (?:tables?|figures?))?)\s+{names}", prose, re.IGNORECASE):
        kinds = match[1].lower()
        known = [made for kind, made in (("table", set(SCHEMAS)), ("figure", _figures())) if kind in kinds]
        for name in re.findall(r"`(\w+)`", match[2]):
            if not all(name in made for made in known):
                faults.append(f"line {prose.count(chr(10), 0, match.start()) + 1}: no {kinds} {name}")
    return faults


@cache
def _figures() -> set[str]:
    rules = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    return {
        name
        for names in re.findall(r'^(?:USER_)?FIGURE(?:S|_NAMES) = "([\w ]+)"\.split', rules, re.MULTILINE)
        for name in names.split()
    }


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
