"""FEFF rows → the grid of a model, on the footing that they share with measured spectra (:mod:`.alignment`)."""

from collections.abc import Hashable, Sequence

import numpy as np

from ..types import Array, Estimator, Frame, Grid, Reason, Refusal, bin_means
from .align import Aligned, footed
from .background import TERMS
from .e0 import E0_STEP_EV, find_e0
from .noise import noise_of

TAIL_POINTS = 12
MAX_TAIL_EV = 30.0  # a FEFF row that begins this far above the grid's foot has lost its edge


class TheoryAlignment:
    """Aligns computed frames, which know no series."""

    in_time = False

    def kind(self, frame: Frame) -> tuple[Hashable, ...]:
        """The number of points."""
        return (len(frame.energy),)

    def __call__(self, frames: Sequence[Frame], model: Estimator) -> Aligned:
        """Align frames of one kind, on FEFF's energies."""
        energy, mu = np.stack([f.energy for f in frames]), np.stack([f.mu for f in frames])
        return align_theory(energy, mu, model.grid, model.edge.edge_ev)


def align_theory(energy: Array, mu: Array, grid: Grid, edge_ev: float) -> Aligned:
    """Put FEFF rows (N, M), on FEFF's own energies (N, M) or (M,) eV, onto the grid and its footing.

    No line is fitted: FEFF has already divided by its atomic background. Below its first energy a row goes on
    as its tail (:func:`with_tail`). A row that ends more than one grid step before the grid is refused.
    """
    energy, tailed = with_tail(np.broadcast_to(energy - edge_ev, mu.shape), mu, grid.bounds[0])
    on_grid = bin_means(energy, tailed, grid.bounds)
    e0 = find_e0(energy, tailed, E0_STEP_EV, (grid.energy[0], grid.anchor_ev[0]))
    zero = np.zeros(len(mu))
    short = np.maximum(grid.energy[-1] - energy[:, -1], 0.0)
    late = energy[:, TAIL_POINTS] - grid.foot_ev[1]
    refused: list[Refusal | None] = [None] * len(mu)
    for i in np.flatnonzero((short > grid.step_ev) | (late > MAX_TAIL_EV)):
        covered = f"{energy[i, TAIL_POINTS] + edge_ev:.1f}…{energy[i, -1] + edge_ev:.1f} eV"
        needed = f"{grid.foot_ev[1] + MAX_TAIL_EV + edge_ev:.1f}…{grid.energy[-1] + edge_ev:.1f} eV"
        refused[i] = Refusal(Reason.DOES_NOT_COVER_THE_GRID, f"computed {covered}, needed at least {needed}")
    quantities = {
        "e0_ev": e0 + edge_ev,
        "edge_step": np.ones(len(mu)),
        "noise": noise_of(energy[:, TAIL_POINTS:], mu),
        "energy_shift_ev": zero,
        "foil_shift_ev": zero,
        "energy_sd_ev": zero,
        "pre_edge_slope": zero,
        "post_edge_order": zero,
        "extrapolated_ev": short,
        "glitches": zero,
    }
    aligned, why = footed(grid, on_grid, refused)
    return Aligned(
        aligned, quantities, why, ((),) * len(mu), np.full((len(mu), TERMS), np.nan), np.zeros(len(mu), bool)
    )


def with_tail(energy: Array, mu: Array, start_ev: float) -> tuple[Array, Array]:
    """Continue FEFF rows below their first energy as the tail of a Lorentzian edge.

    A core level of finite lifetime leaves μ ∝ 1/(E₁ − E) below its edge, so each row goes on as
    ``μ₀ D / (D + E₀ − E)`` with D = μ₀/μ₀′ from its own first points: value and slope are continuous.

    Parameters
    ----------
    energy, mu : (N, M) eV and dimensionless
    start_ev : where the tail begins, on the same scale as ``energy``

    Returns
    -------
    energy, mu : (N, TAIL_POINTS + M)
    """
    first = energy[:, :1]
    rise = (mu[:, 3:4] - mu[:, :1]) / (energy[:, 3:4] - first)
    reach = np.clip(mu[:, :1] / np.maximum(rise, 1e-6), 1.0, 30.0)
    span = np.maximum(first - start_ev, 1.0) + 1.0
    tail = first - span * np.linspace(1.0, 0.0, TAIL_POINTS, endpoint=False)
    level = mu[:, :1] * reach / (reach + first - tail)
    return np.concatenate([tail, energy], axis=1), np.concatenate([level, mu], axis=1)
