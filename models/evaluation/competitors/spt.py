"""The SPT as one competitor among others, whole, in parts, or trained for a single descriptor."""

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

CHUNK = 64
BLENDING_FOLDS = 15


@dataclass(frozen=True)
class FittedSPT:
    """A trained SPT with its recall, blended on rows that it has not trained on."""

    plan: TrainingPlan
    served: Served
    parameters: int

    @torch.no_grad()
    def predict(self, spectra: Spectra) -> Predictions:
        """As :meth:`Fitted.predict`."""
        out = torch.cat([self.served(part) for part in torch.from_numpy(spectra).split(CHUNK)]).double().numpy()
        return from_columns(self.plan, out)


def from_columns(plan: TrainingPlan, out: Array) -> Predictions:
    """Predictions from the columns of :class:`~xas_agent.models.network.ensemble.Served`."""
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
    """The SPT by the recipe of a plan's training config.

    Settings are ``network``, ``augmentation`` and ``optimisation``, each a mapping of what differs from the config;
    ``only``, a descriptor for which alone it is trained (the paper's Expert, section 5.3); and ``materials``, the
    share of them that it learns from.
    """

    SETTINGS: ClassVar[tuple[str, ...]] = ("network", "augmentation", "optimisation", "only", "materials")
    name: str = "spt"
    search: Sequence[Mapping[str, Any]] = ({},)

    def fit(self, plan: TrainingPlan, train: NDArray[np.int_], settings: Mapping[str, Any], seed: int) -> FittedSPT:
        """As :meth:`Competitor.fit`; a fold of the materials, another one for every seed, is kept for the blend."""
        train = share_of(plan.data.material, train, settings.get("materials", 1.0), seed)
        mine = plan.variant(train, changed(plan.config, settings))
        if "only" in settings:
            mine = replace(mine, rows=for_one(plan, settings["only"]))
        cut = folds(plan.data.material[train], BLENDING_FOLDS, plan.config.seed)
        held = train[cut[seed % BLENDING_FOLDS]]
        learnt = np.setdiff1d(train, held)
        torch.manual_seed(seed)
        network, material = SPT(mine.shape), plan.data.material
        member = train_member(network, mine.rows, learnt, mine.scale, mine.config, seed, lambda *_: None, material)
        trained, t = TrainedMember.of(member), mine.rows.targets
        seen = held_out(mine, ensemble(mine, [trained], learnt), held)
        mine = replace(mine, blend=fit_blend([seen], t.one_hot, t.regressed, member.recall is not None))
        served = ensemble(mine, [trained], train)
        return FittedSPT(mine, served, sum(p.numel() for p in network.parameters()))


def changed(config: TrainingConfig, settings: Mapping[str, Any]) -> TrainingConfig:
    """The config with some of its network, augmentation and optimisation changed."""
    as_read = config.model_dump()
    for part in ("network", "augmentation", "optimisation"):
        as_read[part] |= settings.get(part, {})
    return TrainingConfig.model_validate(as_read)


def for_one(plan: TrainingPlan, descriptor: str) -> Rows:
    """The rows with all labels but one descriptor's taken away."""
    t, config = plan.rows.targets, plan.config
    named = zip(config.classified, t.one_hot, strict=True)
    one_hot = [part if d == descriptor else torch.zeros_like(part) for d, part in named]
    others = torch.tensor([d != descriptor for d in config.regressed])
    regressed = t.regressed.masked_fill(others, torch.nan)
    return replace(plan.rows, targets=Targets(one_hot, regressed, t.classes, t.mean, t.sd))
