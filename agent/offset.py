"""Where FEFF's energy scale stands against the experiment's, found from a measured standard."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from .alignment import AlignmentSettings, Edge, align
from .grid import Array, Grid
from .theory import with_tail

OFFSETS_EV = np.arange(-6.0, 15.01, 0.1)
BROADENINGS_EV = np.arange(0.0, 4.51, 0.5)
AS_GOOD = 1.1
"""Offsets whose misfit is within this factor of the best count as fitting too; their range is the uncertainty."""
FINE_EV = 0.25


@dataclass(frozen=True, slots=True)
class Offset:
    """FEFF − experiment of one standard."""

    value_ev: float
    sd_ev: float
    """Half the range of offsets that fit nearly as well."""
    broadening_ev: float
    """σ of the Gaussian that FEFF's spectrum needs beside it."""
    misfit: float
    """RMS difference on the grid, in units of the normalised absorption."""


def find_offset(
    energy: Array,
    mu: Array,
    reference: Array | None,
    feff_energy: Array,
    feff_mu: Array,
    grid: Grid,
    edge_ev: float,
    settings: AlignmentSettings,
) -> Offset:
    """Move a measured standard over its FEFF counterpart, broadened as it needs, and keep the best fit.

    Parameters
    ----------
    energy, mu, reference : (M,) the measured standard, its energies calibrated on the foil where there is one
    feff_energy, feff_mu : (K,) the FEFF row, on its own energies
    """
    tail_energy, tail_mu = with_tail(feff_energy[None] - edge_ev, feff_mu[None], grid.bounds[0] - 20)
    fine = np.arange(grid.bounds[0] - 10, grid.bounds[-1] + 10, FINE_EV)
    theory = np.interp(fine, tail_energy[0], tail_mu[0])
    broadened = [gaussian_filter1d(theory, s / FINE_EV) if s else theory for s in BROADENINGS_EV]
    wanted = np.stack([grid.footing(np.interp(grid.energy, fine, b)) for b in broadened])
    foil = None if reference is None else reference[None]
    measured = np.concatenate(
        [align(energy, mu[None], grid, Edge(edge_ev, s), settings, reference=foil).mu for s in OFFSETS_EV]
    )
    misfit = np.sqrt(((measured[:, None] - wanted[None]) ** 2).mean(-1))
    best, how = np.unravel_index(misfit.argmin(), misfit.shape)
    fits = OFFSETS_EV[misfit.min(axis=1) <= AS_GOOD * misfit.min()]
    return Offset(
        round(float(OFFSETS_EV[best]), 2),
        round(float(np.ptp(fits)) / 2, 2),
        float(BROADENINGS_EV[how]),
        round(float(misfit.min()), 4),
    )
