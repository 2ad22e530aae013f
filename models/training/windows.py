"""The ends of spectra for which intervals are calibrated and judged."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .plan import TrainingPlan

WINDOWS_EV = (25.0, 40.0, 80.0)
"""Ends of measured XANES, eV above the half height of the edge, in addition to those that the grid states."""
MIN_ROWS = 20
"""Number of labelled rows below which a window calibrates or judges no interval."""


def half_edge_ev(clean: Tensor, grid_ev: NDArray[np.float64]) -> float:
    """Return the median energy at which aligned spectra (N, G) reach 0.5, eV from the tabulated edge."""
    return float(np.median(grid_ev[(clean.nan_to_num() >= 0.5).int().argmax(1).numpy()]))


def window_points(plan: TrainingPlan) -> tuple[int, ...]:
    """Return the numbers of points of the windows, rising; empty if every spectrum is known on the whole grid.

    The first window is the shortest that the grid allows, and the last is the grid. Others end with the window of the
    level 1, and where half of the rows end.
    """
    grid, reach = plan.rows.grid, plan.rows.reach
    if grid.short_points is None or grid.short_stop_ev is None or reach is None:
        return ()
    edge = half_edge_ev(plan.clean[plan.learnt], grid.energy)
    ends = [grid.short_stop_ev, grid.anchor_ev[1], *(edge + w for w in WINDOWS_EV), grid.stop_ev]
    points = [*grid.points_to(np.array(ends)), reach[plan.learnt].median()]
    return tuple(sorted({int(n) for n in points if n >= grid.short_points}))


def cut_rows(plan: TrainingPlan, index: NDArray[np.int_], points: int) -> tuple[NDArray[np.int_], Tensor]:
    """Return those of the rows ``index`` that have ``points`` points, (n,), and their spectra cut there, (n, G)."""
    reach = plan.rows.reach
    rows = index if reach is None else index[reach.numpy()[index] >= points]
    return rows, plan.rows.cut(plan.clean[rows], points)
