"""How the figures of the report look: palette, panels, legends."""

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
        "text.parse_math": False,  # a $ in a name is a $
    }
)
WIDTH = 10.0
BLUE, GREY, RED, GREEN = "#1f5fa8", "#7a7a7a", "#b3261e", "#2e7d32"
DENSE = 1000
"""Points from which a scatter is stored as pixels inside an SVG."""

# Okabe and Ito's palette, darkened where it is faint on white. Networks are solid, trees dashed, linear ones dotted.
KNOWN: dict[str, tuple[str, str, str]] = {
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
    "scratch": ("#333333", ":", "s"),
    "frozen": ("#3aa5dc", "-", "v"),
    "partial": ("#e69f00", "-", "^"),
    "full": ("#d55e00", "-", "D"),
    "universal": ("#009e73", "-", "P"),
}
OTHERS = ("#009e73", "#d55e00", "#c65f9e", "#3aa5dc", "#e69f00", "#7b4fa3", "#8a7a00", "#333333")
MARKERS = "osD^vPX*<>h"


def _plain(name: str) -> str:
    return name.lower().replace("_", " ").replace("-", " ")


def _known(name: str) -> str | None:
    plain = _plain(name)
    return next((k for k in KNOWN if plain.startswith(k) or f" {k}" in plain), None)


def style_of(name: str) -> tuple[str, str, str]:
    """Colour, line style and marker of a competitor (or a way of training), the same in every figure."""
    if known := _known(name):
        return KNOWN[known]
    code = crc32(_plain(name).encode())
    return OTHERS[code % len(OTHERS)], "-", MARKERS[code // 7 % len(MARKERS)]


def rank(name: str) -> int:
    """Place in legends and tables: 0 is the SPT, then networks, trees, linear ones, all others."""
    known = _known(name)
    return list(KNOWN).index(known) if known else len(KNOWN)


def pale(colour: str, share: float = 0.3) -> tuple[float, float, float]:
    """A colour mixed with white, for bars: unlike a transparent one it hides the grid."""
    r, g, b = (share + (1 - share) * c for c in to_rgb(colour))
    return r, g, b


def panelled(
    count: int, columns: int = 4, height: float = 2.5, xlabel: str = "", **share: Any
) -> tuple[Figure, list[Axes]]:
    """``count`` panels of the report's width, in rows of at most ``columns``; ``xlabel`` below the lowest ones."""
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
    """One legend below the panels, each name once."""
    found = {}
    for panel in axes:
        for handle, name in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    if found:
        names = sorted(found, key=lambda n: (rank(n), list(found).index(n)))
        figure.legend(
            [found[n] for n in names], names, loc="outside lower center", ncols=min(len(names), 6), fontsize=9
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
