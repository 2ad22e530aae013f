"""The picture of a session: what was measured, how it changed, and what was decided and why."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.gridspec import GridSpec

from ....agent.decide import Rule
from ..recorder import Drawn, leading
from ..truth import Truth
from .columns import Column, begun, columns_of
from .header import WORDS, draw_header, headline, height_of, lines_of, numbers_of
from .panels import (
    chosen,
    computed,
    draw_computed,
    draw_driver,
    draw_score,
    draw_spectra,
    driver_of,
    has_difference,
)
from .style import AMBER, COLOURS, DARK, DPI, any_letters, listed, new_figure, plain, short, wrapped
from .trend import draw_decisions, draw_set_aside, draw_trend

MOST_COLUMNS = 8
"""Largest number of samples with their own panels, the latest ones; an overview shows all."""
_BESIDE = 2
"""Number of samples side by side."""
_HEIGHTS = {
    "title": 0.55,
    "trend": 2.75,
    "driver": 0.85,
    "computed": 1.0,
    "other": 0.95,
    "score": 0.75,
    "spectra": 1.9,
    "difference": 1.0,
}
_LEGEND_ROW = 4
"""Largest number of legend entries on one line."""
_COMPUTED = 2
"""Largest number of panels of values that rules computed."""


def draw_operando(file: Path | BinaryIO, drawn: Drawn, truth: Truth | None) -> None:
    """Draw a session as PNG: for each sample the estimates over time, their driver, decisions, and spectra."""
    with any_letters():
        figure = operando_figure(drawn, truth)
        figure.savefig(file, dpi=DPI, format="png")


def save_svg(figure: Figure) -> bytes:
    """Return a figure as SVG whose bytes are reproducible."""
    image = BytesIO()
    with any_letters(), rc_context({"svg.hashsalt": "xas-agent"}):
        figure.savefig(image, format="svg", metadata={"Date": None})
    return image.getvalue()


def part_of_series(drawn: Drawn, series: str, element: str) -> Drawn:
    """Return the part of the data that the picture of one series and element shows."""
    frames = [frame for frame in drawn.frames if (frame.series, frame.row["element"]) == (series, element)]
    runs = {frame.row["run_uid"] for frame in frames}
    whole = drawn.count == len(drawn.frames)
    notes = [note for note in drawn.notes if note.run_uid in runs]
    before = np.flatnonzero([(f.series, f.row["element"]) == (series, element) for f in drawn.frames])
    set_aside = Counter[str]()
    for note in notes:
        set_aside[note.reason] += note.count
    return replace(
        drawn,
        frames=frames,
        count=len(frames) if whole else max(len(frames) + 1, drawn.count),
        decisions=[d for d in drawn.decisions if d["run_uid"] in runs and d["element"] in ("", element)],
        notes=[replace(note, after=int((before < note.after).sum())) for note in notes],
        set_aside=dict(set_aside),
    )


def operando_figure(drawn: Drawn, truth: Truth | None) -> Figure:
    """Return the picture of a session with all its samples."""
    if not drawn.frames:
        return _without_frames(drawn)
    columns = columns_of(drawn)
    shown = columns if len(columns) <= MOST_COLUMNS else sorted(columns, key=lambda c: c.clock[-1])[-MOST_COLUMNS:]
    lines = lines_of(drawn, columns)
    blocks = [shown[k : k + _BESIDE] for k in range(0, len(shown), _BESIDE)]
    plans = [_plan(block, drawn, alone=len(columns) == 1) for block in blocks]
    heights = [
        height_of(lines),
        *([2.6] if len(columns) > 1 else []),
        *(sum(h for _, h in plan) + 0.25 for plan in plans),
    ]
    figure = new_figure(sum(heights))
    parts: list[SubFigure] = [*figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]]
    draw_header(parts.pop(0), lines, heights[0])
    numbers = numbers_of(columns)
    if len(columns) > 1:
        _overview(parts.pop(0), columns, drawn, numbers, len(shown))
    for part, block, plan in zip(parts, blocks, plans, strict=True):
        _draw_block(part, block, plan, drawn, truth, numbers, alone=len(columns) == 1)
    return figure


def _plan(block: Sequence[Column], drawn: Drawn, *, alone: bool) -> list[tuple[str, float]]:
    """Return the panels of samples side by side, from the top, with their heights, inches."""
    plan = [("trend", 1.0)] if alone else [("title", 1.0), ("trend", 0.75)]
    plan += [("driver", 1.0)] if any(driver_of(column) for column in block) else []
    most = max(len(computed(column, drawn.rules)) for column in block)
    plan += [(f"computed{k}", 1.0) for k in range(min(most, _COMPUTED))]
    others = max(len(chosen(column, drawn, _others(alone))[0]) for column in block)
    plan += [(f"other{k}", 1.0) for k in range(others)]
    plan += [("score", 1.0)]
    plan += [("spectra", 1.0 if alone else 0.8)] if drawn.grid is not None else []
    plan += [("difference", 1.0)] if any(has_difference(column, drawn.grid) for column in block) else []
    return [(name, factor * _HEIGHTS[name.rstrip("0123456789")]) for name, factor in plan]


def _others(alone: bool) -> int:
    return 2 if alone else 1


def _draw_block(
    part: SubFigure,
    block: Sequence[Column],
    plan: Sequence[tuple[str, float]],
    drawn: Drawn,
    truth: Truth | None,
    numbers: dict[str, int],
    *,
    alone: bool,
) -> None:
    widths = [1.0, 0.12 if alone else 0.17] * (1 if alone else _BESIDE)
    grid = part.add_gridspec(
        len(plan), len(widths), height_ratios=[height for _, height in plan], width_ratios=widths
    )
    for number, column in enumerate(block):
        _draw_column(part, grid, 2 * number, column, plan, drawn, truth, numbers, alone=alone)


def _draw_column(
    part: SubFigure,
    grid: GridSpec,
    at: int,
    column: Column,
    plan: Sequence[tuple[str, float]],
    drawn: Drawn,
    truth: Truth | None,
    numbers: dict[str, int],
    *,
    alone: bool,
) -> None:
    """Draw the panels of one sample."""
    others, rest = chosen(column, drawn, _others(alone))
    values, timed = computed(column, drawn.rules), list[Axes]()
    spectra: Axes | None = None
    for row, (name, _) in enumerate(plan):
        if name in ("spectra", "difference"):
            if name == "difference" and not has_difference(column, drawn.grid):
                continue
            axes = part.add_subplot(grid[row, at : at + 2], sharex=spectra if name == "difference" else None)
            spectra = axes if name == "spectra" else spectra
            plain(axes)
            if name == "difference":
                _spectra(spectra, axes, column, drawn)
            continue
        if name == "title":
            axes = part.add_subplot(grid[row, at : at + 2])
            axes.set_axis_off()
            text = f"{short(column.name, 38)}\n{headline(column, drawn, column.first, brief=True)}"
            axes.text(0, 0.35, text, fontsize=10, fontweight="bold", color=DARK).set_in_layout(False)
            continue
        axes = part.add_subplot(grid[row, at], sharex=timed[0] if timed else None)
        side = None if name == "score" else part.add_subplot(grid[row, at + 1])
        if side is not None:
            side.set_axis_off()
        if _draw_panel(axes, side, name, column, others, values, drawn, truth, alone=alone):
            plain(axes)
            timed.append(axes)
        else:
            axes.set_axis_off()
    if spectra is not None and not has_difference(column, drawn.grid):
        _spectra(spectra, None, column, drawn)
    _join(timed, column, numbers)
    if rest and alone:
        ends = [f"{WORDS.get(n, n)} {_at_the_end(column, n)} {drawn.descriptors.get(n, '')}".rstrip() for n in rest]
        said = listed("not drawn, last:", ends, 95)
        timed[-1].set_xlabel(f"{timed[-1].get_xlabel()}\n{said}", fontsize=9)


def _spectra(axes: Axes | None, below: Axes | None, column: Column, drawn: Drawn) -> None:
    if axes is not None and drawn.grid is not None:
        draw_spectra(axes, below, column, drawn.grid)


def _at_the_end(column: Column, name: str) -> str:
    """Return the last value of a descriptor in words."""
    known = column.values(f"{name}_mean")
    known = known[np.isfinite(known)]
    return f"{known[-1]:.3g}" if len(known) else "–"


def _draw_panel(
    axes: Axes,
    side: Axes | None,
    name: str,
    column: Column,
    others: Sequence[str],
    values: Sequence[Any],
    drawn: Drawn,
    truth: Truth | None,
    *,
    alone: bool,
) -> bool:
    """Draw one panel over time; return False if the sample has none of this kind."""
    kind, number = name.rstrip("0123456789"), int(name[len(name.rstrip("0123456789")) :] or 0)
    rules: Sequence[Rule] = drawn.rules
    if kind == "trend":
        first = column.first
        unit = drawn.descriptors.get(first) or drawn.descriptors.get(leading(column.rows[-1]), "")
        draw_trend(axes, side, column, first, unit, rules, truth, room=60 if alone else 32)
        words = WORDS.get(first.removesuffix("_anchored"), first) if alone else first
        axes.set_ylabel(
            short(f"{words} ({unit})" if unit else words, 40 if alone else 26), fontsize=10 if alone else 9
        )
        if column.notes:
            draw_set_aside(axes, [at for at, _ in column.notes])
        if alone:
            lines = _legend_above(axes)
            title = headline(column, drawn, first)
            axes.set_title(title, loc="left", fontsize=10.5, pad=21 + 12 * lines, fontweight="bold")
    elif kind == "driver":
        driver = driver_of(column)
        if driver is None:
            return False
        draw_driver(axes, column, driver, drawn)
    elif kind == "computed":
        if number >= len(values):
            return False
        draw_computed(axes, values[number], rules, 95 if alone else 46)
    elif kind == "other":
        if number >= len(others):
            return False
        other = others[number]
        unit = drawn.descriptors.get(other, "")
        draw_trend(axes, None, column, other, unit, rules, room=60 if alone else 32)
        words = "\n".join(textwrap.wrap(WORDS.get(other, other), 14)[:2])
        axes.set_ylabel(f"{words} ({unit})" if unit else words, fontsize=8.5)
        if side is not None:
            _say_interval(side, column, other, unit, alone=alone)
    else:
        draw_score(axes, column, rules)
    return True


def _legend_above(axes: Axes) -> int:
    """Draw the legend of a panel above the numbers of its decisions; return its number of lines of text."""
    handles, labels = axes.get_legend_handles_labels()
    beside = len(labels) if len(labels) <= _LEGEND_ROW else 3
    legend = axes.legend(
        handles, labels, loc="lower left", bbox_to_anchor=(-0.025, 1), ncols=beside, fontsize=8, frameon=False,
        handlelength=1.6, columnspacing=1.0, handletextpad=0.5, borderaxespad=1.7, borderpad=0.2, labelspacing=0.3,
    )  # fmt: skip
    legend.set_in_layout(False)  # the title leaves room for it
    return -(-len(labels) // beside)


def _say_interval(side: Axes, column: Column, name: str, unit: str, *, alone: bool) -> None:
    """Write the half-width of the 90 % interval of all causes beside a small panel."""
    half = (column.values(f"{name}_hi") - column.values(f"{name}_lo")) / 2
    if np.isfinite(half).any():
        said = "all errors\n(90 %)" if alone else "all\nerrors"
        text = f"{said}\n± {half[np.isfinite(half)][-1]:.2g}{f' {unit}' if alone and unit else ''}"
        note = side.text(0.0, 0.5, text, transform=side.transAxes, fontsize=7.5, va="center", color=DARK)
        note.set_in_layout(False)


def _join(timed: Sequence[Axes], column: Column, numbers: dict[str, int]) -> None:
    """Draw the decisions in the panels over time, and give these a common time axis."""
    groups: dict[int, list[float]] = {}
    for at, row in column.decisions:
        groups.setdefault(numbers[row["id"]], []).append(at)
    if len(column.rows) == 1 and not column.decisions and not column.notes:
        timed[0].set_xticks(column.clock)
    draw_decisions(timed, groups)
    for axes in timed[:-1]:
        axes.tick_params(labelbottom=False)
    timed[-1].set_xlabel(f"time since the first frame ({column.unit})", fontsize=9)


def _overview(part: SubFigure, columns: Sequence[Column], drawn: Drawn, numbers: dict[str, int], shown: int) -> None:
    """Draw all series in one panel."""
    axes = part.add_subplot()
    plain(axes)
    for number, column in enumerate(columns):
        values = column.values(f"{column.first}_mean")
        colour = COLOURS[number % len(COLOURS)]
        known = np.where(column.familiar, values, np.nan)
        axes.plot(column.clock, known, "o-", ms=3, lw=0.9, color=colour)
        if (~column.familiar).any():
            axes.plot(
                column.clock[~column.familiar], values[~column.familiar], "o", ms=3, color=colour, mfc="white", lw=0
            )
        if len(columns) <= MOST_COLUMNS and np.isfinite(values).any():
            at = int(np.flatnonzero(np.isfinite(values))[-1])
            axes.annotate(
                short(column.name.split(",")[0], 18), (column.clock[at], values[at]), xytext=(3, -11),
                textcoords="offset points", fontsize=8, color=colour,
            )  # fmt: skip
    first = columns[0].first
    unit = drawn.descriptors.get(first, "")
    more = "" if shown == len(columns) else f"; below: the latest {shown}"
    axes.set_title(f"{len(columns)} series{more}", loc="left", fontsize=10.5, fontweight="bold", pad=14)
    words = WORDS.get(first.removesuffix("_anchored"), first)
    axes.set_ylabel(f"{words} ({unit})" if unit else words, fontsize=10)
    axes.set_xlabel(f"time since the first frame ({columns[0].unit})", fontsize=9)
    groups: dict[int, list[float]] = {}
    for column in columns:
        for at, row in column.decisions:
            groups.setdefault(numbers[row["id"]], []).append(at)
    draw_decisions([axes], groups)


def _without_frames(drawn: Drawn) -> Figure:
    """Return the picture of a session without answered frames, which shows the reasons."""
    figure = new_figure(2.0)
    axes = figure.add_subplot()
    axes.set_axis_off()
    said = ", ".join(f"{count} {reason}" for reason, count in drawn.set_aside.items()) or "nothing was measured"
    when = f"{begun(drawn)}\n" if drawn.notes else ""
    axes.text(0, 0.95, "no frame was answered", fontsize=13, fontweight="bold", va="top", color=DARK)
    axes.text(0, 0.7, f"{when}{wrapped(f'set aside: {said}', 90)}", fontsize=9.5, va="top", color=AMBER)
    return figure
