"""Figures of single studies: a delithiation series, maps of spectra, out-of-distribution detection.

The figures do not use pyplot, and compute no scores.
"""

from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter
from numpy.typing import NDArray

from ....agent.types import Array
from .style import (
    BLUE,
    DENSE_POINTS,
    GREY,
    MARKERS,
    OTHER_COLOURS,
    RED,
    STYLE,
    WIDTH,
    corner,
    legend_below,
    limits,
    numbers,
    pale,
    panelled,
    part,
)


@STYLE
def delithiation(table: pd.DataFrame) -> Figure:
    """Draw the predicted mean oxidation state against 4 − x: panels by ``panel``, markers by stacking.

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
        here = part(table, "panel", name)
        lo, _ = limits(np.r_[numbers(here, "expected"), numbers(here, "predicted")])
        axes.axline((lo, lo), slope=1, color=GREY, lw=0.9)
        for marker, stacking in zip(MARKERS, stackings, strict=False):
            rows = part(here, "stacking", stacking)
            x, y = (numbers(rows, c) for c in ("expected", "predicted"))
            end = rows["end"].to_numpy(dtype=bool) if "end" in rows else np.zeros(len(rows), dtype=bool)
            colour = colours[stacking]
            if "low" in rows:
                axes.vlines(x, numbers(rows, "low"), numbers(rows, "high"), color=colour, lw=0.8, alpha=0.5)
            axes.plot(x[~end], y[~end], marker, color=colour, ms=5.5, mew=0, alpha=0.85, label=str(stacking))
            axes.plot(x[end], y[end], marker, ms=5.5, mfc="white", mec=colour, mew=1.1)
        inner = part(here, "end", False) if "end" in here else here
        error = np.abs(numbers(inner, "predicted") - numbers(inner, "expected"))
        corner(axes, f"MAE {np.nanmean(error):.3f} e" if len(error) else "no interior")
        axes.set_title(str(name))
        axes.grid()
    figure.supylabel("predicted mean oxidation state (e)", fontsize=9.5)
    legend_below(figure, panels)
    return figure


@STYLE
def embedding(points: Array, colourings: Mapping[str, NDArray[Any]]) -> Figure:
    """Draw points (N, 2) coloured by categories or values (N,), one panel each; missing values are pale grey."""
    figure, panels = panelled(len(colourings), columns=3, height=3.0)
    for axes, (name, values) in zip(panels, colourings.items(), strict=True):
        missing = pd.isna(values) | (values.astype(str) == "")
        size = float(np.clip(4000 / max(len(points), 1), 3, 18))
        dots: dict[str, Any] = {"s": size, "lw": 0, "rasterized": len(points) * len(colourings) > DENSE_POINTS}
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
    """Return colours: viridis for numbers, otherwise the palette, with the most frequent names first."""
    names, counts = np.unique(values, return_counts=True)
    if np.issubdtype(values.dtype, np.number):
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.95, len(names)))
        return {float(n): c for n, c in zip(names, colours, strict=True)}
    order = np.argsort(-counts, kind="stable")
    palette = (BLUE, *OTHER_COLOURS, "#a3c9e8", "#f0c987")
    return {names[i]: palette[k] if k < len(palette) else "#b5b9bf" for k, i in enumerate(order)}


@STYLE
def detector(inside: Array, outside: Mapping[str, Array], threshold: float = 1.0) -> Figure:
    """Draw the out-of-distribution score as a detector: ROC and distribution of the scores by kind.

    Parameters
    ----------
    inside
        (n,) scores of in-distribution spectra.
    outside
        (m,) scores of the out-of-distribution spectra of each kind.
    threshold
        Score above which a spectrum is flagged.
    """
    from sklearn.metrics import roc_auc_score, roc_curve

    figure = Figure(figsize=(WIDTH, 1.2 + 0.4 * (len(outside) + 1)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    colours = dict(zip(outside, OTHER_COLOURS * 4, strict=False))
    dashes = [dash for dash in ("-", "--", ":", "-.") for _ in OTHER_COLOURS]  # repeated colours are dashed
    for (name, scores), dash in zip(outside.items(), dashes, strict=False):
        is_outside = np.r_[np.zeros(len(inside)), np.ones(len(scores))]
        both = np.r_[inside, scores]
        false, true, _ = roc_curve(is_outside, both)
        area = roc_auc_score(is_outside, both)
        left.plot(false, true, dash, color=colours[name], lw=1.5, label=f"{name}: {area:.3f}")
    left.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls=":")
    left.set(
        xlim=(-0.01, 1.01),
        ylim=(-0.01, 1.01),
        xlabel="in distribution, flagged",
        ylabel="out of distribution, flagged",
    )
    left.set_title("AUROC by kind")
    left.legend(loc="lower right", fontsize=8, handlelength=1.8)

    groups = {"in distribution": inside, **outside}
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
