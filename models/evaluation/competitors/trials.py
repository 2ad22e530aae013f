"""One competitor trained and judged: what most of the report is made of."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ....agent.types import Array, Settings
from ...progress import Progress
from ...training import TrainingConfig, TrainingPlan, folds
from ..contract import Predictions
from ..report import Arrays, Piece, run_all
from .conditions import CLEAN, CONDITIONS, disturbed
from .registry import NETWORKS, RECIPES, SPT_NAME

Split = Literal["material", "site", "search"]
INNER_FOLDS = 6
SITE_SEED = 0


class Trial(Settings):
    """A competitor, its settings, what it learns from and what it is judged on."""

    competitor: str
    split: Split
    settings: dict[str, Any]
    seed: int = 0
    disturbances: bool = False
    """Whether it is also judged under every condition of :mod:`.conditions`."""

    def __hash__(self) -> int:
        return hash(self.model_dump_json())


@dataclass(frozen=True)
class TrialOutcome:
    """What came of a trial."""

    predictions: dict[str, Predictions]
    """Per condition, of the rows that :func:`split_rows` judges."""
    parameters: int
    seconds: float
    """Of training."""
    latency_ms: float
    """Of one spectrum on one thread, the least of several."""


def split_rows(plan: TrainingPlan, split: Split) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Indices to learn from and to be judged on.

    ``material``: ``train`` and ``val``, no material in both. ``site``: as many rows drawn at random from the two, so
    that sites of one structure, near copies of each other, stand on both sides. ``search``: within ``train``, by
    material.
    """
    if split == "material":
        return plan.learnt, plan.judged
    if split == "site":
        order = np.random.default_rng(SITE_SEED).permutation(len(plan.data))
        return np.sort(order[len(plan.judged) :]), np.sort(order[: len(plan.judged)])
    inner = plan.learnt[folds(plan.data.material[plan.learnt], INNER_FOLDS, plan.config.seed)[0]]
    return np.setdiff1d(plan.learnt, inner), inner


def run_trial(trial: Trial, config: TrainingConfig, folder: Path) -> TrialOutcome:
    """Train and judge; takes as long as the competitor's training."""
    plan = TrainingPlan.read(config, folder)
    train, judged = split_rows(plan, trial.split)
    began = time.perf_counter()
    fitted = RECIPES[trial.competitor].fit(plan, train, trial.settings, trial.seed)
    seconds = time.perf_counter() - began
    conditions = CONDITIONS if trial.disturbances else (CLEAN,)
    predictions = {c.name: fitted.predict(disturbed(plan, judged, c)) for c in conditions}
    one = plan.clean[judged[:1]].float().numpy()
    took: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        fitted.predict(one)
        took.append(time.perf_counter() - began)
    return TrialOutcome(predictions, fitted.parameters, seconds, min(took) * 1e3)


def pack(outcome: TrialOutcome) -> Arrays:
    """An outcome as arrays."""
    arrays: Arrays = {
        "about": np.array([outcome.parameters, outcome.seconds, outcome.latency_ms], float),
    }
    for condition, p in outcome.predictions.items():
        for kind, of in (("logits", p.logits), ("values", p.values), ("spreads", p.spreads)):
            arrays |= {f"{condition}|{kind}|{d}": np.asarray(v, np.float32) for d, v in of.items()}
    return arrays


def unpack(arrays: Arrays) -> TrialOutcome:
    """The inverse of :func:`pack`."""
    found: dict[str, dict[str, dict[str, Array]]] = {}
    for name, value in arrays.items():
        if name != "about":
            condition, kind, descriptor = name.split("|")
            parts = found.setdefault(condition, {"logits": {}, "values": {}, "spreads": {}})
            parts[kind][descriptor] = value.astype(float)
    parameters, seconds, latency_ms = arrays["about"]
    return TrialOutcome(
        {c: Predictions(**p) for c, p in found.items()}, int(parameters), float(seconds), float(latency_ms)
    )


def depends_on(trial: Trial, config: TrainingConfig) -> Any:
    """What a trial's outcome depends on; for networks also the balance that they share, for an SPT its recipe."""
    parts = {"dataset", "edge_ev", "grid", "classified", "regressed", "augmentation", "protocol", "seed"}
    if trial.competitor == SPT_NAME:
        parts |= {"network", "optimisation"}
    balance = config.optimisation.regression_weight if trial.competitor in NETWORKS else None
    return [trial.model_dump(), config.model_dump(mode="json", include=parts), balance]


def _packed(trial: Trial, config: TrainingConfig, folder: Path) -> Arrays:
    return pack(run_trial(trial, config, folder))


def outcomes(
    trials: Sequence[Trial], config: TrainingConfig, folder: Path, kept: Path, jobs: int, progress: Progress
) -> dict[Trial, TrialOutcome]:
    """What comes of all trials; see :func:`.kept.run_all`."""
    pieces = [
        Piece(f"{t.competitor}-{t.split}-{t.seed}", depends_on(t, config), partial(_packed, t, config, folder))
        for t in trials
    ]
    return {t: unpack(a) for t, a in zip(trials, run_all("benchmark", pieces, kept, jobs, progress), strict=True)}
