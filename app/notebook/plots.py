"""Plots of series and of alignments with matplotlib."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from ...adapters.formats import FileSpectrum
from ...agent.types import Z90, InputError, Refusal
from ..agent import XASAgent
from ..output.data_frames import Results
from ..output.figures import (
    ALIGNMENT_SIZE,
    BLUE,
    COLOURS,
    GREY,
    RED,
    Range,
    bars_of,
    draw_alignment_on,
    draw_bars,
    escaped,
    view_of,
)
from ..output.recorder import OOD_LIMIT, leading
from .estimates import answer_of, settings_of
from .inputs import items_of, spectra_of
from .sessions import read_session

if TYPE_CHECKING:
    import pandas as pd

_HOURS_FROM_S, _MINUTES_FROM_S = 3 * 3600, 300
"""Durations above which the time axis is in hours or in minutes, s."""
_NAMED = 8
"""Largest number of series that the legend names."""


def table_of(data: Any) -> "pd.DataFrame":
    """Return the series of an agent, of results or of a session's folder; a DataFrame is returned unchanged."""
    if isinstance(data, str | Path):
        data = read_session(data)
    return data.series() if isinstance(data, XASAgent | Results) else data


def plot_series(
    data: "XASAgent | Results | pd.DataFrame | str | Path", quantity: str | None = None, *, ax: Axes | None = None
) -> Axes:
    """Plot a descriptor, or any other column, over time.

    A band holds 90 % of the repeats of the same sample (± 1.645 ``sd_frame``). The title states how far a single
    value may be off; all frames of a series share most of that error. Frames unlike the training spectra are open
    circles, frames set aside are marks on the time axis. For an agent, results or a folder, dashed lines show the
    levels at which rules judge the quantity; a table does not contain them.

    Parameters
    ----------
    data : XASAgent, Results, DataFrame, str or Path
        An agent, :func:`read_session`, one of their tables, or a session's folder.
    quantity : str, optional
        Descriptor (``"OS"``, ``"CN"``) or column (``"ood_score"``); by default the oxidation state, or the first
        descriptor.
    ax : Axes, optional
        Axes to plot into; by default those of a new figure.

    Returns
    -------
    Axes

    Raises
    ------
    InputError
        There is no such quantity, or no frame.
    """
    if isinstance(data, str | Path):
        data = read_session(data)
    table = table_of(data)
    if not len(table):
        raise InputError("plot_series: found no frames, expected some: agent.wait() waits for those sent so far")
    name = quantity or leading(dict.fromkeys(map(str, table.columns)))
    column = name if f"{name}_mean" not in table else f"{name}_mean"
    numbers = [c for c in table if table[c].dtype.kind in "if"]
    if column not in numbers:
        known = ", ".join(dict.fromkeys(c.removesuffix("_mean") for c in numbers))
        raise InputError(f"plot_series: found {name!r}, expected a descriptor or column of numbers: {known}")
    if ax is None:
        import matplotlib.pyplot as plt  # imported late, since it chooses a backend

        ax = plt.figure(figsize=(7, 3.6), layout="constrained").add_subplot()
    seconds = (table["time"] - table["time"].min()).to_numpy(float)
    scale, unit = _scale(float(seconds.max()))
    table = table.assign(clock=seconds / scale)
    answered = table.loc[table["reason"] == ""] if "reason" in table else table
    groups = (
        list(answered.groupby(["series", "element"], sort=False)) if "series" in table else [(("", ""), answered)]
    )
    for number, (_, frames) in enumerate(groups):
        colour = BLUE if len(groups) == 1 else COLOURS[number % len(COLOURS)]
        first = frames.iloc[0]
        label = escaped(str(first.get("sample") or first.get("series") or "")[:40])
        _plot_frames(ax, frames, name, column, colour, label if len(groups) > 1 and number < _NAMED else None)
    if len(groups) > _NAMED:
        ax.plot([], [], " ", label=f"and {len(groups) - _NAMED} more")
    _plot_set_aside(ax, table)
    of = str(table.attrs.get("units", {}).get(column, "")).replace("dimensionless", "")
    ax.set_ylabel(escaped(f"{name} ({of})" if of else name))
    ax.set_xlabel(f"time since the first frame ({unit})")
    if isinstance(data, XASAgent | Results):
        _plot_bars(ax, data, name, answered[column].to_numpy(float), of)
    samples = list(dict.fromkeys(answered["sample"])) if "sample" in table else []
    ax.set_title(escaped(str(samples[0]) if len(samples) == 1 else ""), loc="left", fontsize=10)
    ax.set_title(_common(answered, name, of), loc="right", fontsize=8, color=GREY)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(fontsize=8, frameon=False)
    return ax


