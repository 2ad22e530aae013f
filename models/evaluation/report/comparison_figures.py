"""Figures that compare models and variants: one panel per descriptor, the SPT on top in blue.

The figures do not use pyplot, and compute no scores.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .style import (
    GREEN,
    GREY,
    RED,
    STYLE,
    legend_below,
    numbers,
    pale,
    panelled,
    part,
    rank,
    style_of,
)
from .tables import FigureOfMerit


def _metric(descriptor: str, classified: Collection[str]) -> str:
    return f"{descriptor}  ({'weighted F1' if descriptor in classified else 'R²'})"


@STYLE
def score_bars(scores: Mapping[str, Mapping[str, FigureOfMerit]], classified: Collection[str]) -> Figure:
    """Draw headline scores by competitor and descriptor with their bootstrap intervals, the best in bold.

    Bars begin at 0; a negative score is drawn as 0 with its value.
    """
    names, descriptors = list(scores), _inner(scores)
    figure, panels = panelled(len(descriptors), height=0.9 + 0.19 * len(names), sharey=True)
    at = range(len(names))
    for axes, d in zip(panels, descriptors, strict=True):
        found = [scores[n].get(d) for n in names]
        best = max((m.value for m in found if m and np.isfinite(m.value)), default=np.nan)
        for y, name, m in zip(at, names, found, strict=True):
            if m is None or not np.isfinite(m.value):
                axes.text(0.02, y, "–", va="center", color=GREY)
                continue
            shown, lo, hi = (min(max(v, 0.0), 1.0) for v in (m.value, m.lo, m.hi))
            colour = style_of(name)[0]
            axes.barh(y, shown, height=0.72, color=colour if rank(name) == 0 else pale(colour))
            axes.plot([lo, hi], [y, y], color="#222222", lw=1.1, solid_capstyle="butt")
            axes.text(
                1.04, y, f"{m.value:.3f}", va="center", fontsize=8, weight="bold" if m.value == best else "normal"
            )
        axes.set(xlim=(0, 1), yticks=at, yticklabels=names)
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.set_title(_metric(d, classified))
    if panels:
        panels[0].invert_yaxis()
    return figure


@STYLE
def differences(
    found: Mapping[str, Mapping[str, FigureOfMerit]], xlabel: str = "difference to the full model"
) -> Figure:
    """Draw differences of the headline score by variant and descriptor, with their intervals.

    Intervals that contain zero are grey.
    """
    names, descriptors = list(found), _inner(found)
    figure, panels = panelled(len(descriptors), height=0.9 + 0.21 * len(names), xlabel=xlabel, sharey=True)
    for axes, d in zip(panels, descriptors, strict=True):
        for y, name in enumerate(names):
            m = found[name].get(d)
            if m is None or not np.isfinite(m.value):
                continue
            colour = GREY if m.lo <= 0 <= m.hi else (RED if m.value < 0 else GREEN)
            axes.plot([m.lo, m.hi], [y, y], color=colour, lw=1.6, solid_capstyle="butt")
            axes.plot(m.value, y, "o", color=colour, ms=4.5)
        axes.axvline(0, color="#222222", lw=0.9)
        axes.set(yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.4, -0.6))
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(3, symmetric=False, steps=[1, 2, 5, 10]))
        axes.grid(axis="x")
        axes.set_title(d)
    return figure


@STYLE
def curves(
    table: pd.DataFrame, by: str, x: str, xlabel: str, classified: Collection[str] = (), panel: str = "descriptor"
) -> Figure:
    """Draw scores against an amount, for robustness and transfer: one line per ``by``, one panel per ``panel``.

    Parameters
    ----------
    table
        Columns ``panel``, ``by``, ``x`` and ``score``; with ``standard_error`` the lines have error bars, with
        ``low`` and ``high`` the line of the SPT has a band.
    """
    groups = list(dict.fromkeys(table[panel]))
    figure, panels = panelled(len(groups), height=2.3, xlabel=xlabel, sharex=True)
    for axes, group in zip(panels, groups, strict=True):
        here = part(table, panel, group)
        for name in dict.fromkeys(here[by]):
            rows = part(here, by, name).sort_values(by=x)
            at, score = numbers(rows, x), numbers(rows, "score")
            colour, dash, marker = style_of(str(name))
            first = rank(str(name)) == 0
            axes.plot(
                at, score, dash, marker=marker, color=colour, ms=4 if first else 3.5, lw=2.4 if first else 1.2,
                label=str(name), zorder=4 if first else 3, alpha=1 if first else 0.9,
            )  # fmt: skip
            if "standard_error" in rows:
                axes.errorbar(at, score, numbers(rows, "standard_error"), fmt="none", ecolor=colour, lw=1)
            if first and "low" in rows:
                lo, hi = numbers(rows, "low"), numbers(rows, "high")
                axes.fill_between(at, lo, hi, color=colour, alpha=0.15, lw=0)
        scores = numbers(here, "score")
        lowest = float(np.nanmin(scores)) if np.isfinite(scores).any() else 0.0
        if lowest < 0:  # R² has no lower limit; below 0 a model is useless
            axes.set_ylim(bottom=max(lowest - 0.05, -0.25))
        axes.grid(axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.set_title(_metric(str(group), classified) if classified else str(group))
    legend_below(figure, panels)
    return figure


def _inner(nested: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(d for inner in nested.values() for d in inner))
