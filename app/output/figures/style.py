"""Colours and texts of all figures.

The colours are those of Okabe and Ito, darkened for lines on white; marks, dashes and labels tell them apart in grey.
"""

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

BLUE, GREY, RED, GREEN = "#0a5c9e", "#6b6b6b", "#c0351a", "#00795c"
AMBER, DARK, PALE = "#a86400", "#101820", "#c9ced4"
COLOURS = (BLUE, AMBER, GREEN, "#8a4f9e", "#3a86b7", "#b0487a", "#5d4037", GREY)
"""Colours of several series; they repeat after the last."""
WIDTH = 7.2
"""Width of a figure, inches: an A4 page without margins, and readable on a phone."""
DPI = 150
_NAME_CHARACTERS = 44
"""Largest length of a name, in characters."""


_FONTS = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Source Han Sans",
    "WenQuanYi Zen Hei",
    "Hiragino Sans",
    "Yu Gothic",
)
_FONTS += ("Microsoft YaHei", "Malgun Gothic", "PingFang SC")


@contextmanager
def any_letters() -> Iterator[None]:
    """Allow letters that matplotlib's font lacks: they come from another font if there is one, otherwise as boxes.

    Axis labels show whole values: 3.7505 does not appear as 0.0005 with 3.75 above it.
    """
    installed = {font.name for font in fontManager.ttflist}
    family = ["DejaVu Sans", *(name for name in _FONTS if name in installed)]
    with warnings.catch_warnings(), rc_context({"font.family": family, "axes.formatter.useoffset": False}):
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure that needs no display."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def escaped(text: str) -> str:
    """Return a text that matplotlib does not interpret as a formula."""
    return text.replace("$", r"\$")


def short(name: str, characters: int = _NAME_CHARACTERS) -> str:
    """Return a name on one line, cut to a number of characters and escaped for matplotlib."""
    line = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    return escaped(line if len(line) <= characters else f"{line[: characters - 1]}…")


def wrapped(text: str, characters: int) -> str:
    """Return a text in lines of a number of characters, escaped for matplotlib."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return escaped(textwrap.fill(line, characters))


def listed(lead: str, entries: Sequence[str], characters: int) -> str:
    """Return entries separated by commas, in lines that break only between entries."""
    lines = [lead]
    for number, entry in enumerate(entries):
        comma = "," if number else ""
        if len(lines[-1]) + len(entry) + 2 > characters and number:
            lines[-1] += comma
            lines.append(entry)
        else:
            lines[-1] += f"{comma} {entry}"
    return escaped("\n".join(lines))


def plain(axes: Axes) -> None:
    """Remove the frame on the top and the right."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
