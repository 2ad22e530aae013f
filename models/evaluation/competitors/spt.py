"""The SPT as a competitor: with all parts, without some, or trained for a single descriptor."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from ....agent.types import Array
from ...network import SPT, Served
from ...training import (
    Rows,
    Targets,
    TrainedMember,
    TrainingConfig,
    TrainingPlan,
    ensemble,
    fit_blend,
    folds,
    held_out,
    share_of,
    train_member,
)
from ..contract import Predictions, Spectra

_BATCH_ROWS = 64
_BLEND_FOLDS = 15  # number of folds; one of them fits the blend


@dataclass(frozen=True)
class FittedSPT:
    """A trained SPT with recall; its blend is fitted on held-out rows."""

    plan: TrainingPlan
    served: Served
    parameters: int

    @torch.no_grad()
    def predict(self, spectra: Spectra) -> Predictions:
        """Return predictions as :meth:`Fitted.predict` does."""
        out = torch.cat([self.served(part) for part in torch.from_numpy(spectra).split(_BATCH_ROWS)]).double().numpy()
        return from_columns(self.plan, out)


def from_columns(plan: TrainingPlan, out: Array) -> Predictions:
    """Return predictions from the columns of :class:`~xas_agent.models.network.ensemble.Served`."""
    logits: dict[str, Array] = {}
    column = 0
    for name, classes in zip(plan.config.classified, plan.rows.targets.classes, strict=True):
        logits[name] = np.log(np.maximum(out[:, column : column + len(classes)], 1e-9))
        column += len(classes)
    r = len(plan.config.regressed)
    values = {d: out[:, column + j] for j, d in enumerate(plan.config.regressed)}
    spreads = {d: out[:, column + r + j] for j, d in enumerate(plan.config.regressed)}
    return Predictions(logits, values, spreads)


@dataclass(frozen=True)
class SPTCompetitor:
    """The SPT, trained by a plan's training config.

    Settings are ``network``, ``augmentation`` and ``optimisation``, which change keys of the config; ``only``, the
    single descriptor of an Expert (paper, section 5.3); and ``materials``, the share of the training materials."""

    SETTINGS: ClassVar[tuple[str, ...]] = ("network", "augmentation", "optimisation", "only", "materials")
    name: str = "spt"
    search: Sequence[Mapping[str, Any]] = ({},)

    def fit(self, plan: TrainingPlan, train: NDArray[np.int_], settings: Mapping[str, Any], seed: int) -> FittedSPT:
        """Train as :meth:`Competitor.fit` does; one fold of the materials, chosen by the seed, fits the blend."""
        train = share_of(plan.data.material, train, settings.get("materials", 1.0), seed)
        variant = plan.variant(train, changed_config(plan.config, settings))
        if "only" in settings:
            variant = replace(variant, rows=rows_of_expert(plan, settings["only"]))
        cut = folds(plan.data.material[train], _BLEND_FOLDS, plan.config.seed)
        held = train[cut[seed % _BLEND_FOLDS]]
        learnt = np.setdiff1d(train, held)
        torch.manual_seed(seed)
        network, material = SPT(variant.shape), plan.data.material
        member = train_member(network, variant.rows, learnt, variant.scale, variant.config, seed, material)
        trained, t = TrainedMember.of(member), variant.rows.targets
        held_answers = held_out(variant, ensemble(variant, [trained], learnt), held)
        recalls = trained.log_sharpness is not None
        variant = replace(variant, blend=fit_blend([held_answers], t.one_hot, t.regressed, recalls))
        served = ensemble(variant, [trained], train)
        return FittedSPT(variant, served, sum(p.numel() for p in network.parameters()))


def changed_config(config: TrainingConfig, settings: Mapping[str, Any]) -> TrainingConfig:
    """Return the config with changed keys of its network, augmentation and optimisation."""
    raw = config.model_dump()
    for part in ("network", "augmentation", "optimisation"):
        raw[part] |= settings.get(part, {})
    return TrainingConfig.model_validate(raw)


def rows_of_expert(plan: TrainingPlan, descriptor: str) -> Rows:
    """Return the rows with the labels of one descriptor only."""
    t, config = plan.rows.targets, plan.config
    named = zip(config.classified, t.one_hot, strict=True)
    one_hot = [part if d == descriptor else torch.zeros_like(part) for d, part in named]
    others = torch.tensor([d != descriptor for d in config.regressed])
    regressed = t.regressed.masked_fill(others, torch.nan)
    return replace(plan.rows, targets=Targets(one_hot, regressed, t.classes, t.mean, t.sd))
