"""Training rows on a model's grid, with their labels."""

from dataclasses import dataclass, field

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
    """Per classified descriptor (N, classes); a row of zeros where the label is missing."""
    regressed: Tensor
    """(N, R) standardised; NaN where missing."""
    classes: list[NDArray[np.int_]]
    """Per classified descriptor."""
    mean: Tensor
    """(R,) by which the regressed quantities are standardised."""
    sd: Tensor
    """(R,) as ``mean``."""


@dataclass
class Rows:
    """Spectra and labels of N rows, before disturbances."""

    fine: Tensor
    """(N, F) bin means on FINE_EV."""
    targets: Targets
    grid: Grid
    framework: Tensor
    """(N,) number of each row's framework (:class:`~xas_agent.models.training.data.FeffData`)."""
    slope_shape: Tensor = field(init=False)
    """(G,) a post-edge slope: 0 up to 10 eV above the edge, 1 at the end of the grid."""

    def __post_init__(self) -> None:
        above = (self.grid.energy - 10.0) / (self.grid.stop_ev - 10.0)
        self.slope_shape = torch.tensor(above.clip(0, 1), dtype=torch.float32)
        self._foot, self._anchor = self.grid.window(self.grid.foot_ev), self.grid.window(self.grid.anchor_ev)

    @property
    def fine_start_ev(self) -> float:
        """Centre of the first fine bin, relative to the tabulated edge."""
        return float(self.grid.bounds[0]) + FINE_EV / 2

    def aligned(self, fine: Tensor) -> Tensor:
        """Average fine spectra (n, F) over the grid's bins and put them on the footing, (n, G)."""
        coarse = fine.reshape(len(fine), len(self.grid), -1).mean(2)
        return self.footing(coarse)

    def footing(self, coarse: Tensor) -> Tensor:
        """Put spectra (n, G) on the footing, as :meth:`Grid.footing`."""
        foot = coarse[:, self._foot].mean(1, keepdim=True)
        return (coarse - foot) / (coarse[:, self._anchor].mean(1, keepdim=True) - foot)

    def mixtures(self, index: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
        """Draw weights (n, n) of :func:`~xas_agent.models.training.augment.mixtures` among the rows ``index``."""
        group = self.framework[index] if settings.within_framework else None
        return mixtures(len(index), len(index), settings, generator, group)

    def disturbed(self, weights: Tensor, index: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
        """Mix the rows ``index`` by ``weights`` (n, n), disturb and align them, (n, G)."""
        fine = disturb(weights @ self.fine[index], self.fine_start_ev, FINE_EV, settings, generator)
        return self.footing(add_noise(self.aligned(fine), self.slope_shape, settings, generator))


def prepare(data: FeffData, config: TrainingConfig, classes: list[NDArray[np.int_]] | None = None) -> Rows:
    """Bin the spectra and encode the labels.

    Parameters
    ----------
    classes : of every classified descriptor; None for those that occur in ``data``
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
    return Rows(fine_bins(data, config), targets, config.grid.grid(), framework)


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

    def apply(self, spectra: Tensor) -> Tensor:
        """Scale aligned spectra (N, G) to the network's input."""
        return (spectra - self.centre) / self.spread
