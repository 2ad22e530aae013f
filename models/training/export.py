"""Exports a model folder: ``model.ts`` and the card, with intervals and metrics from held-out rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agent.types import Array
from .. import card as cards
from ..card import Card, DescriptorCard, Interval, WindowScale
from ..network import OODScore, Served, save
from ..readable import write_card_and_readme
from .metrics import conformal_scale, scores, window_scales
from .plan import Estimates, TrainedMember, TrainingPlan, best, estimates
from .windows import MIN_ROWS, cut_rows, half_edge_ev, window_points

_COVERAGE = 0.9


def export(
    plan: TrainingPlan, served: Served, juries: Sequence[Served], members: Sequence[TrainedMember], out: Path
) -> Path:
    """Write ``model.ts``, ``card.yaml`` and ``README.md``, and return the model folder ``out / config.name``.

    Parameters
    ----------
    served : the ensemble to export
    juries : for every fold that calibrates, the ensemble of the members that have not seen it
    members : the trained members, for the record
    """
    config = plan.config
    folder = out / config.name
    folder.mkdir(parents=True, exist_ok=True)
    save(served, folder / "model.ts")
    unseen = out_of_fold(plan, juries)
    windows = {n: out_of_fold(plan, juries, n) for n in window_points(plan)}
    names = (*config.classified, *(d for d in config.regressed if d != "OS_mean"))
    described = tuple(describe(plan, d, unseen, windows) for d in names)
    card = Card(
        name=config.name,
        absorber=config.absorber,
        edge=config.edge,
        edge_ev=config.edge_ev,
        grid=config.grid,
        descriptors=described,
        regressed=config.regressed,
        feff_minus_experiment=config.feff_minus_experiment,
        domain=config.domain,
        ood="the largest of: the distance to the nearest augmented training spectra in principal components and the "
        "smoothed remainder outside of them, in quadrature; the deviation of the worst point; and the similarity to "
        f"outliers ({'the rows of split cal' if plan.outliers else 'none were given'}). "
        f"{OODScore.QUANTILE:.0%} of left-out training spectra score below 1; above 1 is out of distribution",
        training=training_record(plan, served, members),
        metrics=measure(plan, served, juries, described),
        limits=config.limits,
        licence=config.licence,
        cite=config.cite,
        sha256=cards.sha256_of(folder / "model.ts"),
    )
    write_card_and_readme(folder, card)
    return folder


def training_record(plan: TrainingPlan, served: Served, members: Sequence[TrainedMember]) -> dict[str, Any]:
    """Return the card's record of the training."""
    config = plan.config
    return {
        "dataset": config.dataset if isinstance(config.dataset, str) else list(config.dataset),
        "others": [o.model_dump(mode="json") for o in config.others],
        "sources": list(config.sources),
        "rows": len(plan.learnt),
        "materials": len(np.unique(plan.data.material[plan.learnt])),
        "protocol": config.protocol,
        "pretrained": None if plan.start is None else cards.read_card(plan.start).name,
        "members": len(members),
        "runs": config.runs,
        "folds": config.folds,
        "left_out": config.left_out,
        "epochs": [m.epochs for m in members],
        "parameters": sum(p.numel() for p in served.parameters()),
        "recalled_numbers": served.recall.keys.numel(),
        "half_edge_ev": round(half_edge_ev(plan.clean[plan.learnt], plan.rows.grid.energy), 1),
        "periods": list(plan.shape.periods),
        "temperature": [round(t, 3) for t in plan.blend.temperature.tolist()],
        "recall_share": [round(t, 3) for t in plan.blend.share.tolist()],
        "network": config.network.model_dump(),
        "augmentation": config.augmentation.model_dump(),
        "optimisation": config.optimisation.model_dump(),
        "seed": config.seed,
    }


Judged = tuple[NDArray[np.int_], Estimates]
"""Rows, and their estimates by networks that have not seen their materials."""


def out_of_fold(plan: TrainingPlan, juries: Sequence[Served], points: int | None = None) -> Judged:
    """Return the rows that calibrate and their estimates.

    Parameters
    ----------
    points : number of points to which spectra are cut, with the rows that have them; None for whole rows
    """
    parts: list[Judged] = []
    for jury, (_, index) in zip(juries, plan.folds, strict=False):
        rows, spectra = (index, plan.clean[index]) if points is None else cut_rows(plan, index, points)
        if len(rows):
            parts.append((rows, estimates(plan, jury, spectra)))
    if not parts:
        return np.empty(0, int), {}
    joined: Estimates = {}
    for name in parts[0][1]:
        value, mean, sd = (np.concatenate([e[name][j] for _, e in parts]) for j in range(3))
        joined[name] = value, mean, sd
    return np.concatenate([rows for rows, _ in parts]), joined


