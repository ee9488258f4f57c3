"""Figures about users: accuracy on their choices, scores of answers, the learned user models, and what these depend on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator, PercentFormatter
from matplotlib.transforms import ScaledTranslation

from rlphf.data.people import MAJORITY, MINORITY, UNSEEN
from rlphf.evaluate.labels import method_label, setting_label
from rlphf.evaluate.scores import Row
from rlphf.evaluate.table_files import read_table
from rlphf.evaluate.users import SCORE, SEEN
from rlphf.figures.contests import matrix
from rlphf.figures.style import COLOURS, GREY, HATCHES, LINES, MARKS, nothing, reach, styled

GROUPS = (MAJORITY, MINORITY, UNSEEN)
# Methods whose lengths P-RLHF's figure shows.
LENGTHS = ("sft", "dpo", "pdpo_individual", "pdpo_cluster")
# Most users side by side in a figure; of more, as many as this are shown, spread evenly.
MOST_USERS = 40
# Most letters of a kind of users that are written.
LONGEST = 22
DECLARED = "psoups_declared"
NO_USERS = "No users: user_evaluation.methods is empty."
NO_SCORES = "No scores: only the testbed's users judge answers."


@styled
def users_accuracy(tables: Path) -> Figure:
    """Draw methods' accuracy on held-out pairs beside the score of their answers, by group of users, with intervals."""
    told = [row for row in read_table(tables, "users_accuracy") if row["population"] in GROUPS]
    served = [row for row in read_table(tables, "users_scores") if row["population"] in GROUPS and row["criterion"] == SCORE]
    names = list(dict.fromkeys(row["method"] for row in (*told, *served)))
    if not names:
        return nothing(NO_USERS)
    figure = Figure(figsize=(7.2, 1.4 + 0.4 * len(names)))
    left, right = figure.subplots(1, 2, sharey=True)
    _grouped(left, told, "accuracy", names)
    left.axvline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    for group, colour in zip(GROUPS, COLOURS, strict=False):
        for ceiling in sorted({row["ceiling"] for row in told if row["population"] == group and row["ceiling"] is not None}):
            left.axvline(ceiling, color=colour, linewidth=1, linestyle="--")
    left.set_xlabel("Accuracy on held-out pairs\n(dashed: ceiling; dotted: chance)")
    left.set_title("What the users chose")
    left.set_yticks(range(len(names)), [method_label(name) for name in names])
    left.set_ylim(len(names) - 0.4, -0.6)
    if served:
        _grouped(right, served, "mean", names)
    else:
        _missing(right, NO_SCORES)
    right.set_xlabel("Score of answers by the user's own weights\n(lines: 95 % intervals)")
    right.tick_params(axis="y", length=0)
    right.set_title("How the users are served")
    figure.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=len(GROUPS))
    return figure


@styled
def users_length(tables: Path) -> Figure:
    """Draw the length of answers to every user by SFT, DPO and P-DPO, with intervals; one panel per group of users."""
    rows = [row for row in read_table(tables, "users_length") if row["method"] in LENGTHS]
    if not rows:
        return nothing("No answers to users by SFT, DPO or P-DPO.")
    names = [name for name in LENGTHS if any(row["method"] == name for row in rows)]
    everyone = sorted({(GROUPS.index(row["group"]), row["kind"], row["user"]) for row in rows})
    users = [everyone[i] for i in np.linspace(0, len(everyone) - 1, min(MOST_USERS, len(everyone))).astype(int)]
    panels = {group: [user for user in users if GROUPS[user[0]] == group] for group in GROUPS}
    panels = {group: found for group, found in panels.items() if found}
    figure = Figure(figsize=(min(9.0, 3.4 + 0.2 * len(users) * len(names)), 3.4))
    widths = [len(found) for found in panels.values()]
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False, width_ratios=widths)[0]
    for axes, (group, found) in zip(grid, panels.items(), strict=True):
        _lengths(axes, found, names, rows)
        axes.set_title(group.capitalize())
    grid[0].set_ylabel("Length of answers\n(tokens; lines: 95 % intervals)")
    figure.supxlabel(f"User{'' if users == everyone else f' ({len(users)} of {len(everyone):,})'}", fontsize="medium")
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(names))
    return figure


