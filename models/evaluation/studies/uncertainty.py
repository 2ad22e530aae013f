"""The study of the shipped intervals and probabilities: coverage, calibration, and correlation with errors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ....agent.types import Array
from ...runtime import Model
from ...training import FeffData, TrainingPlan, cut_rows, window_points
from ..competitors import CLEAN, NOISE, Condition, disturbed
from ..contract import Spectra
from ..report import BLUE, GREY, STYLE, Section, calibration, coverage, coverage_interval, panelled, reliability
from .element_rows import ElementRows, held_out_rows, move_to_edge, subsample

CONDITIONS = (
    CLEAN,
    *NOISE,
    *(Condition("offset", a) for a in (-1.0, -0.5, 0.5, 1.0)),
    *(Condition("broadening", a) for a in (1.0, 2.0)),
    *(Condition("slope", a) for a in (-0.05, 0.05)),
    Condition("glitch", 0.1),
    Condition("sampling", 2.0),
)
_MAX_ROWS_OF_ANOTHER_ELEMENT = 300
_MIN_ROWS = 10  # number of labelled rows that a figure of a descriptor needs
_SUREST_SHARES = (0.1, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True)
class IntervalPredictions:
    """Estimates of one descriptor for n spectra."""

    mean: Array
    lo: Array
    hi: Array
    value: Array
    """(n,) most probable class; NaN for a regressed descriptor."""
    p: Array
    """(n,) probability of the class; NaN for a regressed descriptor."""


def predict_intervals(model: Model, spectra: Spectra) -> dict[str, IntervalPredictions]:
    """Return the served estimates of every descriptor for aligned spectra (n, G)."""
    served = model.estimate(spectra)

    def column(name: str, field: str) -> Array:
        return np.array([getattr(e.descriptors[name], field) for e in served], float)  # None becomes NaN

    fields = ("mean", "lo", "hi", "value", "p")
    return {d.name: IntervalPredictions(*(column(d.name, f) for f in fields)) for d in model.card.descriptors}


def means_of(model: Model) -> dict[str, str]:
    """Return the descriptors with a regressed mean, and the label that it predicts (OS_mean for OS)."""
    cards = model.card.descriptors
    return {d.name: d.mean_head or d.name for d in cards if d.mean_head or d.kind == "regressed"}


def measure_coverage(predicted: IntervalPredictions, truth: Array, material: NDArray[np.str_]) -> dict[str, float]:
    """Return the coverage of the intervals with its bootstrap interval over materials, and their median width."""
    known = ~np.isnan(truth)
    t, lo, hi = truth[known], predicted.lo[known], predicted.hi[known]
    held = (t >= lo - 1e-9) & (t <= hi + 1e-9)
    share = coverage_interval(held, material[known])
    return {
        "coverage": share.value,
        "low": share.lo,
        "high": share.hi,
        "width": float(np.median(hi - lo)),
        "MAE": float(np.abs(predicted.mean[known] - t).mean()),
        "rows": int(known.sum()),
    }


def coverage_table(model: Model, sets: Mapping[str, tuple[Spectra, FeffData]]) -> pd.DataFrame:
    """Return the coverage by condition and descriptor with a regressed mean, if ten or more rows are labelled."""
    rows: list[dict[str, object]] = []
    for condition, (spectra, data) in sets.items():
        predicted = predict_intervals(model, spectra)
        for name, label in means_of(model).items():
            truth = data.labels.get(label)
            if truth is not None and np.sum(~np.isnan(truth)) >= _MIN_ROWS:
                rows.append(
                    {
                        "descriptor": name,
                        "condition": condition,
                        **measure_coverage(predicted[name], truth, data.material),
                    }
                )
    return pd.DataFrame(rows)


def coordination_table(model: Model, absorber: str, sets: Mapping[str, tuple[Spectra, FeffData]]) -> pd.DataFrame:
    """Return the coverage for all sites of an absorber and by their coordination number, for each set of spectra.

    A descriptor has a row if ten or more sites are labelled.
    """
    tables: list[pd.DataFrame] = []
    for condition, (spectra, data) in sets.items():
        number = data.labels.get("CN", np.full(len(data), np.nan))
        parts = {absorber: np.ones(len(data), bool)}
        parts |= {f"{absorber}, CN {n:g}": number == n for n in np.unique(number[~np.isnan(number)])}
        by_part = coverage_table(model, {p: (spectra[mask], data.rows(mask)) for p, mask in parts.items()})
        if not by_part.empty:
            by_part["half-width"] = by_part["width"] / 2
            tables.append(by_part.rename(columns={"condition": "sites"}).assign(spectra=condition))
    columns = ["descriptor", "spectra", "sites", "rows", "coverage", "low", "high", "half-width"]
    if not tables:
        return pd.DataFrame(columns=columns)
    joined = pd.concat(tables).reindex(columns=columns)
    return joined.sort_values(["descriptor", "spectra"], kind="stable", ignore_index=True)


def summaries(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return two tables of conditions (rows) and descriptors (columns): coverage; median width with mean error."""
    coverage = [f"{r['coverage']:.3f} [{r['low']:.3f}, {r['high']:.3f}]" for _, r in table.iterrows()]
    width = [f"{r['width']:.3g} ({r['MAE']:.2g})" for _, r in table.iterrows()]
    names, conditions = (list(dict.fromkeys(table[c])) for c in ("descriptor", "condition"))

    def wide(text: list[str]) -> pd.DataFrame:
        pivoted = table.assign(text=text).pivot(index="condition", columns="descriptor", values="text")
        return pivoted.loc[conditions, names]

    return wide(coverage), wide(width)


