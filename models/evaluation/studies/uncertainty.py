"""What the intervals and probabilities that ship are worth: coverage, calibration, and whether they rank errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ....agent.types import Array
from ...runtime import Model
from ...training import FeffData, TrainingPlan
from ..competitors import CLEAN, NOISE, Condition, disturbed
from ..contract import Spectra
from ..report import BLUE, GREY, STYLE, Section, calibration, coverage, coverage_interval, panelled, reliability
from .element_rows import ElementRows, held_out_rows, move_to_edge, subsample

STUDIED = (
    CLEAN,
    *NOISE,
    *(Condition("offset", a) for a in (-1.0, -0.5, 0.5, 1.0)),
    *(Condition("broadening", a) for a in (1.0, 2.0)),
    *(Condition("slope", a) for a in (-0.05, 0.05)),
    Condition("glitch", 0.1),
    Condition("sampling", 2.0),
)
TRANSPLANTED = 300
"""Most rows of another element."""
SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class IntervalPredictions:
    """What a model says of n spectra of one descriptor."""

    mean: Array
    lo: Array
    hi: Array
    value: Array
    """(n,) most probable class; NaN for a regressed descriptor."""
    p: Array
    """(n,) its probability."""


def said(model: Model, spectra: Spectra) -> dict[str, IntervalPredictions]:
    """Estimates (n,) of every descriptor, as they are served."""
    found = model.estimate(spectra)

    def column(name: str, field: str) -> Array:
        return np.array([getattr(e.descriptors[name], field) for e in found], float)  # None as NaN

    fields = ("mean", "lo", "hi", "value", "p")
    return {d.name: IntervalPredictions(*(column(d.name, f) for f in fields)) for d in model.card.descriptors}


def means_of(model: Model) -> dict[str, str]:
    """Descriptors with a regressed mean, and the label that it predicts (OS: the mean OS)."""
    cards = model.card.descriptors
    return {d.name: d.mean_head or d.name for d in cards if d.mean_head or d.kind == "regressed"}


def covered(found: IntervalPredictions, truth: Array, material: NDArray[np.str_]) -> dict[str, float]:
    """Coverage of the intervals with its bootstrap interval over materials, and their median width."""
    known = ~np.isnan(truth)
    t, lo, hi = truth[known], found.lo[known], found.hi[known]
    held = (t >= lo - 1e-9) & (t <= hi + 1e-9)
    share = coverage_interval(held, material[known])
    return {
        "coverage": share.value,
        "low": share.lo,
        "high": share.hi,
        "width": float(np.median(hi - lo)),
        "MAE": float(np.abs(found.mean[known] - t).mean()),
        "rows": int(known.sum()),
    }


def coverage_table(model: Model, sets: Mapping[str, tuple[Spectra, FeffData]]) -> pd.DataFrame:
    """One row per condition and regressed descriptor that is labelled for ten rows or more."""
    rows: list[dict[str, object]] = []
    for condition, (spectra, data) in sets.items():
        found = said(model, spectra)
        for name, label in means_of(model).items():
            truth = data.labels.get(label)
            if truth is not None and np.sum(~np.isnan(truth)) >= 10:
                rows.append(
                    {"descriptor": name, "condition": condition, **covered(found[name], truth, data.material)}
                )
    return pd.DataFrame(rows)


def summaries(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Conditions as rows, descriptors as columns: coverage with its interval; median width and mean error."""
    coverage = [f"{r['coverage']:.3f} [{r['low']:.3f}, {r['high']:.3f}]" for _, r in table.iterrows()]
    width = [f"{r['width']:.3g} ({r['MAE']:.2g})" for _, r in table.iterrows()]
    names, conditions = (list(dict.fromkeys(table[c])) for c in ("descriptor", "condition"))

    def wide(text: list[str]) -> pd.DataFrame:
        shown = table.assign(text=text).pivot(index="condition", columns="descriptor", values="text")
        return shown.loc[conditions, names]

    return wide(coverage), wide(width)


def confidences(found: Mapping[str, IntervalPredictions], data: FeffData) -> dict[str, tuple[pd.DataFrame, float]]:
    """Reliability of every classified descriptor: see :func:`.tables.calibration`."""
    tables: dict[str, tuple[pd.DataFrame, float]] = {}
    for name, s in found.items():
        truth = data.labels[name]
        known = ~np.isnan(truth) & ~np.isnan(s.p)
        if known.any():
            tables[name] = calibration(s.p[known], s.value[known] == truth[known])
    return tables


