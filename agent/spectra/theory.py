"""Aligns FEFF rows: puts them on the grid and footing that they share with measured spectra (:mod:`.align`)."""

from collections.abc import Hashable, Sequence

import numpy as np

from ..types import Array, Estimator, Frame, Grid, Reason, Refusal, bin_means
from .align import Aligned, flag_short, put_on_footing
from .background import TERMS
from .e0 import E0_STEP_EV, find_e0
from .noise import estimate_noise

_TAIL_POINTS = 12
_MAX_TAIL_EV = 30.0  # a FEFF row that begins further above the grid's foot lacks its edge
# Limits of the tail's length, value over slope of the first points.
_TAIL_LENGTH_EV = (1.0, 30.0)
_MIN_SLOPE_PER_EV = 1e-6  # avoids a division by 0


class TheoryAlignment:
    """Aligns computed frames, each alone."""

    order_matters = False

    def kind(self, frame: Frame) -> tuple[Hashable, ...]:
        """Return the number of points; frames with equally many are aligned together."""
        return (len(frame.energy),)

    def __call__(self, frames: Sequence[Frame], model: Estimator) -> Aligned:
        """Align frames of one kind, on FEFF's energies."""
        energy, mu = np.stack([f.energy for f in frames]), np.stack([f.mu for f in frames])
        return align_theory(energy, mu, model.grid, model.edge.edge_ev)


def align_theory(energy: Array, mu: Array, grid: Grid, edge_ev: float) -> Aligned:
    """Put FEFF rows onto the grid and its footing.

    No line is fitted, because FEFF has already divided by its atomic background. A tail (:func:`with_tail`) continues
    a row below its first energy. A row is refused if it ends before the grid's ``short_stop_ev``, or, without one,
    more than one grid step before the grid's end, or if it begins after the edge.

    Parameters
    ----------
    energy : (N, M) or (M,) FEFF's energies, eV
    mu : (N, M) absorption, dimensionless
    edge_ev : tabulated edge, eV
    """
    energy, tailed = with_tail(np.broadcast_to(energy - edge_ev, mu.shape), mu, grid.bounds[0])
    on_grid = grid.cut(bin_means(energy, tailed, grid.bounds), energy[:, -1])
    e0 = find_e0(energy, tailed, E0_STEP_EV, (grid.energy[0], grid.anchor_ev[0]))
    zero = np.zeros(len(mu))
    needed_ev = grid.stop_ev - grid.step_ev if grid.short_stop_ev is None else grid.short_stop_ev
    begin_above_foot = energy[:, _TAIL_POINTS] - grid.foot_ev[1]
    refused: list[Refusal | None] = [None] * len(mu)
    for i in np.flatnonzero((energy[:, -1] < needed_ev) | (begin_above_foot > _MAX_TAIL_EV)):
        covered = f"{energy[i, _TAIL_POINTS] + edge_ev:.1f}…{energy[i, -1] + edge_ev:.1f} eV"
        needed = f"{grid.foot_ev[1] + _MAX_TAIL_EV + edge_ev:.1f}…{needed_ev + edge_ev:.1f} eV"
        refused[i] = Refusal(Reason.DOES_NOT_COVER_THE_GRID, f"computed {covered}, needed at least {needed}")
    quantities = {
        "e0_ev": e0 + edge_ev,
        "edge_step": np.ones(len(mu)),
        "noise": estimate_noise(energy[:, _TAIL_POINTS:], mu),
        "energy_shift_ev": zero,
        "foil_shift_ev": zero,
        "energy_sd_ev": zero,
        "energy_sd_frame_ev": zero,
        "pre_edge_slope": zero,
        "post_edge_order": zero,
        "extrapolated_ev": np.maximum(grid.filled_to_ev - energy[:, -1], 0.0),
        "glitches": zero,
    }
    aligned, refusals = put_on_footing(grid, on_grid, refused)
    flags, background = flag_short(aligned, refusals), np.full((len(mu), TERMS), np.nan)
    return Aligned(aligned, quantities, refusals, flags, background, np.zeros(len(mu), bool))


def with_tail(energy: Array, mu: Array, start_ev: float) -> tuple[Array, Array]:
    """Continue FEFF rows below their first energy by the tail of a Lorentzian edge.

    The finite lifetime of the core hole makes μ ∝ 1/(E₁ − E) below an edge. The tail is therefore
    ``μ₀ D / (D + E₀ − E)``, where E₀ is the row's first energy and D = μ₀/μ₀′ follows from its first points, so that
    value and slope are continuous.

    Parameters
    ----------
    energy : (N, M) energies, eV
    mu : (N, M) absorption, dimensionless
    start_ev : first energy of the tail, on the same scale as ``energy``

    Returns
    -------
    energy, mu : (N, 12 + M)
    """
    first = energy[:, :1]
    rise = (mu[:, 3:4] - mu[:, :1]) / (energy[:, 3:4] - first)
    length = np.clip(mu[:, :1] / np.maximum(rise, _MIN_SLOPE_PER_EV), *_TAIL_LENGTH_EV)
    span = np.maximum(first - start_ev, 1.0) + 1.0
    tail = first - span * np.linspace(1.0, 0.0, _TAIL_POINTS, endpoint=False)
    level = mu[:, :1] * length / (length + first - tail)
    return np.concatenate([tail, energy], axis=1), np.concatenate([level, mu], axis=1)
