"""The figures of an experiment, each a function of the folder of its tables and of nothing else."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from rlphf.data.learned import unseen_split
from rlphf.evaluate.labels import combination_label, method_label, preference_label
from rlphf.evaluate.scores import ALL, HELPFULNESS, MEAN, Row
from rlphf.evaluate.table_files import read_table
from rlphf.figures.style import (
    COLOURS,
    GREY,
    LINES,
    cell_texts,
    cell_values,
    heat_map,
    nothing,
    point,
    reach,
    separate_last,
    styled,
)
from rlphf.preferences import AXES, axis_of, is_id, members

CURVES = {
    "score": "Reward",
    "kl": "KL to the backbone\n(nats per response)",
    "length": "Length\n(tokens per response)",
}
ASPECTS = {MEAN: "Mean score over the preferences asked for", HELPFULNESS: "Helpfulness"}


@styled
def curves(tables: Path) -> Figure:
    """Draw reward, KL and length against PPO's outer steps: one column per axis, one line per preference."""
    rows = [row for row in read_table(tables, "curves") if row["kind"] == "ppo" and row["metric"] in CURVES]
    trained = sorted({row["preference"] for row in rows})
    axes_of = {p: axis_of(p) if is_id(p) else "other" for p in trained}
    columns = [axis for axis in (*AXES, "other") if axis in axes_of.values()] or [*AXES]
    figure = Figure(figsize=(2.5 * len(columns), 5.6))
    grid = figure.subplots(len(CURVES), len(columns), sharex="col", sharey="row", squeeze=False)
    for j, axis in enumerate(columns):
        shown = [p for p in trained if axes_of[p] == axis]
        for i, (metric, label) in enumerate(CURVES.items()):
            for k, preference in enumerate(shown):
                points = [
                    (row["step"], row["value"]) for row in rows if row["preference"] == preference and row["metric"] == metric
                ]
                grid[i, j].plot(
                    *zip(*points, strict=True),
                    color=COLOURS[k % len(COLOURS)],
                    linestyle=LINES[k % len(LINES)],
                    label=preference_label(preference),
                )
            if j == 0:
                grid[i, j].set_ylabel(label)
        grid[0, j].set_title(axis.capitalize())
        grid[0, j].legend(fontsize=7.5, loc="best")
        grid[-1, j].set_xlabel("PPO outer step")
        grid[-1, j].xaxis.set_major_locator(MaxNLocator(5, integer=True))
    figure.align_ylabels()
    return figure


@styled
def adapters(tables: Path) -> Figure:
    """Draw bars with intervals: accuracy of the reward models beside its ceiling, and what each adapter gains."""
    figure = Figure(figsize=(9.3, 3.4))
    left, right = figure.subplots(1, 2)
    models = [row for row in read_table(tables, "reward_models") if row["split"] == unseen_split(row["preference"])]
    _bars(left, models, "accuracy", COLOURS[0])
    for i, row in enumerate(models):
        if row["ceiling"] is not None:
            label = "ceiling (annotator's noise)" if i == 0 else None
            left.plot([row["ceiling"]] * 2, [i - 0.4, i + 0.4], color="black", linewidth=2, label=label)
    left.axvline(0.5, color=GREY, linewidth=0.8, linestyle=":")
    left.set_xlim(0, 1.02)
    left.set_xlabel("Accuracy on unseen pairs\n(dotted: chance; lines: 95 % intervals)")
    left.set_title("Reward models" if models else "No reward models: rules reward", pad=18)
    if any(row["ceiling"] is not None for row in models):
        left.legend(loc="lower right", bbox_to_anchor=(1, 0.98), borderaxespad=0, fontsize=7.5)
    gains = read_table(tables, "adapters")
    _bars(right, gains, "delta", COLOURS[2])
    right.axvline(0, color="black", linewidth=0.8)
    right.set_xlabel("Change of the own preference's score (0 to 1)\n(lines: 95 % intervals)")
    right.set_title("PPO adapters, held-out prompts", pad=18)
    return figure