@styled
def users_map(tables: Path) -> Figure:
    """Draw the positions of trained users in each learned user model, coloured by kind and marked by group."""
    rows = read_table(tables, "users_map")
    names = list(dict.fromkeys(row["method"] for row in rows))
    if not names:
        return nothing("No learned user model: user_evaluation.methods has no P-DPO.")
    kinds = sorted({row["kind"] for row in rows})
    colours = {kind: COLOURS[i] if i < len(COLOURS) - 1 else GREY for i, kind in enumerate(kinds)}
    marks = {group: mark for group, mark in zip(GROUPS, MARKS, strict=False) if any(row["group"] == group for row in rows)}
    figure = Figure(figsize=(2.2 + 3.2 * len(names), 3.4))
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        found = [row for row in rows if row["method"] == name]
        for row in found:
            axes.plot(row["x"], row["y"], marks[row["group"]], color=colours[row["kind"]], markeredgecolor="white", alpha=0.85)
        axes.margins(0.12)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_title(f"{method_label(name)} ({found[0]['explained']:.0%} of the variance)")
        axes.set_xlabel("First principal component")
        axes.set_ylabel("Second principal component")
    shown = [(kind[:LONGEST], "o", colour) for kind, colour in colours.items() if colour != GREY]
    shown += [("others", "o", GREY)] if GREY in colours.values() else []
    shown += [(group, mark, "black") for group, mark in marks.items()]
    handles = [Line2D([], [], color=colour, marker=mark, linestyle="", label=label) for label, mark, colour in shown]
    figure.legend(handles=handles, loc="outside right upper")
    return figure


@styled
def cold_start(tables: Path) -> Figure:
    """Draw the score of answers to new users against the number of their pairs, with intervals."""
    rows = [row for row in read_table(tables, "cold_start") if row["criterion"] == SCORE]
    if not rows:
        return nothing("No cold start: it needs the testbed's unseen users, P-DPO and inferred soups.")
    figure = Figure(figsize=(6.2, 3.4))
    axes = figure.subplots()
    counts = sorted({row["pairs"] for row in rows})
    names = list(dict.fromkeys(row["method"] for row in rows))
    followed = [name for name in names if name != DECLARED]
    for name, colour, line, mark in zip(names, COLOURS, LINES, MARKS, strict=False):
        found = sorted((row for row in rows if row["method"] == name), key=lambda row: row["pairs"])
        if name == DECLARED:
            axes.axhspan(found[0]["ci_low"], found[0]["ci_high"], color=colour, alpha=0.15, linewidth=0)
            axes.axhline(found[0]["mean"], color=colour, linestyle=line, label=f"{method_label(name)} (no pairs)")
            continue
        style = {"color": colour, "linestyle": line, "marker": mark, "label": method_label(name)}
        aside = 3 * followed.index(name) - 1.5 * (len(followed) - 1)
        _line(axes, [row["pairs"] for row in found], found, "mean", aside, style)
    axes.set_xscale("symlog", linthresh=min((count for count in counts if count), default=1), linscale=0.6)
    axes.set_xticks(counts, map(str, counts))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("Pairs that a new user has chosen between")
    axes.set_ylabel("Score of answers\nby the user's own weights")
    axes.set_title("Users who were never trained (bars and band: 95 % intervals)")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=len(names))
    return figure


@styled
def user_ablations(tables: Path) -> Figure:
    """Draw accuracy on held-out pairs against each setting that was varied, by method, of majority and minority."""
    groups = dict(zip((MINORITY, MAJORITY), LINES, strict=False))
    rows = [row for row in read_table(tables, "user_ablations") if not row["against"] and row["population"] in groups]
    settings = list(dict.fromkeys(row["setting"] for row in rows))
    if not settings:
        return nothing("No variations: ablations is empty.")
    names = list(dict.fromkeys(row["method"] for row in rows))
    columns = min(3, len(settings))
    lines = -(-len(settings) // columns)
    figure = Figure(figsize=(0.6 + 2.5 * columns, 1.4 + 2.3 * lines))
    panels = list(figure.subplots(lines, columns, sharey=True, squeeze=False).flat)
    for axes, setting in zip(panels, settings, strict=False):
        shown = [row for row in rows if row["setting"] == setting]
        values = _scale(axes, list(dict.fromkeys(row["value"] for row in shown)))
        series = [(name, group) for name in names for group in groups if any(_is(row, name, group) for row in shown)]
        for i, (name, group) in enumerate(series):
            found = sorted((row for row in shown if _is(row, name, group)), key=lambda row: values[row["value"]])
            style = {"color": COLOURS[names.index(name)], "marker": MARKS[names.index(name)], "linestyle": groups[group]}
            style["label"] = f"{method_label(name)}, {group}"
            _line(axes, [values[row["value"]] for row in found], found, "effect", 2 * i - len(series) + 1, style)
        axes.axhline(0.5, color=GREY, linewidth=0.8, linestyle=":")
        axes.set_xlabel(setting_label(setting).capitalize())
    for axes in panels[len(settings) :]:
        axes.set_axis_off()
    for axes in panels[::columns]:
        axes.set_ylabel("Accuracy on held-out pairs")
    figure.suptitle("P-DPO trained otherwise\n(bars: 95 % intervals; dotted: chance)", fontsize="medium")
    handles = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=min(columns, len(names)))
    return figure