def ranked(doubt: Array, error: Array) -> Array:
    """(n,) mean error of the least doubtful 1, 2, … n rows."""
    return np.cumsum(error[np.argsort(doubt, kind="stable")]) / np.arange(1, len(error) + 1)


def risks(model: Model, found: Mapping[str, IntervalPredictions], data: FeffData) -> dict[str, tuple[Array, Array]]:
    """Per descriptor (doubt, error), each (n,): interval width and |error|; 1 − p and whether the class is wrong."""
    heads = means_of(model)
    pairs: dict[str, tuple[Array, Array]] = {}
    for name, s in found.items():
        if name in heads:
            truth = data.labels[heads[name]]
            known = ~np.isnan(truth)
            label = f"{name} (mean)" if np.isfinite(s.p).any() else name
            pairs[label] = (s.hi - s.lo)[known], np.abs(s.mean - truth)[known]
        if np.isfinite(s.p).any():
            truth = data.labels[name]
            known = ~np.isnan(truth)
            pairs[name] = (1 - s.p)[known], (s.value != truth)[known].astype(float)
    return {name: pair for name, pair in pairs.items() if len(pair[0]) >= 10}


def risk_table(pairs: Mapping[str, tuple[Array, Array]]) -> pd.DataFrame:
    """Mean error of the rows whose interval is narrowest, and how doubt and error correlate in rank."""
    from scipy.stats import spearmanr

    rows: list[dict[str, object]] = []
    for name, (doubt, error) in pairs.items():
        mean = ranked(doubt, error)
        shares = {f"surest {s:.0%}": float(mean[max(round(s * len(mean)), 1) - 1]) for s in SHARES}
        varied = np.ptp(doubt) > 0 and np.ptp(error) > 0
        rank = float(spearmanr(doubt, error)[0]) if varied else float("nan")  # pyright: ignore  scipy has no types
        rows.append({"descriptor": name, **shares, "Spearman": rank})
    return pd.DataFrame(rows)


@STYLE
def risk_curves(pairs: Mapping[str, tuple[Array, Array]]) -> Figure:
    """Mean error of the surest share of the rows; grey: in random order, dotted: in the order of the errors."""
    figure, panels = panelled(len(pairs), columns=5, height=2.0, xlabel="surest share of the rows", sharex=True)
    for axes, (name, (doubt, error)) in zip(panels, pairs.items(), strict=True):
        share = np.arange(1, len(error) + 1) / len(error)
        from_here = share >= 0.05  # a mean of a few rows jumps about
        axes.axhline(error.mean(), color=GREY, lw=0.9)
        axes.plot(share[from_here], ranked(error, error)[from_here], ":", color=GREY, lw=1)
        axes.plot(share[from_here], ranked(doubt, error)[from_here], color=BLUE, lw=1.6)
        axes.set(xlim=(0, 1), ylim=(0, None))
        axes.grid()
        axes.set_title(name)
    if panels:
        panels[0].set_ylabel("mean error")
    return figure


