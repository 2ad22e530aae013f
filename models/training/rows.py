"""Training rows on a model's grid, with their labels."""

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...agent.types import Grid
from .augment import Augmentation, add_noise, disturb, mixtures
from .config import TrainingConfig
from .data import FeffData

FINE_EV = 0.5  # width of the bins on which spectra are disturbed before they are averaged over the grid's bins


@dataclass
class Targets:
    """Labels of N rows as tensors; missing labels are masked."""

    one_hot: list[Tensor]
    """(N, classes) labels of each classified descriptor; a row of zeros if the label is missing."""
    regressed: Tensor
    """(N, R) standardised values; NaN if missing."""
    classes: list[NDArray[np.int_]]
    """Classes of each classified descriptor."""
    mean: Tensor
    """(R,) means with which the regressed quantities are standardised."""
    sd: Tensor
    """(R,) standard deviations for the same purpose."""

    def to(self, device: torch.device) -> "Targets":
        """Return a copy on a device."""
        one_hot = [part.to(device) for part in self.one_hot]
        return Targets(one_hot, self.regressed.to(device), self.classes, self.mean.to(device), self.sd.to(device))


@dataclass
class Rows:
    """Spectra and labels of N rows, before disturbances."""

    fine: Tensor
    """(N, F) bin means with a bin width of FINE_EV."""
    targets: Targets
    grid: Grid
    framework: Tensor
    """(N,) number of each row's framework (:class:`~xas_agent.models.training.data.FeffData`)."""
    reach: Tensor | None = field(default=None, kw_only=True)
    """(N,) number of leading grid points of each row; None: all."""
    slope_shape: Tensor = field(init=False)
    """(G,) shape of a post-edge slope: 0 up to 10 eV above the edge, 1 at the end of the grid."""

    def __post_init__(self) -> None:
        above = (self.grid.energy - 10.0) / (self.grid.stop_ev - 10.0)
        self.slope_shape = torch.tensor(above.clip(0, 1), dtype=torch.float32, device=self.fine.device)
        self._foot, self._anchor = self.grid.window(self.grid.foot_ev), self.grid.window(self.grid.anchor_ev)

    def to(self, device: torch.device) -> Self:
        """Return a copy on a device."""
        return replace(
            self,
            fine=self.fine.to(device),
            targets=self.targets.to(device),
            framework=self.framework.to(device),
            reach=None if self.reach is None else self.reach.to(device),
        )

    @property
    def fine_start_ev(self) -> float:
        """Centre of the first fine bin, relative to the tabulated edge."""
        return float(self.grid.bounds[0]) + FINE_EV / 2

    def aligned(self, fine: Tensor) -> Tensor:
        """Average fine spectra (n, F) over the grid's bins and put them on the footing, (n, G)."""
        coarse = fine.reshape(len(fine), len(self.grid), -1).mean(2)
        return self.footing(coarse)

    def footing(self, coarse: Tensor) -> Tensor:
        """Put spectra (n, G) on the footing, as :meth:`Grid.footing` does."""
        foot = coarse[:, self._foot].mean(1, keepdim=True)
        return (coarse - foot) / (continued(coarse[:, self._anchor]).mean(1, keepdim=True) - foot)

    def cut(self, spectra: Tensor, points: Tensor | int) -> Tensor:
        """Put the first ``points``, (n,) or one number, of spectra (n, G) on the footing; the rest becomes NaN."""
        first = torch.as_tensor(points, device=spectra.device).reshape(-1, 1)
        unknown = torch.arange(spectra.shape[1], device=spectra.device) >= first
        return self.footing(spectra.masked_fill(unknown, torch.nan))

    def clean(self, index: Tensor | None = None) -> Tensor:
        """Align the rows ``index`` (n,), or all, undisturbed; (n, G), NaN beyond the end of a row."""
        fine, reach = self.fine, self.reach
        if index is not None:
            fine, reach = fine[index], None if reach is None else reach[index]
        aligned = self.aligned(fine)
        return aligned if reach is None else self.cut(aligned, reach)

    def mixtures(self, index: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
        """Draw weights of :func:`~xas_agent.models.training.augment.mixtures` among the rows ``index`` (..., n)."""
        group = self.framework[index] if settings.within_framework else None
        return mixtures(tuple(index.shape), settings, generator, group)

    def disturbed(self, weights: Tensor, index: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
        """Mix the rows ``index`` (..., n) by ``weights`` (..., n, n), disturb, align and cut them, (..., n, G)."""
        mixed = (weights @ self.fine[index]).flatten(0, -2)
        fine = disturb(mixed, self.fine_start_ev, FINE_EV, settings, generator)
        spectra = add_noise(self.aligned(fine), self.slope_shape, settings, generator)
        if self.reach is None:
            spectra = self.footing(spectra)
        else:
            spectra = self.cut(spectra, self._ends(weights, self.reach[index], settings, generator).flatten())
        return spectra.reshape(*index.shape, -1)

    def _ends(self, weights: Tensor, reach: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
        """Draw the number of known points (..., n) of mixtures of rows with ``reach`` (..., n) points.

        A mixture is known as far as all its parts are; a fraction of the mixtures ends at a random point before.
        """
        points, short = len(self.grid), self.grid.short_points or len(self.grid)
        shared = torch.where(weights > 0, reach.unsqueeze(-2), points).amin(-1)
        on, where = torch.rand(2, *shared.shape, generator=generator, device=generator.device)
        ends = short + (where * (shared + 1 - short)).long()
        return torch.where(on < settings.cut, ends, shared)


def continued(spectra: Tensor) -> Tensor:
    """Continue spectra (n, G) with their last known values, as :func:`xas_agent.agent.types.continued` does."""
    unknown = spectra.isnan()
    last = (~unknown).sum(1, keepdim=True).sub(1).clamp_min(0)
    return torch.where(unknown, spectra.gather(1, last), spectra)


def prepare(data: FeffData, config: TrainingConfig, classes: list[NDArray[np.int_]] | None = None) -> Rows:
    """Bin the spectra and encode the labels.

    Parameters
    ----------
    classes : classes of every classified descriptor; None for those that occur in ``data``
    """
    if classes is None:
        classes = [np.unique(v[~np.isnan(v)]).astype(int) for v in (data.labels[d] for d in config.classified)]
    one_hot = [
        torch.tensor(data.labels[d][:, None] == c, dtype=torch.float32)
        for d, c in zip(config.classified, classes, strict=True)
    ]
    regressed = np.stack([data.labels[d] for d in config.regressed], axis=1)
    mean, sd = np.nanmean(regressed, axis=0), np.nanstd(regressed, axis=0)
    sd = np.where(sd > 0, sd, 1.0)  # a constant label cannot be standardised
    targets = Targets(
        one_hot,
        torch.tensor((regressed - mean) / sd, dtype=torch.float32),
        classes,
        torch.tensor(mean, dtype=torch.float32),
        torch.tensor(sd, dtype=torch.float32),
    )
    framework = torch.from_numpy(np.unique(data.framework, return_inverse=True)[1])
    grid = config.grid.grid()
    return Rows(fine_bins(data, config), targets, grid, framework, reach=reach_of(data, config))


def reach_of(data: FeffData, config: TrainingConfig) -> Tensor | None:
    """Return the number of grid points (N,) that each row reaches; None if every row must reach all.

    A row that ends before the grid counts up to its end after the largest shift of the augmentation.
    """
    grid = config.grid.grid()
    if grid.short_points is None:
        return None
    last = data.last - config.edge_ev
    last = np.where(last < grid.stop_ev, last - config.augmentation.shift_ev, last)
    points = np.searchsorted(grid.energy, last, side="right")
    return torch.from_numpy(points).clamp(grid.short_points, len(grid))


def fine_bins(data: FeffData, config: TrainingConfig) -> Tensor:
    """Return bin means (N, F) of width ``FINE_EV`` over the model's grid."""
    bounds = config.grid.grid().bounds
    bins = round((bounds[-1] - bounds[0]) / FINE_EV)
    fine = data.on_bins(bounds[0] + FINE_EV * np.arange(bins + 1), config.edge_ev)
    return torch.tensor(fine, dtype=torch.float32)


@dataclass(frozen=True)
class Scale:
    """Centre and spread of every grid point over the training rows."""

    centre: Tensor
    """(G,) means."""
    spread: Tensor
    """(G,) standard deviations, plus a constant."""

    @classmethod
    def of(cls, spectra: Tensor) -> "Scale":
        """Return the scale of spectra (N, G), computed from the known ones at each point."""
        centre = spectra.nanmean(0)
        n = (~spectra.isnan()).sum(0)
        return cls(centre, ((spectra - centre).square().nansum(0) / (n - 1).clamp_min(1)).sqrt() + 0.02)

    def to(self, device: torch.device) -> "Scale":
        """Return a copy on a device."""
        return Scale(self.centre.to(device), self.spread.to(device))

    def apply(self, spectra: Tensor) -> Tensor:
        """Scale aligned spectra (N, G) to the network's input."""
        return (spectra - self.centre) / self.spread
