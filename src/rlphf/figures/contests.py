"""Figures of who beats whom: every method against every other, by each judge, and runs with a mistake against those without."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from rlphf.evaluate.labels import method_label, mistake_label
from rlphf.evaluate.scores import ALL, HELPFULNESS, MEAN, Row
from rlphf.evaluate.table_files import read_table
from rlphf.evaluate.winrate import MAJORITY
from rlphf.figures.style import COLOURS, cell_texts, cell_values, heat_map, nothing, reach, separate_last, styled

VERDICTS = {MAJORITY: "Majority of the criteria", MEAN: "Mean over the criteria", HELPFULNESS: "Helpfulness"}


@styled
def win_rates(tables: Path) -> Figure:
    """Draw the matrices of win rates over all combinations, row against column, with each row's average."""
    rows = [row for row in read_table(tables, "win_rates") if row["combination"] == ALL]
    panels = {title: [row for row in rows if row["criterion"] == criterion] for criterion, title in VERDICTS.items()}
    return _matrices({title: found for title, found in panels.items() if found or not rows})


@styled
def judges(tables: Path) -> Figure:
    """Draw the paper's matrix of its methods by the majority of the criteria, one panel per judge."""
    rows = [row for row in read_table(tables, "matrix") if row["criterion"] == MAJORITY]
    names = list(dict.fromkeys(row["judge"] for row in rows))
    panels = {f"Judge: {name}": [row for row in rows if row["judge"] == name] for name in names}
    found = read_table(tables, "averages") if names else []
    averages = [row for row in found if row["criterion"] == MAJORITY]
    return _matrices(panels, {f"Judge: {name}": [row for row in averages if row["judge"] == name] for name in names})


@styled
def release_bugs(tables: Path) -> Figure:
    """Draw what each mistake of the release changes in a method's score, and in its helpfulness, with intervals."""
    rows = [row for row in read_table(tables, "release_bugs") if row["against"] == "without it"]
    panels = {MEAN: "Mean score over the preferences asked for", HELPFULNESS: "Helpfulness"}
    shown = {criterion: [row for row in rows if row["criterion"] == criterion] for criterion in panels}
    if not any(shown.values()):
        return nothing("No mistakes priced: see config/experiments/release-bugs.yaml.")
    labels = list(dict.fromkeys((row["mistake"], row["method"]) for found in shown.values() for row in found))
    figure = Figure(figsize=(9.6, 1.2 + 0.34 * len(labels)))
    grid = figure.subplots(1, len(panels), sharey=True)
    for axes, (criterion, title), colour in zip(grid, panels.items(), COLOURS, strict=False):
        found = shown[criterion]
        places = [labels.index((row["mistake"], row["method"])) for row in found]
        effects = [row["effect"] for row in found]
        axes.errorbar(effects, places, xerr=reach(found, "effect"), fmt="o", color=colour, capsize=2.5, markersize=4)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_title(title)
        axes.set_xlabel("With the mistake minus without it (95 % intervals)")
    grid[0].set_yticks(range(len(labels)), [f"{mistake_label(mistake)}: {method_label(method)}" for mistake, method in labels])
    grid[0].invert_yaxis()
    return figure


def _matrices(panels: dict[str, list[Row]], averages: dict[str, list[Row]] | None = None) -> Figure:
    """Draw one matrix per panel {title: rows of one pair of methods each}, all of the same methods.

    `averages` are rows of one method each, by panel, where their intervals are known.
    """
    names = list(dict.fromkeys(row["method_a"] for rows in panels.values() for row in rows))
    if not names:
        return nothing("One method only: nothing to compare.")
    size = len(names) + 1
    # One above the other, so that they are readable at the width of a page.
    figure = Figure(figsize=(max(4.8, 2.4 + 0.5 * size), max(3.2, 1.3 + 0.34 * len(names) * len(panels))))
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    image: Any = None
    for axes, (title, rows) in zip(grid, panels.items(), strict=True):
        known = (averages or {}).get(title, [])
        image = matrix(axes, names, rows, [method_label(name).replace(" ", "\n") for name in names], known)
        axes.set_title(title)
        axes.label_outer()
    percent = PercentFormatter(xmax=1)
    figure.colorbar(image, ax=list(grid), label="Win rate of the row\n(ties count half)", format=percent, pad=0.01, aspect=40)
    return figure


def matrix(axes: Axes, names: Sequence[str], rows: Sequence[Row], labels: Sequence[str], averages: Sequence[Row] = ()) -> Any:
    """Draw the win rates of `names` against each other, and each one's average; return the image, for a colour bar.

    An average has an interval where `averages` has the method's.
    """
    cells = {(row["method_a"], row["method_b"]): row for row in rows}
    found = [[cells.get((a, b)) for b in names] for a in names]
    values = cell_values(found, "rate_half_ties")
    average = np.array([[np.nanmean(line)] if not np.isnan(line).all() else [np.nan] for line in values]).reshape(-1, 1)
    texts = [[cell_texts(row, "rate_half_ties", ".0%") for row in line] for line in found]
    intervals = {row["method"]: cell_texts(row, "rate_half_ties", ".0%") for row in averages}
    last = [intervals.get(name, (f"{mean:.1%}", "")) for name, mean in zip(names, average[:, 0], strict=True)]
    image = heat_map(
        axes,
        np.hstack([values, average]),
        labels,
        [*labels, "average"],
        (0, 1),
        "PuOr",
        [[*line, text] for line, text in zip(texts, last, strict=True)],
    )
    axes.tick_params(axis="x", labelrotation=90)
    axes.set_xlabel("against (small print: 95 % intervals)")
    separate_last(axes, len(names) + 1)
    return image
