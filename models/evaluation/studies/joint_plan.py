"""Rows of several absorbers on one grid, for one network that reads the absorber as an input."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from ....agent.types import Array, Settings
from ...network import GATHERED_POINTS, SPT, SPTShape
from ...training import (
    FINE_EV,
    Augmentation,
    FeffData,
    Rows,
    Scale,
    Targets,
    TrainingConfig,
    TrainingPlan,
    add_noise,
    check_grid,
    disturb,
    folds,
    load_sets,
    mixtures,
    prepare,
)
from .fine_tuning import TransferSettings, cross_validated


class UniversalSettings(Settings):
    """One network for the rows of the source and of all targets."""

    source: TrainingConfig
    """Training config of the large set; its ``val`` rows judge."""
    transfer: TransferSettings
    """Targets, folds, pre-trained model, and fine-tuning of the networks for single targets."""
    epochs: int = 8
    """Epochs of the training."""
    copies: int = Field(default=10, ge=1)
    """Number of times that an epoch repeats each target row relative to a source row."""
    learning_rate: float = 1e-3
    """Peak learning rate."""
    seed: int = 0
    """Seed of all random numbers."""


@dataclass
class FlaggedRows(Rows):
    """Rows of several absorbers; flags after every spectrum identify its absorber."""

    flags: int
    """Number of flags, which are the last columns of ``fine``."""

    def aligned(self, fine: Tensor) -> Tensor:
        """Align as :meth:`Rows.aligned` does, and keep the flags."""
        return torch.cat([super().aligned(fine[:, : -self.flags]), fine[:, -self.flags :]], dim=1)

    def mixtures(self, index: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
        """Draw mixtures as :meth:`Rows.mixtures` does, but only of rows of one absorber."""
        group = self.fine[index, -self.flags :].argmax(-1)
        if settings.within_framework:
            group = group * (self.framework.max() + 1) + self.framework[index]
        return mixtures(tuple(index.shape), settings, generator, group)

    def disturbed(self, weights: Tensor, index: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
        """Disturb as :meth:`Rows.disturbed` does, and keep the flags."""
        fine = (weights @ self.fine[index]).flatten(0, -2)
        spectra = super().aligned(disturb(fine[:, : -self.flags], self.fine_start_ev, FINE_EV, settings, generator))
        spectra = self.footing(add_noise(spectra, self.slope_shape, settings, generator))
        return torch.cat([spectra, fine[:, -self.flags :]], dim=1).reshape(*index.shape, -1)


@dataclass(frozen=True, eq=False)
class JointPlan(TrainingPlan):
    """Plan with rows of several absorbers on a common grid, in eV relative to the edge of each absorber.

    The absorber is an input: after the spectrum, each absorber has a group of points that are 1 for the absorber of
    the row and 0 otherwise. The classes of a descriptor are the union of those of all absorbers.
    """

    parts: NDArray[np.int_]
    """(N,) set of each row: 0 for the source, then the targets in order."""
    structure: NDArray[np.str_]
    """(N,) structure of each row, regardless of its absorber (:func:`prototype`)."""

    @classmethod
    def join(cls, settings: UniversalSettings, data: Path) -> "JointPlan":
        """Read the rows of the source and of all targets."""
        targets = [cross_validated(c, settings.transfer.pretrained) for c in settings.transfer.targets]
        shared = targets[0]
        optimisation = settings.source.optimisation.model_copy(
            update={"epochs": settings.epochs, "learning_rate": settings.learning_rate, "rows_per_epoch": 1}
        )
        config = shared.model_copy(update={"name": "universal", "optimisation": optimisation})
        common = {"grid": shared.grid, "classified": shared.classified, "regressed": shared.regressed}
        configs = [c.model_copy(update=common) for c in (settings.source, *targets)]
        loaded = [_rows_of(c, data, ["train", "val"]) for c in configs]
        for c, part in zip(configs, loaded, strict=True):
            check_grid(c.grid.grid(), part, c.edge_ev)
        parts = np.repeat(np.arange(len(loaded)), [len(p) for p in loaded])
        joined, rows = _join_labels(loaded), _join_rows(loaded, configs)
        clean = rows.aligned(rows.fine)
        judged = np.flatnonzero((parts == 0) & (joined.split == "val"))
        return cls(
            config=config,
            data=joined,
            rows=rows,
            outliers=None,
            outlier_is_metal=torch.empty(0, dtype=torch.bool),
            judged=judged,
            clean=clean,
            parts=parts,
            structure=prototype(joined.material, np.array([c.absorber for c in configs])[parts]),
            **cls._derived_fields(config, joined, rows, clean, np.setdiff1d(np.arange(len(joined)), judged)),
        )

    @classmethod
    def _shape_and_scale(
        cls, config: TrainingConfig, rows: Rows, clean: Tensor, learnt: NDArray[np.int_]
    ) -> tuple[SPTShape, Scale]:
        shape, scale = super()._shape_and_scale(config, rows, clean, learnt)
        points = len(config.grid.grid())
        flags = shape.grid_points - points
        centre = torch.cat([scale.centre[:points], torch.zeros(flags)])
        return shape, Scale(centre, torch.cat([scale.spread[:points], torch.ones(flags)]))

    def new_member(self, k: int) -> SPT:
        """Return a network with the pre-trained weights of member k; the latent weights of the flags are 0."""
        shape = self.shape.model_copy(update={"grid_points": len(self.config.grid.grid())})
        without_flags = replace(self, shape=shape)
        start, network = TrainingPlan.new_member(without_flags, k).state_dict(), SPT(self.shape)
        for name, weight in network.state_dict().items():
            old = start[name]
            if name == "embedding.place":
                weight[:, :, : old.shape[2]] = old
            elif name == "latent.1.weight":
                weight.zero_()
                split = (len(weight), self.shape.gathered, -1)
                weight.reshape(split)[:, :, : old.reshape(split).shape[2]] = old.reshape(split)
            elif not name.endswith("outside"):
                weight.copy_(old)
        return network


def _rows_of(config: TrainingConfig, data: Path, splits: Sequence[str]) -> FeffData:
    loaded = load_sets(data, config.datasets, config.labels)
    return loaded.rows(np.isin(loaded.split, splits))


def _join_labels(parts: Sequence[FeffData]) -> FeffData:
    """Concatenate all rows without their spectra, whose numbers of energies differ."""

    def column(name: str) -> NDArray[np.str_]:
        return np.concatenate([getattr(p, name) for p in parts])

    ids, labels = column("ids"), {d: np.concatenate([p.labels[d] for p in parts]) for d in parts[0].labels}
    no_spectra = np.empty((len(ids), 0))
    material, split, kind, formula = (column(name) for name in ("material", "split", "kind", "formula"))
    return FeffData("universal", ids, material, split, kind, formula, no_spectra, no_spectra, labels)


def _join_rows(parts: Sequence[FeffData], configs: Sequence[TrainingConfig]) -> FlaggedRows:
    """Return spectra with flags, and labels, of all rows."""

    def classes_in(d: str) -> NDArray[np.int_]:
        values = np.concatenate([p.labels[d] for p in parts])
        return np.unique(values[~np.isnan(values)]).astype(int)

    classes = [classes_in(d) for d in configs[0].classified]
    each = [prepare(p, c, classes) for p, c in zip(parts, configs, strict=True)]
    fine: list[Tensor] = []
    for k, rows in enumerate(each):
        fine.append(torch.cat([rows.fine, _flags(len(rows.fine), k, len(parts))], dim=1))
    targets = [rows.targets for rows in each]
    raw = torch.cat([t.regressed * t.sd + t.mean for t in targets])
    mean = raw.nanmean(0)
    sd = (raw - mean).square().nanmean(0).sqrt()
    one_hot = [torch.cat([t.one_hot[k] for t in targets]) for k in range(len(classes))]
    joined = Targets(one_hot, (raw - mean) / sd, classes, mean, sd)
    framework = torch.cat([rows.framework for rows in each])
    return FlaggedRows(torch.cat(fine), joined, each[0].grid, framework, flags=len(parts) * GATHERED_POINTS)


def _flags(rows: int, part: int, parts: int) -> Tensor:
    """Return the flags of the absorber ``part``, (rows, parts · GATHERED_POINTS)."""
    flags = torch.zeros(rows, parts, GATHERED_POINTS)
    flags[:, part] = 1.0
    return flags.flatten(1)


def unseen_spectra(settings: UniversalSettings, plan: JointPlan, data: Path, part: int) -> tuple[Tensor, Array]:
    """Read the rows of a target in the split ``sim``, which is never trained on.

    Parameters
    ----------
    part : number of the target, from 1

    Returns
    -------
    Spectra (n, G + flags) and mean oxidation states (n,).
    """
    common = {"grid": plan.config.grid, "classified": plan.config.classified, "regressed": plan.config.regressed}
    config = settings.transfer.targets[part - 1].model_copy(update=common)
    unseen = _rows_of(config, data, ["sim"])
    if not len(unseen):
        return torch.empty(0, plan.clean.shape[1]), np.empty(0)
    rows = prepare(unseen, config)
    flags = _flags(len(unseen), part, plan.parts.max() + 1)
    return torch.cat([rows.aligned(rows.fine), flags], dim=1), unseen.labels["OS_mean"]


def prototype(material: NDArray[np.str_], absorber: NDArray[np.str_]) -> NDArray[np.str_]:
    """Return structures (N,) without their absorbers: ``mp-361`` for ``mp-361_Co``, ``MO`` for ``CoO``."""

    def structure_of(name: str, symbol: str) -> str:
        if name.startswith(("mp-", "mvc-")):
            return name.rsplit("_", 1)[0]
        return re.sub(rf"{symbol}(?![a-z])", "M", name)

    return np.array([structure_of(m, a) for m, a in zip(material.tolist(), absorber.tolist(), strict=True)])


def fold_of(plan: JointPlan, settings: UniversalSettings, k: int) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Return the training rows, those of targets repeated, and the held-out rows of fold k.

    The source's ``val`` and the same folds of each target as in :mod:`.transfer` are held out. Rows with a held-out
    structure are not trained on, whatever their absorber.
    """
    held = [plan.judged]
    for part in range(1, plan.parts.max() + 1):
        rows = np.flatnonzero(plan.parts == part)
        held.append(rows[folds(plan.data.material[rows], settings.transfer.folds, settings.transfer.seed)[k]])
    out = np.concatenate(held)
    structure = plan.structure
    learnt = np.flatnonzero(~np.isin(structure, structure[out]))
    times = np.where(plan.parts[learnt] == 0, 1, settings.copies)
    return np.repeat(learnt, times), out
