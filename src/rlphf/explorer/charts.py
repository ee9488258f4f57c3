"""The explorer's charts as Vega-Lite specifications, made from stored tables. The page draws them, in its own colours."""

from collections.abc import Sequence
from typing import Any

import altair as alt

from rlphf.evaluate.labels import preference_label
from rlphf.evaluate.scores import HELPFULNESS, Row
from rlphf.figures.style import COLOURS
from rlphf.preferences import AXES, axis_of, is_id

CURVES = {"score": "Reward", "kl": "KL (nats per response)"}
DASHES = ([1, 0], [6, 3], [8, 3, 2, 3], [2, 2])
OTHER = "other"


def curves(rows: Sequence[Row]) -> list[Row]:
    """Return charts of reward and KL by PPO's outer step, from rows of table `curves`: for each axis, one per metric."""
    rows = [row for row in rows if row["kind"] == "ppo" and row["metric"] in CURVES]
    names = sorted({row["preference"] for row in rows})
    groups = {name: axis_of(name) if is_id(name) else OTHER for name in names}
    charts = []
    for axis in (*AXES, OTHER):
        shown = [name for name in names if groups[name] == axis]
        for metric, title in CURVES.items():
            found = [row for row in rows if row["preference"] in shown and row["metric"] == metric]
            if found:
                last = {row["preference"]: row["value"] for row in found}
                said = "; ".join(f"{preference_label(name)} ends at {value:.2f}" for name, value in last.items())
                points = [
                    {"step": row["step"], "value": round(row["value"], 4), "policy": preference_label(row["preference"])}
                    for row in found
                ]
                chart = _lines(points, "step", "PPO outer step", title, "policy", list(map(preference_label, shown)))
                charts.append({"group": axis, "spec": _spec(chart, f"{title} by PPO's outer step. {said}.")})
    return charts


def front(rows: Sequence[Row]) -> list[Row]:
    """Return the chart of the soups' scores along the front, with 95 % intervals, from rows of table `front`; none without."""
    if not rows:
        return []
    ends = rows[0]["first"], rows[0]["second"]
    order = [preference_label(name) for name in (*ends, HELPFULNESS)]
    points = [
        {
            name: round(row[key], 4)
            for name, key in (("weight", "weight"), ("value", "mean"), ("low", "ci_low"), ("high", "ci_high"))
        }
        | {"criterion": preference_label(row["criterion"])}
        for row in rows
    ]
    title = f"Weight of {preference_label(ends[1])} (the rest: {preference_label(ends[0])})"
    line = _lines(points, "weight", title, "Score (bands: 95 % intervals)", "criterion", order)
    # The band hides its own legend; a shared one would show the lines at the band's opacity.
    colours = alt.Color("criterion:N", scale=alt.Scale(domain=order, range=list(COLOURS[: len(order)])), legend=None)
    band = alt.Chart(alt.Data(values=points)).mark_area(opacity=0.15).encode(x="weight:Q", y="low:Q", y2="high:Q", color=colours)
    said = f"Scores of soups of two policies, from {preference_label(ends[0])} alone to {preference_label(ends[1])} alone."
    return [{"group": "front", "spec": _spec((band + line).resolve_legend(color="independent", strokeDash="independent"), said)}]


def _lines(points: list[Row], x: str, x_title: str, y_title: str, name: str, order: list[str]) -> alt.Chart:
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(order))]
    dashes = [DASHES[i % len(DASHES)] for i in range(len(order))]
    legend = alt.Legend(title=None, orient="top", columns=2, symbolType="stroke", symbolStrokeWidth=2, labelLimit=220)
    return (
        alt.Chart(alt.Data(values=points))
        .mark_line(strokeWidth=2)
        .encode(
            x=alt.X(
                f"{x}:Q",
                title=x_title,
                scale=alt.Scale(nice=False),
                axis=alt.Axis(grid=False, tickMinStep=0.1 if x == "weight" else 1),
            ),
            y=alt.Y("value:Q", title=y_title, axis=alt.Axis(tickCount=4)),
            color=alt.Color(f"{name}:N", scale=alt.Scale(domain=order, range=colours), legend=legend),
            strokeDash=alt.StrokeDash(f"{name}:N", scale=alt.Scale(domain=order, range=dashes), legend=legend),
            tooltip=[f"{name}:N", alt.Tooltip(f"{x}:Q", title=x), alt.Tooltip("value:Q", format=".3f")],
        )
    )


def _spec(chart: alt.Chart | alt.LayerChart, description: str) -> dict[str, Any]:
    return chart.properties(width="container", height=190, description=description).to_dict()
