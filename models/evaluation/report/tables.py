"""Figures of merit with intervals by resampling of materials, since sites of one material are not independent."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ....agent.types import Array
from ...training import scores
from ..contract import Predictions

_MIN_GROUP_ROWS = 10
"""Size below which groups are marked, since their scores are unreliable."""


@dataclass(frozen=True, slots=True)
class FigureOfMerit:
    """A figure of merit and its 95 % bootstrap interval over materials."""

    value: float
    lo: float
    hi: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.lo:.3f}, {self.hi:.3f}]"


def score(
    descriptor: str, truth: Mapping[str, Array], value: Mapping[str, Array], classified: Collection[str]
) -> float:
    """Return weighted F1 of a classified descriptor or R² of a regressed one, as
    :func:`xas_agent.models.training.metrics.scores` does.

    Parameters
    ----------
    truth, value : (N,) per descriptor; rows whose truth is NaN do not count

    Returns
    -------
    Score; NaN without labels, or with fewer than two for R².
    """
    known = int(np.sum(~np.isnan(truth[descriptor])))
    if known < (1 if descriptor in classified else 2):
        return float("nan")
    return scores(truth, {descriptor: value[descriptor]}, tuple(classified))[descriptor]


# --- intervals by resampling materials ----------------------------------------


def draws_of(materials: int, draws: int, seed: int) -> NDArray[np.int_]:
    """Return how often each material occurs in each resample with replacement, (draws, materials)."""
    return np.random.default_rng(seed).multinomial(materials, np.full(materials, 1 / materials), size=draws)


def bootstrap(
    truth: Mapping[str, Array],
    value: Mapping[str, Array],
    classified: Collection[str],
    material: NDArray[np.str_],
    descriptor: str,
    draws: int = 2000,
    seed: int = 0,
) -> FigureOfMerit:
    """Return the headline score with its interval over ``material`` (N,)."""
    kind = descriptor in classified
    sums = _sums(truth[descriptor], value[descriptor], kind, material)
    return _measured(sums, lambda s: _merit(s, kind), draws, seed)


def paired_bootstrap(
    truth: Mapping[str, Array],
    a: Mapping[str, Array],
    b: Mapping[str, Array],
    classified: Collection[str],
    material: NDArray[np.str_],
    descriptor: str,
    draws: int = 2000,
    seed: int = 0,
) -> FigureOfMerit:
    """Return the headline score of ``a`` minus that of ``b``, with its interval over the same resamples."""
    kind = descriptor in classified
    of_a, of_b = (_sums(truth[descriptor], of[descriptor], kind, material) for of in (a, b))
    width = of_a.shape[1]

    def difference(sums: Array) -> Array:
        return _merit(sums[..., :width], kind) - _merit(sums[..., width:], kind)

    return _measured(np.hstack([of_a, of_b]), difference, draws, seed)


def coverage_interval(
    held: NDArray[np.bool_], material: NDArray[np.str_], draws: int = 2000, seed: int = 0
) -> FigureOfMerit:
    """Return the share of rows (N,) whose interval contains the truth, with its bootstrap interval."""
    group = np.unique(material, return_inverse=True)[1]
    sums = np.stack([np.bincount(group, held), np.bincount(group)], axis=1).astype(float)
    return _measured(sums, lambda s: s[..., 0] / s[..., 1], draws, seed)


def _measured(sums: Array, merit: Callable[[Array], Array], draws: int, seed: int) -> FigureOfMerit:
    """Return a figure with its interval; ``merit`` maps sums (…, K) to figures (…,), ``sums`` is (materials, K)."""
    if not len(sums):
        return FigureOfMerit(float("nan"), float("nan"), float("nan"))
    drawn = merit(draws_of(len(sums), draws, seed) @ sums)
    lo, hi = np.percentile(drawn, [2.5, 97.5])
    return FigureOfMerit(float(merit(sums.sum(0))), float(lo), float(hi))


def _sums(truth: Array, value: Array, classified: bool, material: NDArray[np.str_]) -> Array:
    """Return sums (M, K) per material that add up over materials and give the headline score.

    These are hits, true and predicted counts of every class; or rows, Σt, Σt², Σ(t − p)² about the mean of t.
    """
    known = ~np.isnan(truth)
    t, p = truth[known], value[known]
    materials, group = np.unique(material[known], return_inverse=True)
    if not classified:
        about = t - t.mean() if len(t) else t
        each = np.ones_like(t), about, about**2, (t - p) ** 2
        return np.stack([np.bincount(group, w).astype(float) for w in each], axis=1)
    labels = np.union1d(t, p)
    t, p = np.searchsorted(labels, t), np.searchsorted(labels, p)
    shape = (len(materials), len(labels))

    def counts(of: NDArray[np.int_], where: NDArray[np.bool_]) -> Array:
        found = np.bincount((group * len(labels) + of)[where], minlength=shape[0] * shape[1])
        return found.reshape(shape).astype(float)

    every = np.ones(len(t), dtype=bool)
    return np.hstack([counts(t, t == p), counts(t, every), counts(p, every)])


def _merit(sums: Array, classified: bool) -> Array:
    """Return weighted F1 or R² by scikit-learn's definitions, (…, K) sums → (…,)."""
    if classified:
        hits, true, predicted = np.split(sums, 3, axis=-1)
        f1 = 2 * hits / np.maximum(true + predicted, 1)
        return (true * f1).sum(-1) / true.sum(-1)
    rows, total, square, error = np.moveaxis(sums, -1, 0)
    spread = square - total**2 / rows
    # The variance of equal truths is a rounding error; scikit-learn then gives 1 without any error, otherwise 0.
    flat = spread <= 1e-12 * square + 1e-300
    r2 = 1 - error / np.where(flat, 1.0, spread)
    return np.where(rows < 2, np.nan, np.where(flat, (error == 0).astype(float), r2))