@styled
def methods(tables: Path) -> Figure:
    """Draw the method x combination heat maps of the mean score and of helpfulness, each cell with its 95 % interval."""
    rows = read_table(tables, "methods")
    names = list(dict.fromkeys(row["method"] for row in rows))
    combinations = list(dict.fromkeys(row["combination"] for row in rows))
    scored = {criterion: title for criterion, title in ASPECTS.items() if any(row["criterion"] == criterion for row in rows)}
    figure = Figure(figsize=(2.3 + 0.62 * len(combinations), 1.6 + 0.38 * len(names) * len(scored)))
    grid = figure.subplots(len(scored), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (criterion, title) in zip(grid, scored.items(), strict=True):
        cells = {(row["method"], row["combination"]): row for row in rows if row["criterion"] == criterion}
        found = [[cells.get((name, c)) for c in combinations] for name in names]
        image = heat_map(
            axes,
            cell_values(found, "mean"),
            [method_label(name) for name in names],
            [combination_label(c, "\n") for c in combinations],
            (0, 1),
            "Blues",
            [[cell_texts(row, "mean", ".2f") for row in line] for line in found],
        )
        axes.set_title(title)
        separate_last(axes, len(combinations))
        figure.colorbar(image, ax=axes, label="Score by the first judge", pad=0.015, aspect=12)
    prompts = max((row["n"] for row in rows), default=0)
    grid[-1].set_xlabel(f"Combination of preferences (small print: 95 % interval over {prompts} prompts)")
    return figure


@styled
def criteria(tables: Path) -> Figure:
    """Draw every preference's score by method, with intervals, over the combinations that ask for it; one panel per axis."""
    rows = [row for row in read_table(tables, "methods") if row["combination"] == ALL and is_id(row["criterion"])]
    names = list(dict.fromkeys(row["method"] for row in rows))
    ids = sorted({row["criterion"] for row in rows})
    panels = [p for axis in AXES if (p := [c for c in ids if axis_of(c) == axis])]
    figure = Figure(figsize=(2.0 + 2.3 * max(1, len(panels)), 3.2))
    grid = figure.subplots(1, max(1, len(panels)), sharey=True, squeeze=False)[0]
    for axes, shown in zip(grid, panels, strict=False):
        for i, name in enumerate(names):
            found = [row for criterion in shown for row in rows if (row["method"], row["criterion"]) == (name, criterion)]
            axes.errorbar(
                np.arange(len(shown)) + 0.8 * ((i + 0.5) / len(names) - 0.5),
                [row["mean"] for row in found],
                yerr=reach(found, "mean"),
                **point(i),
                markersize=4.5,
                elinewidth=0.9,
                capsize=1.5,
                label=method_label(name),
            )
        axes.set_xticks(range(len(shown)), [preference_label(criterion).replace(" ", "\n") for criterion in shown])
        axes.set_title(axis_of(shown[0]).capitalize())
        axes.set_xlim(-0.5, len(shown) - 0.5)
        axes.set_ylim(0, 1)
    grid[0].set_ylabel("Score where asked for\n(bars: 95 % intervals)")
    grid[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7.5)
    return figure


@styled
def tradeoff(tables: Path) -> Figure:
    """Draw helpfulness against personalisation, one point per method with both intervals, over all combinations."""
    rows = [row for row in read_table(tables, "methods") if row["combination"] == ALL]
    cells = {(row["method"], row["criterion"]): row for row in rows}
    if not any(criterion == HELPFULNESS for _, criterion in cells):
        return nothing("The first judge scores no helpfulness.")
    figure = Figure(figsize=(5.6, 3.8))
    axes = figure.subplots()
    for i, name in enumerate(dict.fromkeys(row["method"] for row in rows)):
        x, y = cells[name, MEAN], cells[name, HELPFULNESS]
        axes.errorbar(
            x["mean"],
            y["mean"],
            xerr=reach([x], "mean"),
            yerr=reach([y], "mean"),
            **point(i),
            capsize=2,
            label=method_label(name),
        )
    axes.set_xlabel("Mean score over the preferences asked for")
    axes.set_ylabel("Helpfulness")
    axes.set_title("Personalisation and helpfulness, all combinations (bars: 95 % intervals)")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


@styled
def front(tables: Path) -> Figure:
    """Draw the soups of two policies by weight (left), and one score against the other (right)."""
    rows = read_table(tables, "front")
    figure = Figure(figsize=(9.0, 3.4))
    if not rows:
        figure.text(0.5, 0.5, "No front: evaluation.front is empty.", ha="center", va="center")
        return figure
    left, right = figure.subplots(1, 2)
    ends = (rows[0]["first"], rows[0]["second"])
    by_criterion = {name: [row for row in rows if row["criterion"] == name] for name in (*ends, HELPFULNESS)}
    for i, (name, found) in enumerate(by_criterion.items()):
        x = [row["weight"] for row in found]
        left.plot(x, [row["mean"] for row in found], color=COLOURS[i], linestyle=LINES[i], label=preference_label(name))
        left.fill_between(
            x, [row["ci_low"] for row in found], [row["ci_high"] for row in found], color=COLOURS[i], alpha=0.15, linewidth=0
        )
    left.set_xlabel(f"Weight of {preference_label(ends[1])} (the rest: {preference_label(ends[0])})")
    left.set_ylabel("Score")
    left.set_ylim(0, 1)
    left.set_title("Soups of two policies (bands: 95 % intervals)")
    left.legend()
    first, second = by_criterion[ends[0]], by_criterion[ends[1]]
    right.errorbar(
        [row["mean"] for row in first],
        [row["mean"] for row in second],
        xerr=reach(first, "mean"),
        yerr=reach(second, "mean"),
        fmt="o-",
        color=COLOURS[0],
        markersize=3,
        linewidth=1,
        capsize=2,
    )
    for i in sorted({0, len(first) // 2, len(first) - 1}):
        place, weight = (first[i]["mean"], second[i]["mean"]), f"{first[i]['weight']:.1f}"
        right.annotate(weight, place, textcoords="offset points", xytext=(-5, -5), ha="right", va="top")
    right.set_xlabel(preference_label(ends[0]))
    right.set_ylabel(preference_label(ends[1]))
    right.set_title(f"The front (numbers: weight of {preference_label(ends[1])})")
    return figure


@styled
def costs(tables: Path) -> Figure:
    """Draw training time against the number of axes: policies of single preferences, and one policy of all combinations.

    Both are scaled from measured seconds: 2n rollouts, labels, reward models and policies as those here, and for P-MORL a policy
    with as many updates for each of the 2^n combinations as it had here, over 2n times the same pairs.
    """
    budgets = {row["method"]: row for row in read_table(tables, "budgets")}
    policy = {row["step"]: row["seconds"] for row in read_table(tables, "timings")}.get("ppo/pmorl", 0.0)
    figure = Figure(figsize=(5.6, 3.6))
    axes = figure.subplots()
    timed = {name: budgets[name]["seconds"] for name in ("psoups", "pmorl") if name in budgets and budgets[name]["seconds"]}
    combinations = {row["combination"] for row in read_table(tables, "methods")} - {ALL}
    preferences = {one for name in combinations for one in members(name)}
    n = np.arange(1, 9)
    for i, (name, seconds) in enumerate(timed.items()):
        # In axes of two: eight preferences count as four axes, and so do sixteen combinations.
        measured = max(1.0, len(preferences) / 2 if name == "psoups" else np.log2(max(2, len(combinations))))
        grown = policy if name == "pmorl" else 0.0
        cost = (seconds - grown) * n / measured + grown * 2.0 ** (n - measured)
        label = f"{method_label(name)}: {'2n policies' if name == 'psoups' else '2$^n$ combinations'}"
        axes.plot(n, cost, color=COLOURS[i], linestyle=LINES[i], label=label)
        axes.plot([measured], [seconds], "o", color=COLOURS[i])
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda seconds, _: f"{seconds:,.0f}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("Axes n, of two preferences each")
    axes.set_ylabel("Training time (s)")
    axes.set_title("Cost of a further axis (points: measured; lines: extrapolated)")
    if timed:
        axes.legend()
    return figure


@styled
def adapter_effects(tables: Path) -> Figure:
    """Draw the heat map of what each adapter changes by every criterion, each cell with its 95 % interval."""
    rows = read_table(tables, "adapter_effects")
    names = list(dict.fromkeys(row["preference"] for row in rows))
    criteria = list(dict.fromkeys(row["criterion"] for row in rows))
    cells = {(row["preference"], row["criterion"]): row for row in rows}
    found = [[cells.get((name, criterion)) for criterion in criteria] for name in names]
    values = cell_values(found, "delta")
    reach = max(0.1, float(np.nanmax(np.abs(values), initial=0)))
    figure = Figure(figsize=(2.4 + 0.74 * len(criteria), 1.4 + 0.42 * len(names)))
    axes = figure.subplots()
    image = heat_map(
        axes,
        values,
        [preference_label(name) for name in names],
        [preference_label(name).replace(" ", "\n") for name in criteria],
        (-1.25 * reach, 1.25 * reach),
        "PuOr",
        [[cell_texts(row, "delta", "+.2f") for row in line] for line in found],
    )
    for i, name in enumerate(names):
        if name in criteria:
            corner = (criteria.index(name) - 0.46, i - 0.46)
            axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, edgecolor="black", linewidth=1.2, zorder=3))
    axes.set_xlabel("Criterion (framed: the adapter's own)")
    axes.set_ylabel("Adapter")
    axes.set_title("Adapter minus backbone, both asked for the adapter's preference (small print: 95 % interval)")
    separate_last(axes, len(criteria))
    figure.colorbar(image, ax=axes, label="Change of the score", pad=0.015)
    return figure


def _bars(axes: Axes, rows: list[Row], value: str, colour: str) -> None:
    heights = np.array([row[value] for row in rows])
    places = range(len(rows))
    axes.barh(places, heights, color=colour, alpha=0.75, height=0.7)
    axes.errorbar(heights, places, xerr=reach(rows, value), fmt="none", ecolor="black", elinewidth=1, capsize=2.5)
    axes.set_yticks(places, [preference_label(row["preference"]) for row in rows])
    axes.invert_yaxis()
