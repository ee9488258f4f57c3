"""How all figures look, and how they are saved: one font, colours that colour-blind readers tell apart, stable bytes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rlphf.evaluate.scores import Row
from rlphf.files import atomic_file

# Okabe and Ito's palette without its yellow, which vanishes on white paper, and a grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
LINES = ("-", "--", "-.", ":")
HATCHES = ("", "///", "...", "xxx")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
GREY = "#666666"
RC: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "hatch.linewidth": 0.5,
    "figure.constrained_layout.use": True,
    "pdf.fonttype": 42,
    "svg.hashsalt": "rlphf",
}
DPI = 160
UNDATED: dict[str, dict[str, Any]] = {"png": {"Software": None}, "pdf": {"CreationDate": None, "ModDate": None}}

# Starting from the defaults keeps a user's own matplotlibrc out of the figures.
styled = style.context(["default", RC])


@styled
def save(figure: Figure, folder: Path | str, name: str) -> str:
    """Write a figure as PNG and PDF in `folder`, without dates; return the path of the PNG."""
    for kind, metadata in UNDATED.items():
        with atomic_file(Path(folder) / f"{name}.{kind}") as temporary:
            figure.savefig(temporary, format=kind, dpi=DPI, metadata=metadata)
    return str(Path(folder) / f"{name}.png")


def point(number: int) -> dict[str, Any]:
    """Return how the points of method `number` look: the first 64 differ from each other in colour or in mark."""
    turn = number // len(COLOURS)
    return {"color": COLOURS[number % len(COLOURS)], "fmt": MARKS[(number + turn) % len(MARKS)]}


def nothing(why: str) -> Figure:
    """Return a figure that says in one line why there is nothing to draw."""
    figure = Figure(figsize=(max(4.6, 0.075 * len(why)), 1))
    figure.text(0.5, 0.5, why, ha="center", va="center")
    return figure


def heat_map(
    axes: Axes,
    values: NDArray[np.float64],
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float],
    colours: str,
    texts: Sequence[Sequence[tuple[str, str]]],
) -> Any:
    """Draw `values` (rows, columns) as coloured cells, NaN as white; return the image, for a colour bar.

    `texts` gives per cell a large and a small line, written in whichever of black and white is easier to read.
    """
    image = axes.imshow(np.ma.masked_invalid(values), cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    # White lines between the cells keep neighbours apart in print.
    axes.set_xticks(np.arange(len(columns) - 1) + 0.5, minor=True)
    axes.set_yticks(np.arange(len(rows) - 1) + 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)
    for i, row in enumerate(texts):
        for j, (large, small) in enumerate(row):
            if np.isnan(values[i, j]):
                continue
            colour = _readable(image.cmap(image.norm(values[i, j])))
            axes.text(j, i - (0.1 if small else 0), large, ha="center", va="center", color=colour, fontsize=9)
            axes.text(j, i + 0.22, small, ha="center", va="center", color=colour, fontsize=6)
    return image


def reach(rows: Sequence[Row], value: str) -> NDArray[np.float64]:
    """Return the lengths of error bars, (2, rows): from the value down and up to the ends of its interval."""
    return np.abs([[row[value] - row["ci_low"] for row in rows], [row["ci_high"] - row[value] for row in rows]])


def cell_values(found: Sequence[Sequence[Row | None]], name: str) -> NDArray[np.float64]:
    """Return a column's values of the rows in a heat map's cells, NaN where there is none."""
    return np.array([[np.nan if row is None else row[name] for row in line] for line in found], dtype=np.float64)


def cell_texts(row: Row | None, name: str, style: str) -> tuple[str, str]:
    """Return the text of a heat map's cell: the value, and below it the interval."""
    if row is None:
        return "", ""
    value, low, high = (number(row[key], style) for key in (name, "ci_low", "ci_high"))
    return value, f"{low} to {high}" if "%" not in style else f"{low}\N{EN DASH}{high}"


def number(value: float, style: str) -> str:
    """Return a rounded value as text, with a real minus sign."""
    # Adding zero turns the negative zero of a rounded value into the positive one.
    digits = 2 if "%" in style else int(style[-2])
    return format(round(value, digits) + 0.0, style).replace("-", "\N{MINUS SIGN}")


def separate_last(axes: Axes, columns: int) -> None:
    """Set the last of a heat map's columns off from the others."""
    axes.axvline(columns - 1.5, color="white", linewidth=6)


def _readable(background: Any) -> str:
    # Relative luminance of sRGB, by the weights of ITU-R BT.709.
    luminance = float(np.dot(np.power(background[:3], 2.2), (0.2126, 0.7152, 0.0722)))
    return "black" if luminance > 0.18 else "white"
