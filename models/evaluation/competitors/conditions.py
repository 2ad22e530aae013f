"""Disturbances of a beamline in fixed amounts, for curves of robustness."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...training import FINE_EV, TrainingPlan, shifted
from ..contract import Spectra

Kind = Literal["clean", "noise", "offset", "broadening", "slope", "glitch", "sampling", "end"]


@dataclass(frozen=True)
class Condition:
    """A disturbance and its amount."""

    kind: Kind
    amount: float = 0.0
    """Noise and glitch: relative to the edge step. Offset, broadening (Gaussian σ) and sampling: eV. Slope: change of
    the normalised μ over the grid above the edge. End: last known energy, eV from the tabulated edge."""

    @property
    def name(self) -> str:
        """Name of the condition in file names and tables."""
        return "clean" if self.kind == "clean" else f"{self.kind} {self.amount:g}"


CLEAN = Condition("clean")
NOISE = tuple(Condition("noise", a) for a in (0.005, 0.01, 0.02, 0.03, 0.05))
"""The range of the paper (section 4.4): 0 to 5 % of the edge step."""
DISTURBANCES = (
    *(Condition("offset", a) for a in (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0)),
    *(Condition("broadening", a) for a in (0.5, 1.0, 2.0, 3.0)),
    *(Condition("slope", a) for a in (-0.1, -0.05, 0.05, 0.1)),
    *(Condition("glitch", a) for a in (0.05, 0.1, 0.2)),
    *(Condition("sampling", a) for a in (2.0, 3.0, 5.0)),
)
CONDITIONS = (CLEAN, *NOISE, *DISTURBANCES)
AXES: dict[str, str] = {
    "noise": "σ of noise / edge step",
    "offset": "energy offset / eV",
    "broadening": "Gaussian σ / eV",
    "slope": "slope left above the edge",
    "glitch": "one-point glitch / edge step",
    "sampling": "energy step / eV",
}


def disturbed(plan: TrainingPlan, index: NDArray[np.int_], condition: Condition, seed: int = 0) -> Spectra:
    """Disturb the rows ``index`` and align them again, (n, G); the same seed gives the same spectra.

    Spectra are NaN beyond the end of their row or of the condition.
    """
    generator = torch.Generator().manual_seed(seed)
    fine = plan.rows.fine[torch.as_tensor(index)]
    n, amount = len(fine), condition.amount
    if condition.kind in ("offset", "broadening"):
        shift = torch.full((n, 1), amount if condition.kind == "offset" else 0.0)
        sigma = torch.full((n, 1), amount if condition.kind == "broadening" else 0.0)
        fine = shifted(fine, FINE_EV, shift, sigma)
    elif condition.kind == "sampling":
        fine = resampled(fine, max(1, round(amount / FINE_EV)))
    aligned = plan.rows.aligned(fine)
    if condition.kind == "noise":
        aligned = plan.rows.footing(aligned + amount * torch.randn(aligned.shape, generator=generator))
    elif condition.kind == "slope":
        aligned = plan.rows.footing(aligned * (1 + amount * plan.rows.slope_shape))
    elif condition.kind == "glitch":
        point = torch.randint(aligned.shape[1], (n,), generator=generator)
        sign = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
        aligned = aligned.clone()
        aligned[torch.arange(n), point] += amount * sign
    if plan.rows.reach is not None:
        reach = plan.rows.reach[torch.as_tensor(index)]
        if condition.kind == "end":
            reach = reach.clamp(max=int(plan.rows.grid.points_to(amount)))
        aligned = plan.rows.cut(aligned, reach)
    return aligned.float().numpy()


def resampled(fine: Tensor, every: int) -> Tensor:
    """Sample spectra (n, F) at every ``every``-th point and interpolate linearly between them."""
    points = fine.shape[1]
    sampled = np.arange(0, points, every)
    if sampled[-1] != points - 1:
        sampled = np.append(sampled, points - 1)
    rows = [np.interp(np.arange(points), sampled, row[sampled]) for row in fine.numpy()]
    return torch.tensor(np.array(rows), dtype=torch.float32)