def confidences(
    predicted: Mapping[str, IntervalPredictions], data: FeffData
) -> dict[str, tuple[pd.DataFrame, float]]:
    """Return table and calibration error of every classified descriptor (:func:`.tables.calibration`)."""
    tables: dict[str, tuple[pd.DataFrame, float]] = {}
    for name, s in predicted.items():
        truth = data.labels[name]
        known = ~np.isnan(truth) & ~np.isnan(s.p)
        if known.any():
            tables[name] = calibration(s.p[known], s.value[known] == truth[known])
    return tables


def cumulative_error(doubt: Array, error: Array) -> Array:
    """Return the mean errors (n,) of the 1, 2, … n rows with the smallest doubt."""
    return np.cumsum(error[np.argsort(doubt, kind="stable")]) / np.arange(1, len(error) + 1)


def risks(
    model: Model, predicted: Mapping[str, IntervalPredictions], data: FeffData
) -> dict[str, tuple[Array, Array]]:
    """Return (doubt, error) by descriptor, each (n,): interval width and |error|; 1 − p and 1 for a wrong class."""
    heads = means_of(model)
    pairs: dict[str, tuple[Array, Array]] = {}
    for name, s in predicted.items():
        if name in heads:
            truth = data.labels[heads[name]]
            known = ~np.isnan(truth)
            label = f"{name} (mean)" if np.isfinite(s.p).any() else name
            pairs[label] = (s.hi - s.lo)[known], np.abs(s.mean - truth)[known]
        if np.isfinite(s.p).any():
            truth = data.labels[name]
            known = ~np.isnan(truth)
            pairs[name] = (1 - s.p)[known], (s.value != truth)[known].astype(float)
    return {name: pair for name, pair in pairs.items() if len(pair[0]) >= _MIN_ROWS}


def risk_table(pairs: Mapping[str, tuple[Array, Array]]) -> pd.DataFrame:
    """Return the mean error of the surest rows, and the rank correlation of doubt and error."""
    from scipy.stats import spearmanr

    rows: list[dict[str, object]] = []
    for name, (doubt, error) in pairs.items():
        mean = cumulative_error(doubt, error)
        shares = {f"surest {s:.0%}": float(mean[max(round(s * len(mean)), 1) - 1]) for s in _SUREST_SHARES}
        varied = np.ptp(doubt) > 0 and np.ptp(error) > 0
        rank = float(spearmanr(doubt, error)[0]) if varied else float("nan")  # pyright: ignore  scipy has no types
        rows.append({"descriptor": name, **shares, "Spearman": rank})
    return pd.DataFrame(rows)