def describe(plan: TrainingPlan, name: str, unseen: Judged, windows: Mapping[int, Judged]) -> DescriptorCard:
    """Return the card of one descriptor, its intervals calibrated out of fold (cross-conformal: Vovk, 2015).

    Parameters
    ----------
    unseen : all rows that calibrate
    windows : rows that reach a window, cut there, by the window's number of points, rising. The longest windows, with
        too few rows, have the factor of the longest window with enough rows
    """
    config = plan.config
    head = "OS_mean" if name == "OS" and "OS_mean" in config.regressed else None
    error, sd = residuals(plan, head or name, unseen)
    floor = float(np.median(np.abs(error))) / 2 + 1e-3
    scale = conformal_scale(error, np.hypot(sd, floor), _COVERAGE)
    ratios: dict[float, Array] = {}
    for points, judged in windows.items():
        error, sd = residuals(plan, head or name, judged)
        if len(error) >= MIN_ROWS:
            ratios[float(plan.rows.grid.energy[points - 1])] = np.abs(error) / np.hypot(sd, floor)
    scales = [round(s, 4) for s in window_scales([*ratios.values()], _COVERAGE)]
    by_window = tuple(WindowScale(stop_ev=end, scale=s) for end, s in zip(ratios, scales, strict=True))
    scale = by_window[-1].scale if by_window else round(scale, 4)
    classified = name in config.classified
    return DescriptorCard(
        name=name,
        kind="classified" if classified else "regressed",
        unit=config.units.get(name, ""),
        classes=tuple(plan.rows.targets.classes[config.classified.index(name)].tolist()) if classified else (),
        mean_head=head,
        lowest=config.lowest.get(name),
        mixture=name not in config.not_for_mixtures,
        interval=Interval(scale=scale, floor=round(floor, 5), coverage=_COVERAGE, windows=by_window),
    )


def residuals(plan: TrainingPlan, name: str, judged: Judged) -> tuple[Array, Array]:
    """Return the errors of the mean and the predicted standard deviations (n,) of the labelled rows."""
    rows, estimated = judged
    if not len(rows):
        return np.empty(0), np.empty(0)
    _, mean, sd = estimated[name]
    true = plan.data.labels[name][rows]
    known = ~np.isnan(true)
    return mean[known] - true[known], sd[known]


def measure(
    plan: TrainingPlan, served: Served, juries: Sequence[Served], described: Sequence[DescriptorCard]
) -> dict[str, Any]:
    """Return weighted F1 or R² by descriptor: of the ensemble on ``val``, or mean and standard error over folds."""
    config = plan.config
    kinds = {d: "weighted F1" if d in config.classified else "R2" for d in (*config.classified, *config.regressed)}
    if len(plan.judged):
        estimated = estimates(plan, served, plan.clean[plan.judged])
        held = {d.mean_head or d.name: interval_coverage(plan, d, (plan.judged, estimated)) for d in described}
        return {
            "on": f"{len(plan.judged)} validation rows, of materials that are neither trained on nor calibrated with",
            **{
                d: {"metric": kinds[d], "value": round(v, 4)}
                | ({"interval_holds": round(held[d], 4)} if d in held else {})
                for d, v in score(plan, estimated, plan.judged).items()
            },
        }
    each = [
        score(plan, estimates(plan, jury, plan.clean[index]), index)
        for jury, (_, index) in zip(juries, plan.folds, strict=False)
    ]
    per = {d: np.array([e[d] for e in each]) for d in kinds}
    rows, unseen = out_of_fold(plan, juries)
    judges = "single members" if config.left_out == 1 else f"{config.left_out} members together"
    mae: dict[str, float] = {}
    if "OS_mean" in unseen:
        error = np.abs(unseen["OS_mean"][1] - plan.data.labels["OS_mean"][rows])
        mae["OS_mean_MAE_e"] = round(float(np.nanmean(error)), 4)
    return {
        "on": f"{len(juries)}-fold cross-validation by material, {judges}, mean and standard error over folds",
        **mae,
        **{
            d: {
                "metric": kinds[d],
                "value": round(float(np.nanmean(v)), 4),
                "standard_error": round(float(np.nanstd(v, ddof=1) / len(v) ** 0.5), 4),
            }
            for d, v in per.items()
        },
    }


def interval_coverage(plan: TrainingPlan, d: DescriptorCard, judged: Judged) -> float:
    """Return the share of the rows whose label lies in the card's interval; NaN if no row is labelled."""
    name, (rows, _) = d.mean_head or d.name, judged
    labelled = rows[~np.isnan(plan.data.labels[name][rows])]
    if not len(labelled):
        return float("nan")
    points = len(plan.rows.grid) if plan.rows.reach is None else plan.rows.reach.numpy()[labelled]
    error, sd = residuals(plan, name, judged)
    return float((np.abs(error) <= d.interval.half_width(sd, plan.rows.grid.energy[points - 1])).mean())


def score(plan: TrainingPlan, estimated: Estimates, index: NDArray[np.int_]) -> dict[str, float]:
    """Return the headline score of every descriptor on the rows ``index``."""
    truth: Mapping[str, Array] = {d: v[index] for d, v in plan.data.labels.items()}
    return scores(truth, best(estimated), plan.config.classified)
