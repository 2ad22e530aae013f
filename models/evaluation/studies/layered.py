"""A layered series LixMO2 among the rows of a target, and its spectra as they are judged."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ....agent.types import Array
from ...training import FINE_EV, FeffData, TrainingConfig, TrainingPlan, load_feff, shifted
from .transfer import judged_by_folds

CLEAN, MEASURED = "as computed", "as measured"
MEASURED_EV = 1.5
"""Mean σ of a beamline's broadening."""


@dataclass(frozen=True)
class LayeredSeries:
    """The rows of a target, and which of them the series is."""

    plan: TrainingPlan
    """Of ``train`` and ``val``."""
    apart: FeffData
    """Layered rows that are never trained on (split ``sim``: another ordering of Li)."""
    apart_fine: Tensor
    """(n, F) their spectra, as :attr:`Rows.fine <xas_agent.models.training.rows.Rows>`."""
    formula: NDArray[np.str_]
    """(N,) of the plan's rows."""
    layered: NDArray[np.int_]
    """The plan's rows of the series."""

    @property
    def compositions(self) -> Array:
        """Distinct mean oxidation states, 4 − x."""
        return np.unique(self.plan.data.labels["OS_mean"][self.layered])

    def held(self, composition: float) -> NDArray[np.int_]:
        """Layered rows of a composition."""
        return self.layered[self.plan.data.labels["OS_mean"][self.layered] == composition]

    def learnt(self, composition: float) -> NDArray[np.int_]:
        """Rows of any other formula, in whichever structure."""
        return np.flatnonzero(~np.isin(self.formula, self.formula[self.held(composition)]))

    def judged(self, composition: float) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
        """Rows held out, of the plan's and of those kept apart."""
        return self.held(composition), np.flatnonzero(self.apart.labels["OS_mean"] == composition)


def read_series(config: TrainingConfig, pretrained: str, data: Path) -> LayeredSeries:
    """The layered series of a target."""
    plan = TrainingPlan.read(judged_by_folds(config, pretrained), data)
    loaded = load_feff(data, config.dataset, config.classified + tuple(d for d in config.regressed if d != "OS_mean"))
    apart = loaded.rows((loaded.split == "sim") & (loaded.kind == "layered"))
    grid = plan.config.grid.grid()
    fine_bounds = grid.bounds[0] + FINE_EV * np.arange(plan.rows.fine.shape[1] + 1)
    fine = apart.on_bins(fine_bounds, config.edge_ev) if len(apart) else np.empty((0, plan.rows.fine.shape[1]))
    with (data / f"{config.dataset}.csv").open(newline="", encoding="utf-8-sig") as f:
        formula = {r["id"]: r["formula"] for r in csv.DictReader(f)}
    return LayeredSeries(
        plan,
        apart,
        torch.tensor(fine, dtype=torch.float32),
        np.array([formula[i] for i in plan.data.ids.tolist()]),
        np.flatnonzero(plan.data.kind == "layered"),
    )


def stacking(id: str) -> str:
    """O3, O1 or H1-3 by the name of a layered row; JT where it is Jahn–Teller distorted."""
    found = re.search(r"_(O3|O1|H13|JT)", id)
    return found[1].replace("H13", "H1-3") if found else "other"


def spectra_of(series: LayeredSeries, composition: float, draws: int, seed: int) -> dict[str, Tensor]:
    """Aligned spectra to be judged by condition: (n, G) as computed, (draws · n, G) as a beamline would have them.

    A beamline's: Gaussian broadening of 1–2 eV and an energy error of ± 0.3 eV, as the copies that PLS learns
    from, and noise of 0.5 % of the edge step.
    """
    held, apart = (torch.as_tensor(i) for i in series.judged(composition))
    rows = series.plan.rows
    fine = torch.cat([rows.fine[held], series.apart_fine[apart]])
    generator = torch.Generator().manual_seed(seed)
    many = fine.repeat(draws, 1)
    shift, sigma = (torch.rand(len(many), 1, generator=generator) for _ in range(2))
    measured = rows.aligned(shifted(many, FINE_EV, 0.3 * (2 * shift - 1), MEASURED_EV - 0.5 + sigma))
    noisy = measured + 0.005 * torch.randn(measured.shape, generator=generator)
    return {CLEAN: rows.aligned(fine), MEASURED: rows.footing(noisy)}
