"""Figures about one model: confusion, ROC, parity, reliability and coverage, with one panel per descriptor.

The figures do not use pyplot, and compute no scores.
"""

from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from ....agent.types import Array
from .style import (
    BLUE,
    DENSE_POINTS,
    GREEN,
    GREY,
    RED,
    STYLE,
    WIDTH,
    corner,
    limits,
    numbers,
    pale,
    panelled,
    part,
)
from .tables import Roc


@STYLE
def confusion_matrices(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw confusion matrices: true classes as rows, coloured by their shares, with counts if there is space."""
    figure, panels = panelled(len(tables), columns=3, height=3.1)
    image = ScalarMappable(Normalize(0, 1), "Blues")
    for axes, (name, table) in zip(panels, tables.items(), strict=True):
        counts = table.to_numpy(dtype=float)
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        size = len(counts)
        if size <= 16:
            for i, j in zip(*np.nonzero(counts), strict=True):
                axes.text(
                    j, i, f"{counts[i, j]:.0f}", ha="center", va="center", fontsize=8.5 if size <= 8 else 6,
                    color="white" if share[i, j] > 0.55 else "#222222",
                )  # fmt: skip
        step = -(-size // 16)
        axes.set_xticks(range(0, size, step), [f"{c}" for c in table.columns[::step]])
        axes.set_yticks(range(0, size, step), [f"{c}" for c in table.index[::step]])
        axes.tick_params(length=0, labelsize=9 if size <= 8 else 7)
        axes.spines[:].set_visible(False)
        axes.set_title(name)
        axes.set(xlabel="predicted", ylabel="true")
    if panels:
        figure.colorbar(image, ax=panels, label="share of the true class", shrink=0.5, aspect=30, pad=0.01)
    return figure


@STYLE
def roc_curves(rocs: Mapping[str, Roc]) -> Figure:
    """Draw ROC curves of each class against the rest, with AUROC, or its range for many classes."""
    figure, panels = panelled(len(rocs), columns=3, height=3.0)
    for axes, (name, found) in zip(panels, rocs.items(), strict=True):
        count = len(found.curves)
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.92, count))
        for colour, (c, (false, true)) in zip(colours, found.curves.items(), strict=True):
            axes.plot(false, true, color=colour, lw=1.4 if count <= 14 else 0.9, label=f"{c}: {found.auroc[c]:.3f}")
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", xlabel="false positives")
        axes.set_ylabel("true positives")
        axes.set_title(f"{name}, mean {found.weighted:.3f}")
        if count > 14:
            lo, hi = min(found.auroc.values()), max(found.auroc.values())
            corner(axes, f"{count} classes, {lo:.3f} to {hi:.3f}", "lower right")
        elif count:
            axes.legend(loc="lower right", fontsize=7.5, ncols=1 + count // 9, handlelength=1.2, columnspacing=0.8)
    return figure


@STYLE
def parity(pairs: Mapping[str, tuple[Array, Array]], units: Mapping[str, str] | None = None) -> Figure:
    """Draw predicted against true values of regressed quantities, pairs of (n,); NaN truths are left out."""
    figure, panels = panelled(len(pairs), columns=3, height=3.2)
    for axes, (name, (true, predicted)) in zip(panels, pairs.items(), strict=True):
        known = ~np.isnan(true)
        t, p = true[known], predicted[known]
        lo, hi = limits(np.r_[t, np.percentile(p, [0.5, 99.5])] if len(p) else t)
        axes.plot([lo, hi], [lo, hi], color=GREY, lw=0.9)
        if len(t) > DENSE_POINTS:
            cells = axes.hexbin(
                t, p.clip(lo, hi), gridsize=45, norm=LogNorm(), cmap="viridis", extent=(lo, hi, lo, hi)
            )
            cells.set_rasterized(True)
            figure.colorbar(cells, ax=axes, label="rows", shrink=0.7, format=StrMethodFormatter("{x:g}"))
        else:
            axes.plot(t, p.clip(lo, hi), "o", color=BLUE, ms=4, mew=0, alpha=0.35)
        spread = ((t - t.mean()) ** 2).sum() if len(t) else 0.0
        r2 = 1 - ((t - p) ** 2).sum() / spread if spread else float("nan")
        unit = (units or {}).get(name, "")
        mae = np.abs(t - p).mean() if len(t) else float("nan")
        corner(axes, f"R² {r2:.3f}\nMAE {mae:.3g} {unit}\n{len(t):,} rows")
        axes.set(xlim=(lo, hi), ylim=(lo, hi), aspect="equal", xlabel=f"true{f' ({unit})' if unit else ''}")
        axes.set(ylabel="predicted")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.set_title(name)
    return figure


@STYLE
def reliability(tables: Mapping[str, tuple[pd.DataFrame, float]]) -> Figure:
    """Draw the share of correct answers against confidence (:func:`~.tables.calibration`) above the confidences."""
    count = len(tables)
    figure = Figure(figsize=(max(2.0 * count, 4.0), 3.3), layout="constrained")
    panels = figure.subplots(2, max(count, 1), squeeze=False, sharex=True, sharey="row", height_ratios=(3, 1))
    for (axes, below), (name, (table, error)) in zip(panels.T, tables.items(), strict=True):
        sure, right, rows = (numbers(table, c) for c in ("confidence", "correct", "rows"))
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.9)
        # Wilson's interval of one standard error, which is finite for shares of 0 and 1.
        centre = (right + 0.5 / rows) / (1 + 1 / rows)
        half = np.sqrt(right * (1 - right) / rows + 0.25 / rows**2) / (1 + 1 / rows)
        axes.vlines(sure, centre - half, centre + half, color=BLUE, lw=0.9)
        axes.plot(sure, right, "o-", color=BLUE, ms=4, lw=1.3)
        axes.set(xlim=(0, 1), ylim=(0, 1.03))
        axes.grid()
        axes.set_title(name)
        corner(axes, f"ECE {error:.3f}", "lower right")
        below.bar(sure, rows / max(rows.sum(), 1), width=0.07, color=pale(BLUE))
        below.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        below.set_yticks([])
    panels[0, 0].set_ylabel("share correct")
    panels[1, 0].set_ylabel("rows")
    figure.supxlabel("confidence", fontsize=9.5)
    return figure


@STYLE
def coverage(table: pd.DataFrame, target: float = 0.9, units: Mapping[str, str] | None = None) -> Figure:
    """Draw coverage, with its interval, and width of the intervals by condition and descriptor.

    Parameters
    ----------
    table
        Columns ``descriptor``, ``condition``, ``coverage``, ``low``, ``high`` and ``width``.
    """
    descriptors, conditions = (list(dict.fromkeys(table[c])) for c in ("descriptor", "condition"))
    figure = Figure(figsize=(WIDTH, 1.3 + 0.44 * len(conditions) + 0.6), layout="constrained")
    panels = figure.subplots(2, max(len(descriptors), 1), squeeze=False, sharey=True)
    at = {c: k for k, c in enumerate(conditions)}
    for (above, below), d in zip(panels.T, descriptors, strict=True):
        rows = part(table, "descriptor", d)
        y = [at[c] for c in rows["condition"]]
        share, lo, hi, width = (numbers(rows, c) for c in ("coverage", "low", "high", "width"))
        above.axvline(target, color=GREY, lw=0.9, ls="--")
        for k, where in enumerate(y):
            colour = BLUE if lo[k] <= target <= hi[k] else RED if hi[k] < target else GREEN
            above.plot([lo[k], hi[k]], [where, where], color=colour, lw=1.6, solid_capstyle="butt")
            above.plot(share[k], where, "o", color=colour, ms=4.5, clip_on=False)  # many are 1
        above.set_xlim(min(0.75, float(np.nanmin(lo)) - 0.03) if len(lo) else 0, 1.0)
        above.xaxis.set_major_locator(MaxNLocator(3))
        below.barh(y, width, color=pale(BLUE), height=0.6)
        below.xaxis.set_major_locator(MaxNLocator(3))
        below.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        unit = (units or {}).get(str(d), "")
        below.set_xlabel(f"width{f' ({unit})' if unit else ''}")
        above.set_xlabel("coverage")
        above.set_title(str(d))
        for axes in (above, below):
            axes.set(yticks=range(len(conditions)), yticklabels=conditions, ylim=(len(conditions) - 0.4, -0.6))
            axes.tick_params(axis="y", length=0)
            axes.grid(axis="x")
    return figure