@STYLE
def risk_curves(pairs: Mapping[str, tuple[Array, Array]]) -> Figure:
    """Draw the mean error of the surest share of rows; grey: random order, dotted: order of the errors."""
    figure, panels = panelled(len(pairs), columns=5, height=2.0, xlabel="surest share of the rows", sharex=True)
    for axes, (name, (doubt, error)) in zip(panels, pairs.items(), strict=True):
        share = np.arange(1, len(error) + 1) / len(error)
        drawn = share >= 0.05  # means of fewer rows scatter
        axes.axhline(error.mean(), color=GREY, lw=0.9)
        axes.plot(share[drawn], cumulative_error(error, error)[drawn], ":", color=GREY, lw=1)
        axes.plot(share[drawn], cumulative_error(doubt, error)[drawn], color=BLUE, lw=1.6)
        axes.set(xlim=(0, 1), ylim=(0, None))
        axes.grid()
        axes.set_title(name)
    if panels:
        panels[0].set_ylabel("mean error")
    return figure


def sets_of_other_elements(
    plan: TrainingPlan, elements: Sequence[ElementRows], most: int
) -> dict[str, tuple[Spectra, FeffData]]:
    """Return spectra and rows of each other absorber, moved to this edge; metals are left out."""
    sets: dict[str, tuple[Spectra, FeffData]] = {}
    for e in elements:
        if e.absorber != plan.config.absorber:
            moved, spectra = move_to_edge(plan, e, e.data.kind != "metal")
            some = subsample(np.arange(len(moved)), min(most, _MAX_ROWS_OF_ANOTHER_ELEMENT))
            chosen = moved.rows(np.isin(np.arange(len(moved)), some))
            sets[f"{e.absorber} at this edge"] = spectra[some], chosen
    return sets


def calibration_table(reliabilities: Mapping[str, tuple[pd.DataFrame, float]]) -> pd.DataFrame:
    """Return the expected calibration error, mean confidence and accuracy of each classified descriptor."""

    def mean(table: pd.DataFrame, column: str) -> float:
        return float(np.average(table[column], weights=table["rows"]))

    return pd.DataFrame(
        {
            "descriptor": list(reliabilities),
            "ECE": [e for _, e in reliabilities.values()],
            "mean confidence": [mean(t, "confidence") for t, _ in reliabilities.values()],
            "accuracy": [mean(t, "correct") for t, _ in reliabilities.values()],
        }
    )


def uncertainty(
    model: Model,
    plan: TrainingPlan,
    elements: Sequence[ElementRows],
    conditions: Sequence[Condition] = CONDITIONS,
    most: int = 2000,
) -> Section:
    """Judge intervals and probabilities and return the section of the report.

    Parameters
    ----------
    elements : all data sets; rows of other absorbers are moved to this edge
    conditions : disturbances under which coverage is measured; the first is :data:`~.conditions.CLEAN`
    most : largest number of held-out rows, and of rows of each other element
    """
    rows, index, description = held_out_rows(plan, elements, most)
    data = rows.data.rows(np.isin(np.arange(len(rows.data)), index))
    sets = {c.name: (disturbed(rows, index, c), data) for c in conditions}
    ends: list[Condition] = []
    for points in window_points(plan):
        reaching, spectra = cut_rows(rows, index, points)
        ends.append(Condition("end", float(plan.rows.grid.energy[points - 1])))
        sets[ends[-1].name] = spectra.numpy(), rows.data.rows(np.isin(np.arange(len(rows.data)), reaching))
    conditions = (*conditions, *ends)
    by_coordination = coordination_table(
        model, plan.config.absorber, {c.name: sets[c.name] for c in (conditions[0], *ends[:1])}
    )
    sets |= sets_of_other_elements(plan, elements, most)
    table = coverage_table(model, sets)
    if table.empty:
        return Section("Uncertainty", f"{len(index)} {description}: too few to judge intervals.")
    clean = predict_intervals(model, sets[conditions[0].name][0])
    reliabilities = confidences(clean, data)
    pairs = risks(model, clean, data)
    risk = risk_table(pairs)
    units = {d.name: d.unit for d in model.card.descriptors if d.unit}
    ece = calibration_table(reliabilities)
    target = model.card.descriptors[0].interval.coverage
    shares, widths = summaries(table)
    text = findings(table, conditions, ece, risk, target, f"{len(index)} {description}")
    return Section(
        "Uncertainty",
        text,
        {
            "uncertainty-coverage": shares,
            "uncertainty-widths": widths,
            "uncertainty-coordination": by_coordination,
            "uncertainty-calibration": ece,
            "uncertainty-risk": risk,
        },
        {
            "uncertainty-coverage": coverage(table, target, units),
            "uncertainty-reliability": reliability(reliabilities),
            "uncertainty-risk": risk_curves(pairs),
        },
        {
            "uncertainty-coverage": f"Coverage of the {target:.0%} intervals, with its 95 % bootstrap interval over "
            "materials; blue: contains the target, red: below, green: above. End: rows cut at this energy, eV from "
            "the tabulated edge.",
            "uncertainty-widths": "Median width of the intervals and, in brackets, mean absolute error, in the "
            "descriptor's unit.",
            "uncertainty-coordination": "Coverage by coordination number, with its 95 % bootstrap interval over "
            "materials, and median half-width, in the descriptor's unit: clean spectra and, where spectra may end "
            "before the grid, those of the shortest window. Fewer than ten labelled sites are left out.",
            "uncertainty-calibration": "Probabilities of the most probable class, clean spectra.",
            "uncertainty-reliability": "Share correct against confidence, clean spectra.",
            "uncertainty-risk": "Mean error of the rows with the narrowest intervals or the highest probabilities, "
            "clean spectra; grey: all rows, dotted: a perfect order.",
        },
    )