# --- tables -------------------------------------------------------------------


def descriptor_scores(
    truth: Mapping[str, Array],
    predictions: Predictions,
    classes: Mapping[str, NDArray[np.int_]],
    material: NDArray[np.str_] | None = None,
) -> pd.DataFrame:
    """Return the scores, with a row per descriptor that is predicted and labelled.

    With ``material`` (N,), the headline score (weighted F1 or R²) has its 95 % interval, ``low`` and ``high``.
    """
    from sklearn.metrics import accuracy_score, f1_score

    best = predictions.best(classes)
    found: dict[str, dict[str, float]] = {}
    for d, value in best.items():
        if d not in truth or not (known := ~np.isnan(truth[d])).any():
            continue
        t, p = truth[d][known], value[known]
        headline = score(d, truth, best, classes)
        if d in classes:
            zero: Any = 0.0  # scikit-learn annotates it as a string
            macro = f1_score(t.astype(int), p.astype(int), average="macro", zero_division=zero)
            accuracy = accuracy_score(t.astype(int), p.astype(int))
            row = {"weighted F1": headline, "macro F1": float(macro), "accuracy": float(accuracy)}
        else:
            row = {
                "R²": headline,
                "MAE": float(np.abs(t - p).mean()),
                "RMSE": float(np.sqrt(((t - p) ** 2).mean())),
            }
        if material is not None:
            interval = bootstrap(truth, best, classes, material, d)
            row |= {"low": interval.lo, "high": interval.hi}
        found[d] = row | {"rows": int(known.sum())}
    order = ["weighted F1", "macro F1", "accuracy", "R²", "MAE", "RMSE", "low", "high", "rows"]
    columns = [c for c in order if any(c in row for row in found.values())]
    return pd.DataFrame.from_dict(found, orient="index", columns=columns).rename_axis("descriptor")


def confusion(
    descriptor: str,
    truth: Mapping[str, Array],
    predictions: Predictions,
    classes: Mapping[str, NDArray[np.int_]],
) -> pd.DataFrame:
    """Return counts of true (rows) and predicted classes, including true classes that the model does not have."""
    known = ~np.isnan(truth[descriptor])
    t, p = truth[descriptor][known].astype(int), predictions.best(classes)[descriptor][known].astype(int)
    labels = np.union1d(classes[descriptor], t)
    counts = np.zeros((len(labels), len(labels)), dtype=int)
    np.add.at(counts, (np.searchsorted(labels, t), np.searchsorted(labels, p)), 1)
    return pd.DataFrame(counts, index=pd.Index(labels, name="true"), columns=pd.Index(labels, name="predicted"))