@styled
def users_win_rates(tables: Path) -> Figure:
    """Draw the matrix of win rates among seen users, by the score of answers to the same user, with each row's average."""
    rows = [row for row in read_table(tables, "users_win_rates") if row["population"] == SEEN]
    names = list(dict.fromkeys(row["method_a"] for row in rows))
    if not names:
        return nothing("No win rates: they need two methods, and users of the testbed, who judge answers.")
    size = len(names) + 1
    figure = Figure(figsize=(max(4.8, 2.4 + 0.5 * size), max(3.2, 1.7 + 0.42 * size)))
    axes = figure.subplots()
    image = matrix(axes, names, rows, [method_label(name) for name in names])
    axes.set_title("Answers to the same seen user, by the user's score")
    label = "Win rate of the row\n(ties count half)"
    figure.colorbar(image, ax=axes, label=label, format=PercentFormatter(xmax=1), pad=0.01, aspect=30)
    return figure


def _grouped(axes: Axes, rows: Sequence[Row], value: str, names: Sequence[str]) -> None:
    """Draw bars with intervals of the methods `names` from top to bottom, one per group of users."""
    height = 0.8 / len(GROUPS)
    for i, group in enumerate(GROUPS):
        found = [row for row in rows if row["population"] == group]
        if not found:
            continue
        places = [names.index(row["method"]) + (i - (len(GROUPS) - 1) / 2) * height for row in found]
        values = [row[value] for row in found]
        axes.barh(places, values, height, label=group, **_filled(i))
        axes.errorbar(values, places, xerr=reach(found, value), fmt="none", ecolor="black", elinewidth=0.8)
    axes.set_xlim(0, 1)


def _filled(number: int) -> dict[str, Any]:
    """Return how the bars of a series look: told apart by their hatching as well as by their colour."""
    return {"color": COLOURS[number], "alpha": 0.75, "hatch": HATCHES[number], "edgecolor": "white", "linewidth": 0}


def _lengths(axes: Axes, users: Sequence[tuple[int, str, int]], names: Sequence[str], rows: Sequence[Row]) -> None:
    """Draw bars with intervals of the methods' answers to `users`: (group, kind, id)."""
    cells = {(row["method"], row["user"]): row for row in rows}
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        found = [(place, cells[name, user]) for place, (_, _, user) in enumerate(users) if (name, user) in cells]
        places = [place + (i - (len(names) - 1) / 2) * width for place, _ in found]
        shown = [row for _, row in found]
        values = [row["tokens"] for row in shown]
        axes.bar(places, values, width, label=method_label(name), **_filled(i))
        axes.errorbar(places, values, yerr=reach(shown, "tokens").reshape(2, -1), fmt="none", ecolor="black", elinewidth=0.8)
    axes.set_xticks(range(len(users)), [f"{kind[:LONGEST]}  {user}" for _, kind, user in users], rotation=90, fontsize=7)
    axes.set_xlim(-0.6, len(users) - 0.4)


def _line(axes: Axes, places: Sequence[float], rows: Sequence[Row], value: str, aside: float, style: dict[str, Any]) -> None:
    """Draw a line with intervals, moved `aside` by points of print: so intervals lie beside each other on every scale."""
    drawn = axes.errorbar(
        places,
        [row[value] for row in rows],
        yerr=reach(rows, value),
        markersize=3.5,
        capsize=1.5,
        elinewidth=0.8,
        linewidth=1.1,
        **style,
    )
    moved = axes.transData + ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans)
    for artist in drawn.get_children():
        artist.set_transform(moved)


def _is(row: Row, method: str, population: str) -> bool:
    return (row["method"], row["population"]) == (method, population)


def _missing(axes: Axes, why: str) -> None:
    """Say in an empty panel why there is nothing in it."""
    axes.text(0.5, 0.5, why.replace(": ", ":\n"), ha="center", va="center", transform=axes.transAxes)
    axes.set_xticks([])


def _scale(axes: Axes, values: Sequence[str]) -> dict[str, Any]:
    """Set the x-axis up for a setting's values, on a log scale where numbers spread; return {value: its place}."""
    try:
        places = {value: float(value) for value in values}
    except ValueError:
        axes.set_xticks(range(len(values)), values)
        axes.set_xlim(-0.5, len(values) - 0.5)
        return {value: place for place, value in enumerate(values)}
    if min(places.values()) > 0 and max(places.values()) / min(places.values()) >= 8:
        axes.set_xscale("log")
    axes.set_xticks(list(places.values()), values)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.margins(x=0.12)
    return places
