"""A layered series LixMO2 in the data set of a target, and its spectra under two conditions."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ....agent.types import Array
from ...training import FINE_EV, FeffData, TrainingConfig, TrainingPlan, load_sets, shifted
from .fine_tuning import cross_validated

AS_COMPUTED, AS_MEASURED = "as computed", "as measured"
MEAN_BROADENING_EV = 1.5
"""Mean σ of the broadening of measured spectra, eV."""


@dataclass(frozen=True)
class LayeredSeries:
    """The rows of a target, and those of its layered series."""

    plan: TrainingPlan
    """Rows of ``train`` and ``val``."""
    unseen: FeffData
    """Layered rows that are never trained on (split ``sim``: another ordering of Li)."""
    unseen_fine: Tensor
    """(n, F) spectra of ``unseen``, as in :attr:`Rows.fine <xas_agent.models.training.rows.Rows>`."""
    formula: NDArray[np.str_]
    """(N,) formulas of the plan's rows."""
    layered: NDArray[np.int_]
    """Indices of the layered rows in the plan."""

    @property
    def compositions(self) -> Array:
        """Distinct mean oxidation states, 4 − x, of the rows that have one."""
        states = self.plan.data.labels["OS_mean"][self.layered]
        return np.unique(states[~np.isnan(states)])

    def held(self, composition: float) -> NDArray[np.int_]:
        """Return the layered rows of a composition."""
        return self.layered[self.plan.data.labels["OS_mean"][self.layered] == composition]

    def learnt(self, composition: float) -> NDArray[np.int_]:
        """Return the rows of all other formulas, of any structure."""
        return np.flatnonzero(~np.isin(self.formula, self.formula[self.held(composition)]))

    def judged(self, composition: float) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
        """Return the rows of a composition in the plan and in ``unseen``."""
        return self.held(composition), np.flatnonzero(self.unseen.labels["OS_mean"] == composition)


def read_series(config: TrainingConfig, pretrained: str, data: Path) -> LayeredSeries:
    """Read the layered series of a target.

    Parameters
    ----------
    pretrained : name or folder of the model that fine-tuning starts from
    data : folder of the FEFF rows
    """
    plan = TrainingPlan.read(cross_validated(config, pretrained), data)
    loaded = load_sets(data, config.datasets, config.labels)
    unseen = loaded.rows((loaded.split == "sim") & (loaded.kind == "layered"))
    grid = plan.config.grid.grid()
    fine_bounds = grid.bounds[0] + FINE_EV * np.arange(plan.rows.fine.shape[1] + 1)
    fine = unseen.on_bins(fine_bounds, config.edge_ev) if len(unseen) else np.empty((0, plan.rows.fine.shape[1]))
    formula: dict[str, str] = {}
    for name in config.datasets:
        with (data / f"{name}.csv").open(newline="", encoding="utf-8-sig") as f:
            formula |= {r["id"]: r["formula"] for r in csv.DictReader(f)}
    return LayeredSeries(
        plan,
        unseen,
        torch.tensor(fine, dtype=torch.float32),
        np.array([formula[i] for i in plan.data.ids.tolist()]),
        np.flatnonzero(plan.data.kind == "layered"),
    )


def stacking(id: str) -> str:
    """Return the stacking in the id of a layered row, O3, O1 or H1-3, or JT if it is Jahn–Teller distorted."""
    found = re.search(r"_(O3|O1|H13|JT)", id)
    return found[1].replace("H13", "H1-3") if found else "other"


def spectra_of(series: LayeredSeries, composition: float, draws: int, seed: int) -> dict[str, Tensor]:
    """Return the aligned spectra of a composition by condition, (n, G) as computed and (draws · n, G) as measured.

    Measured spectra have a Gaussian broadening of 1–2 eV and an energy error of ± 0.3 eV, like the copies on which
    PLS is trained, and noise of 0.5 % of the edge step."""
    held, unseen = (torch.as_tensor(i) for i in series.judged(composition))
    rows = series.plan.rows
    fine = torch.cat([rows.fine[held], series.unseen_fine[unseen]])
    generator = torch.Generator().manual_seed(seed)
    copies = fine.repeat(draws, 1)
    shift, sigma = (torch.rand(len(copies), 1, generator=generator) for _ in range(2))
    measured = rows.aligned(shifted(copies, FINE_EV, 0.3 * (2 * shift - 1), MEAN_BROADENING_EV - 0.5 + sigma))
    noisy = measured + 0.005 * torch.randn(measured.shape, generator=generator)
    return {AS_COMPUTED: rows.aligned(fine), AS_MEASURED: rows.footing(noisy)}
