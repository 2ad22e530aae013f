"""The figures of the report: small multiples, one panel per descriptor, the SPT on top in the house's blue.

All are made without pyplot; nothing here computes a score.
"""

from collections.abc import Collection, Mapping
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from numpy.typing import NDArray

from ....agent.types import Array
from .style import (
    BLUE,
    DENSE,
    GREEN,
    GREY,
    MARKERS,
    OTHERS,
    RED,
    STYLE,
    WIDTH,
    corner,
    legend_below,
    pale,
    panelled,
    rank,
    style_of,
)
from .tables import FigureOfMerit, Roc


def _metric(descriptor: str, classified: Collection[str]) -> str:
    return f"{descriptor}  ({'weighted F1' if descriptor in classified else 'R²'})"


# --- competitors ------------------------------------------------------------


@STYLE
def score_bars(scores: Mapping[str, Mapping[str, FigureOfMerit]], classified: Collection[str]) -> Figure:
    """Headline scores by competitor and descriptor with their bootstrap intervals, the best in bold.

    Bars begin at 0; a score below it is drawn as 0 and named.
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
    """Differences of the headline score by variant and descriptor, with their intervals; zero is the reference.

    Intervals that hold zero are drawn faint.
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
    """Score against an amount, a line per ``by``, a panel per ``panel``: robustness, and transfer with less data.

    Parameters
    ----------
    table
        Columns ``panel``, ``by``, ``x`` and ``score``; with ``standard_error`` the lines have error bars, with
        ``low`` and ``high`` the SPT's has a band.
    """
    groups = list(dict.fromkeys(table[panel]))
    figure, panels = panelled(len(groups), height=2.3, xlabel=xlabel, sharex=True)
    for axes, group in zip(panels, groups, strict=True):
        here = _part(table, panel, group)
        for name in dict.fromkeys(here[by]):
            rows = _part(here, by, name).sort_values(by=x)
            at, score = _numbers(rows, x), _numbers(rows, "score")
            colour, dash, marker = style_of(str(name))
            first = rank(str(name)) == 0
            axes.plot(
                at, score, dash, marker=marker, color=colour, ms=4 if first else 3.5, lw=2.4 if first else 1.2,
                label=str(name), zorder=4 if first else 3, alpha=1 if first else 0.9,
            )  # fmt: skip
            if "standard_error" in rows:
                axes.errorbar(at, score, _numbers(rows, "standard_error"), fmt="none", ecolor=colour, lw=1)
            if first and "low" in rows:
                lo, hi = _numbers(rows, "low"), _numbers(rows, "high")
                axes.fill_between(at, lo, hi, color=colour, alpha=0.15, lw=0)
        scores = _numbers(here, "score")
        lowest = float(np.nanmin(scores)) if np.isfinite(scores).any() else 0.0
        if lowest < 0:  # R² has no floor; what is below 0 is no model
            axes.set_ylim(bottom=max(lowest - 0.05, -0.25))
        axes.grid(axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
        axes.set_title(_metric(str(group), classified) if classified else str(group))
    legend_below(figure, panels)
    return figure


def _part(table: pd.DataFrame, column: str, value: object) -> pd.DataFrame:
    return table.loc[(table[column] == value).to_numpy()]


def _numbers(table: pd.DataFrame, column: str) -> Array:
    return np.asarray(table[column], dtype=float)


def _inner(nested: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(d for inner in nested.values() for d in inner))


# --- one model ------------------------------------------------------------


@STYLE
def confusion_matrices(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Rows: the true class, coloured by the share of its rows; counts in the cells where they fit."""
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
    """One class against the rest, a panel per descriptor; AUROC in the legend, of many classes its range."""
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
    """Predicted against true values of regressed quantities, the pairs (n,) and (n,) without NaN truths."""
    figure, panels = panelled(len(pairs), columns=3, height=3.2)
    for axes, (name, (true, predicted)) in zip(panels, pairs.items(), strict=True):
        known = ~np.isnan(true)
        t, p = true[known], predicted[known]
        lo, hi = _limits(np.r_[t, np.percentile(p, [0.5, 99.5])] if len(p) else t)
        axes.plot([lo, hi], [lo, hi], color=GREY, lw=0.9)
        if len(t) > DENSE:
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


def _limits(values: Array) -> tuple[float, float]:
    lo, hi = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    margin = 0.06 * (hi - lo) or 0.5
    return lo - margin, hi + margin


@STYLE
def reliability(tables: Mapping[str, tuple[pd.DataFrame, float]]) -> Figure:
    """Share correct against confidence per descriptor, from :func:`~.tables.calibration`; below, the confidences."""
    count = len(tables)
    figure = Figure(figsize=(max(2.0 * count, 4.0), 3.3), layout="constrained")
    panels = figure.subplots(2, max(count, 1), squeeze=False, sharex=True, sharey="row", height_ratios=(3, 1))
    for (axes, below), (name, (table, error)) in zip(panels.T, tables.items(), strict=True):
        sure, right, rows = (_numbers(table, c) for c in ("confidence", "correct", "rows"))
        axes.plot([0, 1], [0, 1], color=GREY, lw=0.9)
        # Wilson's interval of one standard error: finite where none or all of a bin are right.
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
    """Coverage of the intervals with its own interval, and their width, by condition and descriptor.

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
        rows = _part(table, "descriptor", d)
        y = [at[c] for c in rows["condition"]]
        share, lo, hi, width = (_numbers(rows, c) for c in ("coverage", "low", "high", "width"))
        above.axvline(target, color=GREY, lw=0.9, ls="--")
        for k, where in enumerate(y):
            colour = BLUE if lo[k] <= target <= hi[k] else RED if hi[k] < target else GREEN
            above.plot([lo[k], hi[k]], [where, where], color=colour, lw=1.6, solid_capstyle="butt")
            above.plot(share[k], where, "o", color=colour, ms=4.5)
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


# --- delithiation, exploration, detection ------------------------------------------------------------


@STYLE
def delithiation(table: pd.DataFrame) -> Figure:
    """Predicted mean oxidation state against 4 − x, a panel per ``panel`` (element, model), a marker per stacking.

    Parameters
    ----------
    table
        Columns ``panel``, ``stacking``, ``expected``, ``predicted``; ``low`` and ``high`` where there are intervals,
        ``end`` (bool) for the compositions at the ends, drawn hollow and left out of the MAE.
    """
    names = list(dict.fromkeys(table["panel"]))
    figure, panels = panelled(len(names), columns=3, height=3.0, xlabel="4 − x (e)", sharex=True, sharey=True)
    stackings = list(dict.fromkeys(table["stacking"]))
    colours = dict(zip(stackings, (BLUE, "#e69f00", "#009e73", "#c65f9e", "#333333", "#3aa5dc") * 3, strict=False))
    for axes, name in zip(panels, names, strict=True):
        here = _part(table, "panel", name)
        lo, _ = _limits(np.r_[_numbers(here, "expected"), _numbers(here, "predicted")])
        axes.axline((lo, lo), slope=1, color=GREY, lw=0.9)
        for marker, stacking in zip(MARKERS, stackings, strict=False):
            rows = _part(here, "stacking", stacking)
            x, y = (_numbers(rows, c) for c in ("expected", "predicted"))
            end = rows["end"].to_numpy(dtype=bool) if "end" in rows else np.zeros(len(rows), dtype=bool)
            colour = colours[stacking]
            if "low" in rows:
                axes.vlines(x, _numbers(rows, "low"), _numbers(rows, "high"), color=colour, lw=0.8, alpha=0.5)
            axes.plot(x[~end], y[~end], marker, color=colour, ms=5.5, mew=0, alpha=0.85, label=str(stacking))
            axes.plot(x[end], y[end], marker, ms=5.5, mfc="white", mec=colour, mew=1.1)
        inner = _part(here, "end", False) if "end" in here else here
        error = np.abs(_numbers(inner, "predicted") - _numbers(inner, "expected"))
        corner(axes, f"MAE {np.nanmean(error):.3f} e" if len(error) else "no interior")
        axes.set_title(str(name))
        axes.grid()
    figure.supylabel("predicted mean oxidation state (e)", fontsize=9.5)
    legend_below(figure, panels)
    return figure


@STYLE
def embedding(points: Array, colourings: Mapping[str, NDArray[Any]]) -> Figure:
    """2-D points (N, 2), a panel per colouring (N,): categories, or values; rows without one in pale grey."""
    figure, panels = panelled(len(colourings), columns=3, height=3.0)
    for axes, (name, values) in zip(panels, colourings.items(), strict=True):
        missing = pd.isna(values) | (values.astype(str) == "")
        size = float(np.clip(4000 / max(len(points), 1), 3, 18))
        dots: dict[str, Any] = {"s": size, "lw": 0, "rasterized": len(points) * len(colourings) > DENSE}
        axes.scatter(*points[missing].T, color="#d9dce0", **dots)
        known, at = values[~missing], points[~missing]
        if _are_categories(known):
            for k, (category, colour) in enumerate(_categories(known).items()):
                label = f"{category:g}" if isinstance(category, float) else str(category)
                label = label if len(label) <= 26 else f"{label[:25]}…"
                here = known == category
                axes.scatter(*at[here].T, color=colour, alpha=0.8, label=label if k < 12 else None, **dots)
            if len(known):
                numbers = np.issubdtype(known.dtype, np.number)
                axes.legend(
                    loc="upper center", bbox_to_anchor=(0.5, 0), ncols=8 if numbers else 2, fontsize=8,
                    markerscale=(24 / size) ** 0.5, handletextpad=0.1, columnspacing=0.8,
                )  # fmt: skip
        else:
            number = known.astype(float)
            lo, hi = np.percentile(number, [1, 99])
            axes.scatter(*at.T, c=number, cmap="viridis", norm=Normalize(lo, hi), alpha=0.8, **dots)
            scale = ScalarMappable(Normalize(lo, hi), "viridis")
            figure.colorbar(scale, ax=axes, location="bottom", shrink=0.7, aspect=30, pad=0.02)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_title(name)
    return figure


def _are_categories(values: NDArray[Any]) -> bool:
    if not np.issubdtype(values.dtype, np.number):
        return True
    number = values.astype(float)
    return len(np.unique(number)) <= 12 and bool((number == np.round(number)).all())


def _categories(values: NDArray[Any]) -> dict[Any, Any]:
    """Colours: along viridis where categories have an order, else the palette; the most frequent names first."""
    names, counts = np.unique(values, return_counts=True)
    if np.issubdtype(values.dtype, np.number):
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.95, len(names)))
        return {float(n): c for n, c in zip(names, colours, strict=True)}
    order = np.argsort(-counts, kind="stable")
    palette = (BLUE, *OTHERS, "#a3c9e8", "#f0c987")
    return {names[i]: palette[k] if k < len(palette) else "#b5b9bf" for k, i in enumerate(order)}