def uncertainty(
    model: Model,
    plan: TrainingPlan,
    elements: Sequence[ElementRows],
    conditions: Sequence[Condition] = STUDIED,
    most: int = 2000,
) -> Section:
    """The section of the report.

    Parameters
    ----------
    elements : all data sets at hand; rows of other absorbers are moved to this edge
    conditions : the disturbances under which coverage is taken, :data:`~.conditions.CLEAN` the first
    most : held-out rows, and rows of each other element, to judge by
    """
    rows, index, what = held_out_rows(plan, elements, most)
    data = rows.data.rows(np.isin(np.arange(len(rows.data)), index))
    sets = {c.name: (disturbed(rows, index, c), data) for c in conditions}
    for e in elements:
        if e.absorber != plan.config.absorber:
            moved, spectra = move_to_edge(plan, e, e.data.kind != "metal")
            some = subsample(np.arange(len(moved)), min(most, TRANSPLANTED))
            chosen = moved.rows(np.isin(np.arange(len(moved)), some))
            sets[f"{e.absorber} at this edge"] = spectra[some], chosen
    table = coverage_table(model, sets)
    if table.empty:
        return Section("Uncertainty", f"{len(index)} {what}: too few to judge intervals by.")
    clean = said(model, sets[conditions[0].name][0])
    sure = confidences(clean, data)
    pairs = risks(model, clean, data)
    risk = risk_table(pairs)
    units = {d.name: d.unit for d in model.card.descriptors if d.unit}
    ece = pd.DataFrame(
        {
            "descriptor": list(sure),
            "ECE": [e for _, e in sure.values()],
            "mean confidence": [float(np.average(t["confidence"], weights=t["rows"])) for t, _ in sure.values()],
            "accuracy": [float(np.average(t["correct"], weights=t["rows"])) for t, _ in sure.values()],
        }
    )
    target = model.card.descriptors[0].interval.coverage
    shares, widths = summaries(table)
    text = findings(table, conditions, ece, risk, target, f"{len(index)} {what}")
    return Section(
        "Uncertainty",
        text,
        {
            "uncertainty-coverage": shares,
            "uncertainty-widths": widths,
            "uncertainty-calibration": ece,
            "uncertainty-risk": risk,
        },
        {
            "uncertainty-coverage": coverage(table, target, units),
            "uncertainty-reliability": reliability(sure),
            "uncertainty-risk": risk_curves(pairs),
        },
        {
            "uncertainty-coverage": f"Coverage of the {target:.0%} intervals, with its 95 % bootstrap interval over "
            "materials; blue holds the target, red is below, green above.",
            "uncertainty-widths": "Median width of the intervals and, in brackets, mean absolute error, in the "
            "descriptor's unit.",
            "uncertainty-calibration": "Probabilities of the most probable class, clean.",
            "uncertainty-reliability": "Share correct against confidence, clean.",
            "uncertainty-risk": "Mean error of the rows whose interval is narrowest, or whose class is surest, "
            "clean; grey all rows, dotted a perfect order.",
        },
    )


def findings(
    table: pd.DataFrame,
    conditions: Sequence[Condition],
    ece: pd.DataFrame,
    risk: pd.DataFrame,
    target: float,
    what: str,
) -> str:
    """The text, from the figures."""
    at = [r for r in table.to_dict("records") if r["condition"] == conditions[0].name]
    each = ", ".join(f"{r['descriptor']} {r['coverage']:.3f}" for r in at)
    wide = ", ".join(r["descriptor"] for r in at if r["low"] > target)
    narrow = ", ".join(r["descriptor"] for r in at if r["high"] < target)
    within = f"all but {wide}{', ' if wide and narrow else ''}{narrow}" if wide or narrow else "every one"

    def lowest(of: NDArray[np.bool_]) -> str:
        if not of.any():
            return "not known"
        row = table.iloc[int(np.where(of, table["coverage"], np.inf).argmin())]
        return f"{row['coverage']:.2f} ({row['descriptor']}, {row['condition']})"

    here = table["condition"].isin([c.name for c in conditions]).to_numpy()
    clean = (table["condition"] == conditions[0].name).to_numpy()

    fewer = float(np.nanmedian(risk["surest 25%"] / risk["surest 100%"].replace(0, np.nan)))
    worst = ece.loc[ece["ECE"].idxmax()]
    spare = f" Those of {wide} are wider than they need be." if wide else ""
    return f"""
Do the intervals hold what they say, and do they know which answers to trust? They are calibrated by cross-conformal
prediction: members judge the materials that they have not been trained on (Vovk, 2015; Lei et al., 2018). Judged
here on {what}, and coverage is that of the {target:.0%} intervals as they ship.

Clean coverage is {each}; the bootstrap interval over materials contains {target:.0%} for {within}.{spare} Under a
beamline's disturbances the lowest is {lowest(here & ~clean)}; for other elements' rows moved to this
edge it is {lowest(~here)}. Conformal intervals promise nothing under such a shift: there it is for the
out-of-distribution score to warn.

Expected calibration error of the classes is {ece["ECE"].mean():.3f} on average, at most {worst["ECE"]:.3f}
({worst["descriptor"]}). The surest quarter of the answers has {fewer:.2f} times the mean error of all (median over
descriptors).
""".strip()
