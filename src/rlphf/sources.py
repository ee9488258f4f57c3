"""Digests of a step's own source code, so that Snakemake reruns a step when a module that it imports was edited."""

import ast
from functools import cache
from pathlib import Path

from rlphf.commands import COMMANDS
from rlphf.files import digest, sha256

ROOT = Path(__file__).parent.parent
UNCOUNTED = ("rlphf.tracking", "rlphf.config", "rlphf.settings", "rlphf.errors", "rlphf.cards", "rlphf.progress")
DATA = ("*.yaml", "*.txt", "*.html", "*.css", "*.js")


@cache
def _file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


@cache
def imports(module: str) -> frozenset[str]:
    """Return the modules of this package that a module imports anywhere in its text, `TYPE_CHECKING` blocks left out."""
    path = _file(module)
    if path is None:
        return frozenset()
    found: set[str] = set()
    skipped: set[ast.AST] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            skipped.update(child for statement in node.body for child in ast.walk(statement))
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(name for name in found if name.startswith("rlphf") and _file(name) is not None)


@cache
def closure(module: str) -> tuple[str, ...]:
    """Return the modules of this package that a module depends on, itself included, sorted.

    What computes nothing is left out, so that editing it repeats no experiment: the records of runs, bars, the
    words of model cards, and the configuration's models, whose values are parameters of the rules. What is made of these values
    is in `rlphf.derived`, which counts.
    """
    seen, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        if name not in seen and not name.startswith(UNCOUNTED):
            seen.add(name)
            waiting.extend(imports(name))
    return tuple(sorted(seen))


@cache
def source_digest(command: str) -> str:
    """Return a digest of all code, and of the data files beside it, that a command such as "soup all" runs."""
    (target,) = [c.target for c in COMMANDS if c.name == command]
    files = {path for module in closure(target.split(":")[0]) if (path := _file(module)) is not None}
    files |= {data for path in files for kind in DATA for data in path.parent.glob(kind)}
    return digest({path.relative_to(ROOT).as_posix(): sha256(path) for path in files})[:16]
