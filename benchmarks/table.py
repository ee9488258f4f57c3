"""What benchmarks find: figures and rows, kept as JSON, and the Markdown page that is made of them."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

import yaml

from benchmarks.harness import ROOT
from rlphf.files import read_json, write_json, write_text

RESULTS = ROOT / "benchmarks" / "results.json"
# Why figures fall short of their targets, {row: text}: the one part of the page that is written by hand.
REASONS = ROOT / "benchmarks" / "reasons.yaml"
PAGE = ROOT / "docs" / "benchmarks.md"
INTRODUCTION = """# Benchmarks

Written by `make bench`, which measures both sides in turn in one run, each in a process of its own. Given are medians over the
rounds, with the least and the greatest in brackets. Memory is the peak of the whole process, libraries included, in MB of 2**20
bytes; on a GPU it is the peak of what torch allocated there. A floor is what the measured rates of the same machine allow at
best: bytes over bandwidth, multiply-adds over the rate of matrix products.
"""
HEAD = ("what", "ours", "against", "theirs", "ours / theirs", "target", "reached", "floor")


@dataclass(frozen=True)
class Target:
    """What a figure must reach: `of` it (the ratio to the other side, or our own value) `at` least or most `limit`."""

    at: Literal["least", "most"]
    limit: float
    of: Literal["ratio", "ours"] = "ratio"

    def reached(self, value: float) -> bool:
        """Return whether a value reaches the target."""
        return value >= self.limit if self.at == "least" else value <= self.limit

    def text(self, unit: str) -> str:
        """Return the target for a reader."""
        return f"at {self.at} {number(self.limit)}{'x' if self.of == 'ratio' else f' {unit}'}"


@dataclass(frozen=True)
class Figure:
    """One measured quantity: `ours` and `theirs` hold a value per round, in `unit`; `against` names the other side.

    `floor` is the best that the machine allows, in `unit`, and `bound` says what bounds it.
    """

    name: str
    unit: str
    ours: list[float]
    against: str = ""
    theirs: list[float] | None = None
    target: Target | None = None
    floor: float | None = None
    bound: str = ""

    @property
    def ratios(self) -> list[float]:
        """Ours over theirs in each round; [] where there is no other side."""
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)] if self.theirs else []

    @property
    def ratio(self) -> float | None:
        """The median of these."""
        return median(self.ratios) if self.ratios else None

    @property
    def reached(self) -> str:
        """Whether the target is reached: yes, no, or in how many of the rounds; "" without one."""
        values = self.ratios if self.target and self.target.of == "ratio" else self.ours
        if self.target is None or not values:
            return ""
        reached = sum(self.target.reached(value) for value in values)
        return "yes" if reached == len(values) else "no" if not reached else f"in {reached} of {len(values)} rounds"

    def cells(self) -> tuple[str, ...]:
        """Return the figure's row of the table."""
        ratio = f"{number(self.ratio)}x" if self.ratio is not None else ""
        floor = f"{number(self.floor)} ({self.bound})" if self.floor is not None else ""
        theirs = spread(self.theirs) if self.theirs else ""
        name = f"{self.name}, {self.unit}"
        target = self.target.text(self.unit) if self.target else ""
        return name, spread(self.ours), self.against, theirs, ratio, target, self.reached, floor


@dataclass(frozen=True)
class Row:
    """A benchmark of one model or size: its figures, and all that they depend on.

    `missing` says why nothing was measured; `differs` what the sides do not do alike.
    """

    name: str
    title: str
    figures: list[Figure] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    differs: list[str] = field(default_factory=list)
    missing: str | None = None


def number(value: float) -> str:
    """Return a number with three digits that count, and all of them before the point."""
    return f"{value:,.0f}".replace(",", " ") if abs(value) >= 100 else f"{value:.3g}"


def spread(values: list[float]) -> str:
    """Return the median, with least and greatest where there are several values."""
    return number(median(values)) + (f" ({number(min(values))} to {number(max(values))})" if len(values) > 1 else "")


def store(row: Row, results: Path = RESULTS) -> None:
    """Put a row among the results, in place of the one of its name."""
    rows = {**(read_json(results) if results.exists() else {}), row.name: asdict(row)}
    write_json(results, rows)


def stored(results: Path = RESULTS) -> list[Row]:
    """Return the rows of a file of results in the order of their names."""
    rows = read_json(results) if results.exists() else {}
    return [_row(rows[name]) for name in sorted(rows)]


def write_page(results: Path = RESULTS, reasons: Path = REASONS, page: Path = PAGE) -> None:
    """Write the page of all rows: the table first, then what each row was measured with."""
    given = (yaml.safe_load(reasons.read_text(encoding="utf-8")) if reasons.exists() else None) or {}
    rows = stored(results)
    lines = [INTRODUCTION, _line(HEAD), _line(["---"] * len(HEAD))]
    for row in rows:
        if row.missing:
            lines.append(_line([row.title, f"not measured: {row.missing}", *[""] * (len(HEAD) - 2)]))
        for figure in row.figures:
            what, *rest = figure.cells()
            lines.append(_line([f"{row.title}: {what}", *rest]))
    for row in rows:
        lines += ["", *_details(row, given.get(row.name))] if row.figures else []
    write_text(page, "\n".join(lines) + "\n")


def _row(stored: dict[str, Any]) -> Row:
    figures = [Figure(**{**f, "target": Target(**f["target"]) if f["target"] else None}) for f in stored["figures"]]
    return Row(**{**stored, "figures": figures})


def _line(cells: Any) -> str:
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"


def _details(row: Row, reason: str | None) -> list[str]:
    lines = [f"## {row.title}", ""]
    lines += [f"- {name}: {_listed(values)}" for name, values in (("Measured", row.settings), ("Machine", row.machine))]
    lines += [f"- Versions, {side}: {_listed(versions)}" for side, versions in row.versions.items()]
    lines += [f"- The sides differ: {text}" for text in row.differs]
    short = [figure.name for figure in row.figures if figure.reached not in ("", "yes")]
    if short:
        lines.append(f"- Falls short ({', '.join(short)}): {reason or 'no reason is given yet.'}")
    return lines


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