def _plot_frames(ax: Axes, frames: "pd.DataFrame", name: str, column: str, colour: str, label: str | None) -> None:
    x, y = frames["clock"].to_numpy(), frames[column].to_numpy(float)
    unlike = frames["ood_score"].to_numpy(float) > OOD_LIMIT if "ood_score" in frames else np.zeros(len(x), bool)
    if (sd := frames.get(f"{name}_sd_frame")) is not None:
        inner = Z90 * np.where(unlike, np.nan, sd.to_numpy(float))
        ax.fill_between(x, y - inner, y + inner, color=colour, alpha=0.25, lw=0)
    ax.plot(x, y, ".-", color=colour, ms=4, lw=1, label=label)
    if unlike.any():
        taken = ax.get_legend_handles_labels()[1]
        told = "unlike the training spectra"
        ax.plot(x[unlike], y[unlike], "o", color=RED, mfc="none", ms=6, label=None if told in taken else told)


def _plot_bars(ax: Axes, data: XASAgent | Results, name: str, values: "np.ndarray", unit: str) -> None:
    """Draw the levels of rules: near the values as lines, for which the panel grows; others as texts."""
    results = data.results if isinstance(data, XASAgent) else data
    bars = list(bars_of(results.history.recorder.rules, name))
    if not bars or not np.isfinite(values).any():
        return
    view = view_of(values, np.zeros(1), [level for level, _ in bars])
    low, high = ax.get_ylim()
    ax.set_ylim(min(low, view.low), max(high, view.high))
    draw_bars(ax, bars, values, Range(*ax.get_ylim()), unit, 60)


def _common(table: "pd.DataFrame", name: str, unit: str) -> str:
    """Return in words how far a single value may be off; an error bar would exceed most trends."""
    if f"{name}_lo" not in table or not np.isfinite(table[f"{name}_mean"]).any():
        return ""
    lo, hi = (float(np.nanmedian(table[f"{name}_{end}"].to_numpy(float))) for end in ("lo", "hi"))
    return f"a single value: ± {(hi - lo) / 2:.2g} {unit} (90 %), mostly common to all"


def _plot_set_aside(ax: Axes, table: "pd.DataFrame") -> None:
    aside = table[table["reason"] != ""] if "reason" in table else table[:0]
    if len(aside):
        marks = np.zeros(len(aside))
        ax.plot(
            aside["clock"],
            marks,
            "|",
            color=RED,
            ms=10,
            mew=1.5,
            clip_on=False,
            transform=ax.get_xaxis_transform(),
            label=f"set aside ({len(aside)})",
        )


def _scale(seconds: float) -> tuple[float, str]:
    if seconds > _HOURS_FROM_S:
        return 3600.0, "h"
    return (60.0, "min") if seconds > _MINUTES_FROM_S else (1.0, "s")


def plot_alignment(
    energy: Any,
    mu: Any = None,
    *,
    element: str | None = None,
    edge: str | None = None,
    model: str | Path | None = None,
    reference: Any = None,
    config: Any = None,
    figure: Figure | SubFigure | None = None,
) -> tuple[Axes, ...]:
    """Plot a spectrum as measured, with its pre-edge and post-edge lines and E0, and on the grid of its model.

    Parameters
    ----------
    energy, mu, element, edge, model, reference, config
        One spectrum, as for :func:`infer`.
    figure : Figure or SubFigure, optional
        Figure to plot into; by default a new one.

    Returns
    -------
    tuple of Axes

    Raises
    ------
    InputError
        The arguments are not one spectrum, or no model or several match it; the message states why.
    """
    items = items_of(energy) if mu is None else spectra_of(energy, mu, reference)
    if len(items) != 1:
        raise InputError(f"plot_alignment: found {len(items)} spectra, expected one: choose it, as spectra[0]")
    item = items[0]
    if not isinstance(item, FileSpectrum):
        raise InputError(f"plot_alignment: {item[0].source}: {item[1].detail}")
    answer = answer_of(item, settings_of(config, model, element, edge))
    if isinstance(answer, Refusal) or answer.aligned is None or answer.model is None:
        refusal = answer if isinstance(answer, Refusal) else answer.refusal
        assert refusal is not None
        found = f"found a spectrum that cannot be aligned, {refusal}"
        raise InputError(f"plot_alignment: {found}. {refusal.reason.remedy}")
    if figure is None:
        import matplotlib.pyplot as plt

        figure = plt.figure(figsize=ALIGNMENT_SIZE, layout="constrained")
    names = (item.id if item.source else "", item.sample_or_title, answer.model.name)
    title = ", ".join(name for name in names if name)
    whole = figure.get_figure(root=True)
    assert whole is not None
    before = whole.axes
    draw_alignment_on(figure, title, answer)
    return tuple(axes for axes in whole.axes if axes not in before)
