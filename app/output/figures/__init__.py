"""Figures of sessions, of the alignment of a spectrum, and of standards."""

from .alignment import SIZE as ALIGNMENT_SIZE
from .alignment import draw_alignment, draw_alignment_on
from .operando import draw_operando, operando_figure, part_of_series, save_svg
from .quality import quality_figure
from .standards import draw_standards
from .style import AMBER, BLUE, COLOURS, GREEN, GREY, RED, escaped
from .trend import Range, bars_of, draw_bars, view_of

__all__ = [
    "ALIGNMENT_SIZE",
    "AMBER",
    "BLUE",
    "COLOURS",
    "GREEN",
    "GREY",
    "RED",
    "Range",
    "bars_of",
    "draw_alignment",
    "draw_alignment_on",
    "draw_bars",
    "draw_operando",
    "draw_standards",
    "escaped",
    "operando_figure",
    "part_of_series",
    "quality_figure",
    "save_svg",
    "view_of",
]