@dataclass(frozen=True)
class Roc:
    """One class against the rest, for every class of a descriptor."""

    curves: dict[int, tuple[Array, Array]]
    """False and true positive rates of each class."""
    auroc: dict[int, float]
    """Area under the curve of each class."""
    weighted: float
    """Mean area, weighted by the rows of the classes; NaN if there is no class."""


def roc(
    descriptor: str,
    truth: Mapping[str, Array],
    predictions: Predictions,
    classes: Mapping[str, NDArray[np.int_]],
) -> Roc:
    """Return the receiver operating characteristics; classes of all rows or of none are left out."""
    from sklearn.metrics import roc_auc_score, roc_curve

    known = ~np.isnan(truth[descriptor])
    t, probability = truth[descriptor][known], predictions.probabilities(descriptor)[known]
    curves: dict[int, tuple[Array, Array]] = {}
    auroc: dict[int, float] = {}
    rows: list[int] = []
    for k, c in enumerate(classes[descriptor]):
        is_class = t == c
        if is_class.any() and not is_class.all():
            false, true, _ = roc_curve(is_class, probability[:, k])
            curves[int(c)], auroc[int(c)] = (false, true), float(roc_auc_score(is_class, probability[:, k]))
            rows.append(int(is_class.sum()))
    weighted = float(np.average(list(auroc.values()), weights=rows)) if rows else float("nan")
    return Roc(curves, auroc, weighted)


def by_group(
    truth: Mapping[str, Array],
    predictions: Predictions,
    classes: Mapping[str, NDArray[np.int_]],
    groups: NDArray[Any],
) -> pd.DataFrame:
    """Return the headline scores of the rows of each group (N,); rows without a group are left out.

    Groups of fewer than ten rows carry their count in their name. A score is NaN if fewer than ten rows of a larger
    group are labelled; R² is also NaN if all truths of a group are equal.
    """
    best = predictions.best(classes)
    names = [d for d in best if d in truth]
    found: dict[str, dict[str, float]] = {}
    for group in np.unique(groups[~pd.isna(groups) & (groups.astype(str) != "")]):
        inside = groups == group
        rows = int(inside.sum())
        t, p = {d: truth[d][inside] for d in names}, {d: best[d][inside] for d in names}
        row: dict[str, float] = {"rows": rows}
        for d in names:
            known = t[d][~np.isnan(t[d])]
            judged = len(known) >= min(rows, _MIN_GROUP_ROWS) and (d in classes or np.ptp(known) > 0)
            row[d] = score(d, t, p, classes) if judged else float("nan")
        label = f"{group:g}" if isinstance(group, float) else str(group)
        found[label if rows >= _MIN_GROUP_ROWS else f"{label} (only {rows})"] = row
    return pd.DataFrame.from_dict(found, orient="index", columns=["rows", *names]).rename_axis("group")


def calibration(confidence: Array, correct: NDArray[np.bool_], bins: int = 10) -> tuple[pd.DataFrame, float]:
    """Return the reliability of confidences (n,) and the expected calibration error.

    The table has bins of equal width with their mean confidence, share of correct answers and number of rows, without
    empty bins. The error is the mean distance of the two, weighted by rows (Guo et al., ICML 2017, eq. 3).
    """
    inside = np.minimum((confidence * bins).astype(int), bins - 1)
    rows, sure, right = (np.bincount(inside, w, minlength=bins) for w in (None, confidence, correct))
    some = rows > 0
    rows, sure, right = rows[some], sure[some] / rows[some], right[some] / rows[some]
    table = pd.DataFrame({"confidence": sure, "correct": right, "rows": rows.astype(int)})
    return table, float((np.abs(sure - right) * rows).sum() / max(rows.sum(), 1))