def findings(
    table: pd.DataFrame,
    conditions: Sequence[Condition],
    ece: pd.DataFrame,
    risk: pd.DataFrame,
    target: float,
    rows: str,
) -> str:
    """Return the text of the section.

    Parameters
    ----------
    table, ece, risk : coverage, calibration errors, and mean errors of the surest rows
    target : intended coverage
    rows : description of the judging rows
    """
    clean_rows = [r for r in table.to_dict("records") if r["condition"] == conditions[0].name]
    each = ", ".join(f"{r['descriptor']} {r['coverage']:.3f}" for r in clean_rows)
    wide = ", ".join(r["descriptor"] for r in clean_rows if r["low"] > target)
    narrow = ", ".join(r["descriptor"] for r in clean_rows if r["high"] < target)
    within = f"all but {wide}{', ' if wide and narrow else ''}{narrow}" if wide or narrow else "all descriptors"

    def lowest(mask: NDArray[np.bool_]) -> str:
        if not mask.any():
            return "not known"
        row = table.iloc[int(np.where(mask, table["coverage"], np.inf).argmin())]
        return f"{row['coverage']:.2f} ({row['descriptor']}, {row['condition']})"

    here = table["condition"].isin([c.name for c in conditions]).to_numpy()
    clean = (table["condition"] == conditions[0].name).to_numpy()

    fewer = float(np.nanmedian(risk["surest 25%"] / risk["surest 100%"].replace(0, np.nan)))
    worst = ece.loc[ece["ECE"].idxmax()]
    spare = f" Those of {wide} are wider than necessary." if wide else ""
    return f"""
Do the intervals cover the intended share of rows, and are narrow intervals more accurate? The intervals are
calibrated by cross-conformal prediction, on materials on which the judging members were not trained (Vovk, 2015; Lei
et al., 2018). Here the shipped {target:.0%} intervals are judged on {rows}.

The coverage on clean spectra is {each}; its bootstrap interval over materials contains {target:.0%} for
{within}.{spare} Under the disturbances of a beamline the lowest coverage is {lowest(here & ~clean)}; for rows of
other elements moved to this edge it is {lowest(~here)}. Conformal intervals do not hold under such a shift of the
distribution, for which the out-of-distribution score is the warning.

The expected calibration error of the classes is {ece["ECE"].mean():.3f} on average and at most {worst["ECE"]:.3f}
({worst["descriptor"]}). The surest quarter of the answers has {fewer:.2f} times the mean error of all answers (median
over descriptors).
""".strip()
