"""Style of the report's figures: palette, panels, legends."""

from collections.abc import Iterable
from typing import Any
from zlib import crc32

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ....agent.types import Array

STYLE = matplotlib.rc_context(
    {
        "font.size": 9.5,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "#7a7a7a",
        "axes.linewidth": 0.8,
        "axes.axisbelow": True,
        "grid.color": "#e4e7eb",
        "grid.linewidth": 0.7,
        "xtick.color": "#444444",
        "ytick.color": "#444444",
        "legend.frameon": False,
        "text.parse_math": False,  # a $ in a name is a dollar sign
    }
)
WIDTH = 10.0  # in inches
BLUE, GREY, RED, GREEN = "#1f5fa8", "#7a7a7a", "#b3261e", "#2e7d32"
DENSE_POINTS = 1000
"""Number of points above which a scatter plot is stored as pixels inside an SVG."""

# Okabe and Ito's palette, darkened for white paper. Lines of networks are solid, of trees dashed, of linear models
# dotted.
_KNOWN_STYLES: dict[str, tuple[str, str, str]] = {
    "spt": (BLUE, "-", "o"),
    "cnn": ("#3aa5dc", "-", "s"),
    "ft transformer": ("#c65f9e", "-", "^"),
    "amformer": ("#7b4fa3", "-", "D"),
    "xgboost": ("#d55e00", "--", "v"),
    "random forest": ("#009e73", "--", "P"),
    "extra trees": ("#e69f00", "--", "X"),
    "decision tree": ("#8a7a00", "--", "<"),
    "nearest neighbours": ("#333333", "--", "p"),
    "pls": ("#333333", ":", "*"),
    "linear": ("#8c8c8c", ":", "h"),
    # Ways of training.
    "zero shot": (BLUE, "-", "o"),
    "scratch": ("#333333", ":", "s"),
    "frozen": ("#3aa5dc", "-", "v"),
    "partial": ("#e69f00", "-", "^"),
    "full": ("#d55e00", "-", "D"),
    "universal": ("#009e73", "-", "P"),
}
OTHER_COLOURS = ("#009e73", "#d55e00", "#c65f9e", "#3aa5dc", "#e69f00", "#7b4fa3", "#8a7a00", "#333333")
MARKERS = "osD^vPX*<>h"


def _plain(name: str) -> str:
    return name.lower().replace("_", " ").replace("-", " ")


def _known(name: str) -> str | None:
    plain = _plain(name)
    return next((k for k in _KNOWN_STYLES if plain.startswith(k) or f" {k}" in plain), None)


def style_of(name: str) -> tuple[str, str, str]:
    """Return colour, line style and marker of a competitor or training mode, the same in every figure."""
    if known := _known(name):
        return _KNOWN_STYLES[known]
    code = crc32(_plain(name).encode())
    return OTHER_COLOURS[code % len(OTHER_COLOURS)], "-", MARKERS[code // 7 % len(MARKERS)]


def rank(name: str) -> int:
    """Return the position in legends: 0 for the SPT, then networks, trees, linear models, all others."""
    known = _known(name)
    return list(_KNOWN_STYLES).index(known) if known else len(_KNOWN_STYLES)


def pale(colour: str, share: float = 0.3) -> tuple[float, float, float]:
    """Mix a colour with white, for bars that hide the grid."""
    r, g, b = (share + (1 - share) * c for c in to_rgb(colour))
    return r, g, b


def panelled(
    count: int, columns: int = 4, height: float = 2.5, xlabel: str = "", **share: Any
) -> tuple[Figure, list[Axes]]:
    """Return a figure with ``count`` panels in rows of at most ``columns``; ``xlabel`` is below the lowest ones."""
    rows = -(-max(count, 1) // columns)
    columns = -(-max(count, 1) // rows)
    width = WIDTH * {1: 0.5, 2: 0.75}.get(columns, 1.0)
    figure = Figure(figsize=(width, height * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **share).ravel().tolist()
    for spare in axes[count:]:
        spare.remove()
    for lowest in axes[max(count - columns, 0) : count]:
        lowest.tick_params(axis="x", labelbottom=True)
        lowest.set_xlabel(xlabel)
    return figure, axes[:count]


def legend_below(figure: Figure, axes: Iterable[Axes]) -> None:
    """Draw one legend below the panels, each name once."""
    handles = {}
    for panel in axes:
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            handles.setdefault(name, handle)
    if handles:
        names = sorted(handles, key=lambda n: (rank(n), list(handles).index(n)))
        figure.legend(
            [handles[n] for n in names], names, loc="outside lower center", ncols=min(len(names), 6), fontsize=9
        )


def corner(axes: Axes, text: str, where: str = "upper left") -> None:
    top, left = "upper" in where, "left" in where
    axes.text(
        0.04 if left else 0.96,
        0.96 if top else 0.04,
        text,
        transform=axes.transAxes,
        ha="left" if left else "right",
        va="top" if top else "bottom",
        fontsize=8.5,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
    )


def part(table: pd.DataFrame, column: str, value: object) -> pd.DataFrame:
    """Return the rows that have a value in a column."""
    return table.loc[(table[column] == value).to_numpy()]


def numbers(table: pd.DataFrame, column: str) -> Array:
    """Return a column as numbers."""
    return np.asarray(table[column], dtype=float)


def limits(values: Array) -> tuple[float, float]:
    """Return limits of an axis that shows all values, with a margin."""
    lo, hi = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    margin = 0.06 * (hi - lo) or 0.5
    return lo - margin, hi + margin