@STYLE
def detector(familiar: Array, strange: Mapping[str, Array], threshold: float = 1.0) -> Figure:
    """An out-of-distribution score as a detector: ROC per kind of stranger, and the scores themselves.

    Parameters
    ----------
    familiar, strange
        (n,) scores of spectra like those trained on, and of each kind of others; above ``threshold`` is strange.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    figure = Figure(figsize=(WIDTH, 1.2 + 0.4 * (len(strange) + 1)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    colours = dict(zip(strange, OTHERS * 4, strict=False))
    dashes = [dash for dash in ("-", "--", ":", "-.") for _ in OTHERS]  # a colour that comes again is dashed
    for (name, scores), dash in zip(strange.items(), dashes, strict=False):
        is_strange = np.r_[np.zeros(len(familiar)), np.ones(len(scores))]
        both = np.r_[familiar, scores]
        false, true, _ = roc_curve(is_strange, both)
        area = roc_auc_score(is_strange, both)
        left.plot(false, true, dash, color=colours[name], lw=1.5, label=f"{name}: {area:.3f}")
    left.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
    left.set(
        xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel="familiar called strange", ylabel="strange called strange"
    )
    left.set_title("AUROC by kind of stranger")
    left.legend(loc="lower right", fontsize=8, handlelength=1.8)

    groups = {"familiar": familiar, **strange}
    every = np.concatenate(list(groups.values()))
    every = every[every > 0]
    bins = np.geomspace(every.min(), every.max() * 1.001, 45) if len(every) else np.linspace(0.1, 10, 45)
    beside = right.get_yaxis_transform()
    for k, (name, scores) in enumerate(groups.items()):
        counts = np.histogram(scores.clip(bins[0], bins[-1]), bins)[0]
        height = 0.85 * counts / max(counts.max(), 1)
        right.stairs(k - height, bins, baseline=k, fill=True, color=pale(colours.get(name, BLUE), 0.15))
        right.text(1.02, k - 0.25, f"{np.mean(scores > threshold):.0%}", transform=beside, fontsize=8.5, va="center")
    right.axvline(threshold, color=RED, lw=1.1, ls="--")
    right.set_xscale("log")
    right.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    right.set(yticks=np.arange(len(groups)) - 0.25, yticklabels=list(groups), ylim=(len(groups) - 0.85, -1.0))
    right.tick_params(axis="y", length=0)
    right.text(1.02, 1.01, "above", transform=right.transAxes, fontsize=8.5)
    right.set_xlabel("out-of-distribution score")
    right.set_title("Scores and threshold")
    return figure
