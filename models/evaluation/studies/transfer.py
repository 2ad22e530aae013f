"""The study of transfer: the value of pre-training on a large set for a small set of another absorber."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ....agent.types import Array
from ...progress import Progress
from ...training import TrainingPlan
from ..report import Section, curves, plain, score, slug
from .fine_tuning import TransferSettings, TuningMode, all_trials, run_trials
from .pooled_predictions import PooledPredictions, compare, fold_scores, pool, standard_error

_MEAN_OS_ERROR = "OS_mean MAE (e)"
_SMALL_FRACTION = 0.25
"""Fraction of the training materials at which fine-tuning is compared with training from scratch on all of them."""


def transfer(settings: TransferSettings, data: Path, kept: Path, jobs: int, progress: Progress) -> Section:
    """Run the study and return the section of the report.

    Parameters
    ----------
    data : folder of the FEFF rows
    kept : folder of finished results
    jobs : number of trials at the same time
    """
    trials = list(all_trials(settings))
    done = list(zip(trials, run_trials(trials, settings, data, kept, jobs, progress), strict=True))
    section = Section("Transfer to other absorbers", _protocol(settings))
    rows: list[dict[str, Any]] = []
    for config in settings.targets:
        plan = settings.read_plan(config, data)
        of_target = [(t, o) for t, o in done if t.config is config]
        pooled: dict[tuple[TuningMode, float], PooledPredictions] = {
            (mode, fraction): pool(
                plan, settings, [(t, o) for t, o in of_target if (t.mode, t.fraction) == (mode, fraction)]
            )
            for mode in settings.modes
            for fraction in settings.fractions
        }
        scores = list(_scores(plan, pooled))
        rows += [{"target": config.name, **r} for r in scores]
        drawn = pd.DataFrame([r for r in scores if r["descriptor"] != _MEAN_OS_ERROR])
        key = slug(config.name)
        section.figures[f"transfer-{key}"] = curves(
            drawn, "training", "fraction", "fraction of the training materials", config.classified
        )
        section.captions[f"transfer-{key}"] = (
            f"{plain(config.name)}: score over all held-out rows; bars: standard error over folds."
        )
        section.text += "\n\n" + _compare_small_with_all(section, plan, pooled)
    section.tables["transfer-scores"] = pd.DataFrame(rows)
    section.captions["transfer-scores"] = "Weighted F1, R² or MAE of all held-out rows, and over folds."
    return section


def _scores(
    plan: TrainingPlan, pooled: Mapping[tuple[TuningMode, float], PooledPredictions]
) -> Iterator[dict[str, Any]]:
    classified = plan.config.classified
    for (mode, fraction), p in pooled.items():
        truth = {d: v[p.rows] for d, v in plan.data.labels.items()}
        error = np.abs(p.best["OS_mean"] - truth["OS_mean"])
        scores: dict[str, tuple[float, Array]] = {
            d: (score(d, truth, p.best, classified), fold_scores(d, truth, p.best, classified, p.fold))
            for d in p.best
        }
        by_fold = np.array([float(np.nanmean(error[p.fold == f])) for f in np.unique(p.fold)], dtype=float)
        scores[_MEAN_OS_ERROR] = float(np.nanmean(error)), by_fold
        for d, (value, of_folds) in scores.items():
            yield {
                "descriptor": d,
                "training": mode,
                "fraction": fraction,
                "score": value,
                "mean over folds": float(of_folds.mean()),
                "standard_error": standard_error(of_folds),
            }


def _compare_small_with_all(
    section: Section, plan: TrainingPlan, pooled: Mapping[tuple[TuningMode, float], PooledPredictions]
) -> str:
    """Compare fine-tuning on few rows with training from scratch on all."""
    few, every = pooled.get(("full", _SMALL_FRACTION)), pooled.get(("scratch", 1.0))
    if few is None or every is None:
        return ""
    return compare(section, plan, few, every, f"full fine-tuning on {_SMALL_FRACTION:.0%}", "scratch on 100%")


def _protocol(settings: TransferSettings) -> str:
    return _PROTOCOL.format(
        model=plain(Path(settings.pretrained).name),
        folds=settings.folds,
        fractions=", ".join(f"{f:.0%}" for f in settings.fractions),
        epochs=settings.epochs,
        rows=settings.rows_per_epoch,
        share=settings.recall_share,
    )


_PROTOCOL = """
**Question.** Does the pre-trained {model} improve the results for the small set of another absorber?

**Protocol.** {folds}-fold cross-validation by material over `train` and `val` of each target, with {fractions} of the
remaining materials as training data. *scratch* starts from random weights; *frozen* trains only the heads and the
query of a pre-trained network, *partial* also its latent layer, *full* all weights. Every network is trained for
{epochs} epochs of {rows} rows, which is short, and recalls its training rows with a share of {share:.0%} in every
answer. Scores are computed over all held-out rows together, because a single fold has too few rows; the table also
gives mean and standard error over folds, with R² against the variance of all rows. Pre-training has seen the original
structures of the prototypes, with spectra of another absorber.
""".strip()
