"""Joined predictions of all folds of a cross-validation, their scores, and the comparison of two of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from ....agent.types import Array, InputError
from ... import card as cards
from ...engines.torchscript import load_module
from ...training import TrainingPlan
from ..competitors import TrialOutcome, from_columns
from ..contract import classes_of
from ..report import Section, paired_bootstrap, plain, score, slug
from .fine_tuning import TransferSettings, TransferTrial, fold_rows


@dataclass(frozen=True)
class PooledPredictions:
    """Predictions for rows of a plan by networks that had not seen them."""

    rows: NDArray[np.int_]
    """(n,) indices of the rows."""
    fold: NDArray[np.int_]
    """(n,) fold number of each row, counted through all repeats."""
    best: dict[str, Array]
    """(n,) most probable class or value of each descriptor."""


def pool(
    plan: TrainingPlan, settings: TransferSettings, done: Sequence[tuple[TransferTrial, TrialOutcome]]
) -> PooledPredictions:
    """Join the predictions of all folds and repeats of one mode and fraction."""
    rows = [fold_rows(plan.data, settings, t.repeat)[t.fold] for t, _ in done]
    fold = [np.full(len(r), t.repeat * settings.folds + t.fold) for r, (t, _) in zip(rows, done, strict=True)]
    best = [outcome.predictions["clean"].best(classes_of(plan)) for _, outcome in done]
    return PooledPredictions(
        np.concatenate(rows), np.concatenate(fold), {d: np.concatenate([b[d] for b in best]) for d in best[0]}
    )


def predict_with_pretrained(plan: TrainingPlan, rows: NDArray[np.int_], pretrained: str) -> PooledPredictions:
    """Return the predictions of an unchanged model for rows of a plan with the model's grid and classes.

    Raises
    ------
    InputError
        The model regresses other quantities than the plan.
    """
    folder = cards.find(pretrained)
    card = cards.verify(folder)
    if card.regressed != plan.config.regressed:
        raise InputError(
            f"{folder}: regresses {', '.join(card.regressed)}; expected {', '.join(plan.config.regressed)}"
        )
    model = load_module(folder, torch.device("cpu"))
    with torch.no_grad():
        out = torch.cat([model(part) for part in plan.clean[rows].split(64)]).double().numpy()
    return PooledPredictions(rows, np.zeros(len(out), int), from_columns(plan, out).best(classes_of(plan)))


def varied(truth: Mapping[str, Array]) -> list[str]:
    """Return the descriptors with at least two different labels, since the score of a single one is meaningless."""
    return [d for d, v in truth.items() if len(np.unique(v[~np.isnan(v)])) > 1]


def fold_scores(
    descriptor: str,
    truth: Mapping[str, Array],
    value: Mapping[str, Array],
    classified: Sequence[str],
    fold: NDArray[np.int_],
) -> Array:
    """Return the score of every fold, (folds,): weighted F1, or R² against the variance of all rows.

    The variance of a fold's few rows would be too uncertain.
    """
    variance = float(np.nanvar(truth[descriptor]))
    scores: list[float] = []
    for f in np.unique(fold[~np.isnan(truth[descriptor])]):
        t, v = truth[descriptor][fold == f], value[descriptor][fold == f]
        if descriptor in classified:
            scores.append(score(descriptor, {descriptor: t}, {descriptor: v}, classified))
        else:
            scores.append(1 - float(np.nanmean((t - v) ** 2)) / variance)
    return np.array(scores)


def standard_error(values: Array) -> float:
    """Return the standard error of the mean of values (n,); NaN for a single value."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")


def compare(
    section: Section, plan: TrainingPlan, a: PooledPredictions, b: PooledPredictions, name_a: str, name_b: str
) -> str:
    """Compare two ways of training on the same rows.

    Adds a table of paired differences to the section and returns a sentence for its text.
    """
    best_a, best_b = (_sorted_by_row(p) for p in (a, b))
    rows = np.sort(a.rows)
    truth = {d: v[rows] for d, v in plan.data.labels.items()}
    material, classified = plan.data.material[rows], plan.config.classified
    differences: dict[str, dict[str, float]] = {}
    for d in varied({d: truth[d] for d in best_a}):
        if d in best_b:
            m = paired_bootstrap(truth, best_a, best_b, classified, material, d)
            values = {n: score(d, truth, v, classified) for n, v in ((name_a, best_a), (name_b, best_b))}
            differences[d] = values | {"difference": m.value, "low": m.lo, "high": m.hi}
    key = slug(f"{plan.config.name} {name_a} against {name_b}")
    section.tables[key] = pd.DataFrame.from_dict(differences, orient="index").rename_axis("descriptor")
    section.captions[key] = (
        f"{plain(plan.config.name)}: {name_a} against {name_b}, the difference with its 95 % interval over materials."
    )
    higher = sum(f["difference"] > 0 for f in differences.values())
    ahead = [d for d, f in differences.items() if f["low"] > 0]
    behind = [d for d, f in differences.items() if f["high"] < 0]
    mae = [float(np.nanmean(np.abs(v["OS_mean"] - truth["OS_mean"]))) for v in (best_a, best_b)]
    return (
        f"**{plain(plan.config.name)}.** {name_a[0].upper()}{name_a[1:]} scores higher than {name_b} on {higher} of "
        f"{len(differences)} descriptors{_listed('significantly on', ahead)}"
        f"{_listed('significantly lower on', behind)}; the MAE of the mean OS is {mae[0]:.3f} e against "
        f"{mae[1]:.3f} e."
    )


def _sorted_by_row(p: PooledPredictions) -> dict[str, Array]:
    order = np.argsort(p.rows, kind="stable")
    return {d: v[order] for d, v in p.best.items()}


def _listed(label: str, names: Sequence[str]) -> str:
    return f", {label} {', '.join(plain(n) for n in names)}" if names else ""
