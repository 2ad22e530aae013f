"""FEFF rows that judge a model: held-out rows of its own element, and rows of other elements moved to its edge."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ....agent.types import InputError
from ...training import FINE_EV, FeffData, TrainingConfig, TrainingPlan, load_sets, reach_of
from ..contract import Spectra

_TAIL_COMPONENTS = 24


@dataclass(frozen=True)
class ElementRows:
    """All FEFF rows of one absorber, from any split."""

    absorber: str
    edge_ev: float
    """Tabulated energy of the edge, eV."""
    data: FeffData

    @classmethod
    def read(cls, config: TrainingConfig, folder: Path) -> "ElementRows":
        """Read the rows of a training config's data set, with the labels that it trains on.

        Parameters
        ----------
        folder : folder of the FEFF rows (:mod:`xas_agent.models.training.data`)
        """
        return cls(config.absorber, config.edge_ev, load_sets(folder, config.datasets, config.labels))

    def at(self, edge_ev: float, mask: NDArray[np.bool_]) -> FeffData:
        """Return the rows that ``mask`` selects, their energies moved to the edge at ``edge_ev``."""
        rows = self.data.rows(mask)
        return replace(rows, energy=rows.energy - self.edge_ev + edge_ev)


def held_out_rows(
    plan: TrainingPlan, elements: Iterable[ElementRows], most: int
) -> tuple[TrainingPlan, NDArray[np.int_], str]:
    """Return rows that neither trained nor calibrated the model.

    Parameters
    ----------
    elements : data sets, the model's own included
    most : largest number of rows, chosen at equal distances

    Returns
    -------
    A plan, (n,) indices of its rows, and a description for the report.

    Raises
    ------
    InputError
        The data set has rows neither of split ``val`` nor of split ``sim``.
    """
    if len(plan.judged):
        return plan, subsample(plan.judged, most), "validation rows, of materials that the model has not seen"
    element = next(e for e in elements if e.absorber == plan.config.absorber)
    data = element.at(element.edge_ev, element.data.split == "sim")
    if not len(data):
        raise InputError(f"{data.name}: no rows of split val or sim to judge by; give some materials the split val")
    description = "rows of split `sim`, other Li orderings of compositions that the model has seen: not new materials"
    return _replace_rows(plan, data), subsample(np.arange(len(data)), most), description


def subsample(index: NDArray[np.int_], most: int) -> NDArray[np.int_]:
    """Return at most ``most`` of the indices, at equal distances."""
    return index if len(index) <= most else index[np.linspace(0, len(index) - 1, most).astype(int)]


def move_to_edge(plan: TrainingPlan, element: ElementRows, mask: NDArray[np.bool_]) -> tuple[FeffData, Spectra]:
    """Move the rows of another element that ``mask`` selects to the plan's edge.

    Rows that end before the grid are NaN beyond their end, if the grid allows it. Otherwise they are continued by a
    least-squares fit of the training spectra's principal components, so that the missing range does not distinguish
    them from the training spectra.

    Returns
    -------
    The moved rows, and their aligned spectra (n, G).
    """
    config = plan.config
    data = element.at(config.edge_ev, mask)
    grid = plan.rows.grid
    aligned, reach = plan.rows.aligned(_fine_bins(plan, data)), reach_of(data, config)
    if reach is not None:
        return data, plan.rows.cut(aligned, reach).numpy()
    spectra = aligned.numpy()
    known = grid.bounds[1:] <= data.energy[:, -1].min() - config.edge_ev
    if not known.all():
        training = plan.clean[plan.learnt].numpy().astype(float)
        centre = training.mean(0)
        deviations = training - centre
        axes = np.linalg.svd(deviations[:, known], full_matrices=False)[2][:_TAIL_COMPONENTS].T
        tail = np.linalg.lstsq(deviations[:, known] @ axes, deviations[:, ~known], rcond=None)[0]
        spectra[:, ~known] = (spectra[:, known] - centre[known]) @ axes @ tail + centre[~known]
    return data, spectra.astype(np.float32)


def _replace_rows(plan: TrainingPlan, data: FeffData) -> TrainingPlan:
    """Return the plan with other rows, to be disturbed like its own; its training fields do not apply to them."""
    rows = replace(plan.rows, fine=_fine_bins(plan, data), reach=reach_of(data, plan.config))
    return replace(plan, data=data, rows=rows, clean=rows.clean())


def _fine_bins(plan: TrainingPlan, data: FeffData) -> Tensor:
    """Return bin means (n, F) of rows at the plan's edge, like the plan's own before alignment."""
    bounds = plan.rows.grid.bounds[0] + FINE_EV * np.arange(plan.rows.fine.shape[1] + 1)
    return torch.tensor(data.on_bins(bounds, plan.config.edge_ev), dtype=torch.float32)
