"""Figures of measured standards: answers against known values, and against the offset."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ...agent.types import Array
from .figures import COLOURS, GREY, RED, escaped

_LINE = 0.03
"""Distance between two names, relative to the height of a panel."""
_PANELS = 3
"""Number of panels side by side."""


@dataclass(frozen=True)
class Answered:
    """The answer for one standard."""

    name: str
    element: str
    known: float | None
    """Oxidation state, e; None if unknown."""
    mean: float
    """Estimated oxidation state, e; ``lo`` and ``hi`` are the ends of its interval."""
    lo: float
    hi: float
    is_flagged: bool
    is_judged: bool
    """Whether the answer counts as hit or miss: not for metals, which must be flagged."""


@dataclass(frozen=True)
class Scanned:
    """The oxidation state of one standard at the offsets of a scan."""

    name: str
    known: float | None
    """Oxidation state, e; None if it is not judged."""
    offsets_ev: Array
    """(K,) offsets, eV."""
    os: Array
    """(K,) oxidation states, e; NaN if the spectrum is set aside."""


def draw_answers(path: Path, answers: Sequence[Answered], hit_e: float) -> None:
    """Draw the oxidation states of standards with their intervals, and the known ones; flagged answers are open.

    Each standard has a column, in the order of known oxidation states; of those that are judged, a band extends
    ``hit_e`` to either side.
    """
    answers = sorted(answers, key=lambda a: (a.known is None, a.known or 0.0, a.element, a.mean))
    figure = Figure(figsize=(max(5.0, 1.6 + 0.24 * len(answers)), 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    elements = sorted({a.element for a in answers})
    colours = {element: COLOURS[i % len(COLOURS)] for i, element in enumerate(elements)}
    for at, answer in enumerate(answers):
        colour = colours[answer.element]
        if answer.known is not None and answer.is_judged:
            band = answer.known - hit_e, answer.known + hit_e
            axes.fill_between([at - 0.5, at + 0.5], *band, color=GREY, alpha=0.15, lw=0)
        if answer.known is not None:
            axes.hlines(answer.known, at - 0.5, at + 0.5, color=GREY, lw=1.2)
        axes.vlines(at, answer.lo, answer.hi, color=colour, lw=1.2, alpha=0.6)
        axes.plot(at, answer.mean, "o", ms=6, mec=colour, mfc="white" if answer.is_flagged else colour)
    axes.set_xticks(range(len(answers)), [escaped(a.name) for a in answers], rotation=90, fontsize=7)
    axes.set_xlim(-0.7, max(len(answers), 1) - 0.3)
    axes.set_ylabel("mean oxidation state (e), 90 % interval")
    handles = [Line2D([], [], marker="o", ls="", color=colours[element], label=element) for element in elements]
    handles.append(Line2D([], [], marker="o", ls="", mec=GREY, mfc="white", label="flagged"))
    handles.append(Line2D([], [], color=GREY, lw=1.2, label=f"known, ± {hit_e} e"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles), fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


def draw_offsets(
    path: Path, scans: Mapping[str, Sequence[Scanned]], marks: Mapping[str, tuple[float, float]]
) -> None:
    """Draw the oxidation state of each standard against the offset, in one panel per element.

    Parameters
    ----------
    path : Path
        File to write.
    scans : mapping of str to sequence of Scanned
        Scans of the standards, by element.
    marks : mapping of str to (float, float)
        Offset of the card and best offset, eV, by element; elements without a best offset are absent.
    """
    columns = max(1, min(_PANELS, len(scans)))
    rows = -(-len(scans) // columns)
    figure = Figure(figsize=(4.6 * columns + 0.8, 4.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    known = [scan.known for group in scans.values() for scan in group if scan.known is not None]
    colours = ScalarMappable(Normalize(min(known, default=0), max([*known, 1])), cmap="viridis")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(scans) :]:
        axes.set_axis_off()
    for axes, (element, group) in zip(panels, scans.items(), strict=False):
        for scan in group:
            colour = GREY if scan.known is None else colours.to_rgba(np.array(scan.known))
            axes.plot(scan.offsets_ev, scan.os, color=colour, lw=1.2, ls=":" if scan.known is None else "-")
        for state in sorted({scan.known for scan in group if scan.known is not None}):
            axes.axhline(state, color=colours.to_rgba(np.array(state)), lw=0.8, ls="--")
        if element in marks:
            card_ev, best_ev = marks[element]
            axes.axvline(card_ev, color=GREY, lw=0.8)
            axes.axvline(best_ev, color=RED, lw=0.8)
        axes.set_title(element, loc="left")
        axes.set_xlabel("FEFF − experiment (eV); grey: card, red: best")
        axes.set_ylabel("mean oxidation state (e)")
        _name_curves(axes, group)
    figure.colorbar(colours, ax=panels.tolist(), aspect=50, label="known oxidation state (e); dotted: not judged")
    figure.savefig(path, dpi=110)


def _name_curves(axes: Axes, scans: Sequence[Scanned]) -> None:
    """Write the names right of the panel, each with a line to the end of its curve, which it may not meet."""
    found = [scan for scan in scans if np.isfinite(scan.os).any()]
    if not found:
        return
    last = [int(np.flatnonzero(np.isfinite(scan.os))[-1]) for scan in found]
    ends = [(float(scan.offsets_ev[k]), float(scan.os[k])) for scan, k in zip(found, last, strict=True)]
    low, high = axes.get_ylim()
    heights = (np.array([os for _, os in ends]) - low) / (high - low)
    order = np.argsort(heights, kind="stable")
    for i, place in zip(order, _apart(heights[order]), strict=True):
        axes.annotate(
            escaped(found[i].name),
            ends[i],
            (1.08, float(place)),
            textcoords=axes.transAxes,
            fontsize=6,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.4, "shrinkA": 0, "shrinkB": 0},
        )


def _apart(heights: Array) -> Array:
    """Return (K,) ascending heights from 0 to 1, moved as far as it takes to be ``_LINE`` apart."""
    steps = _LINE * np.arange(len(heights))
    up = np.maximum.accumulate(heights - steps)
    down = np.minimum.accumulate((heights - steps)[::-1])[::-1]
    return np.clip((up + down) / 2 + steps, steps, 1 - steps[::-1])
