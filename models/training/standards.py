"""How a measurement differs from FEFF: energy offset and scale, amplitude and broadening, fitted on standards."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import OptimizeResult, least_squares

from ...agent.spectra import Aligned, AlignmentSettings, Batch, align, with_tail
from ...agent.types import Array, Edge, Grid, InputError
from ..card import DomainCard, OffsetCard
from .augment import PAD_EV, damped, shifted

FINE_EV = 0.25
START_OFFSETS_EV = np.arange(-4.0, 13.0, 2.0)
START = (1.0, 0.9, 2.5)  # scale, amplitude, broadening
HELD = 1e-4  # how far a known scale may move: bounds must not meet
LOWEST, HIGHEST = (-8.0, 0.85, 0.4, 0.0), (16.0, 1.15, 1.3, 6.0)
CORRELATED_EV = 10.0
"""Residuals are misfits of broad features and no noise: only every so many eV has one of its own."""
ONE_STANDARD_EV, ONE_STANDARD_SCALE = 1.0, 0.015
"""What offset and scale differ by from compound to compound, which a single standard cannot show: FEFF's edges wander
by a volt more than measured ones, and a bond length that is 0.7 % off scales the energies by 1.5 %."""


class StandardError(InputError):
    """A standard that cannot be used; the message names it, what was found and what was expected."""


@dataclass(frozen=True)
class Standard:
    """A measured spectrum and its FEFF counterpart."""

    name: str
    energy: Array
    """(M,) eV"""
    mu: Array
    """(M,)"""
    reference: Array | None
    """(M,) absorption of the foil at the same time; of a metal its own."""
    feff_energy: Array
    """(K,) eV, FEFF's own scale"""
    feff_mu: Array
    """(K,)"""
    metal: bool = False
    stretch: float = 1.0
    """First-shell bond length of FEFF's structure over the known one: energies of the structure go as its inverse
    square, which is the structure's fault and not the scale's."""


@dataclass(frozen=True)
class StandardFit:
    """One standard's transform, as :class:`~xas_agent.models.card.DomainCard` names it; each with its σ."""

    standard: Standard
    offset_ev: float
    scale: float
    amplitude: float
    broadening_ev: float
    step_ev: float
    """Half height of FEFF's spectrum, from the tabulated edge."""
    sd: tuple[float, float, float, float]
    """Of offset, scale, amplitude and broadening; the offset's includes that of the measured energies."""
    misfit: float
    """RMS difference on the grid, in edge steps."""
    measured: Array
    """(G,) on the grid after the fit."""
    theory: Array
    """(G,)"""


def fit(
    standard: Standard, grid: Grid, edge_ev: float, settings: AlignmentSettings, scale: float | None = None
) -> StandardFit:
    """Least squares between the standard on FEFF's energies and its counterpart, broadened and damped, on the grid.

    Parameters
    ----------
    settings : how measured spectra are normalised
    scale : known already; None: found

    Raises
    ------
    StandardError
        The standard cannot be aligned.
    """
    bounds = grid.bounds[0] - PAD_EV, grid.bounds[-1] + PAD_EV
    energy, mu = with_tail(standard.feff_energy[None] - edge_ev, standard.feff_mu[None], bounds[0])
    fine = np.arange(*bounds, FINE_EV)
    row = torch.tensor(np.interp(fine, energy[0], mu[0]))[None]
    none = torch.zeros(1, 1, dtype=row.dtype)
    foil = None if standard.reference is None else standard.reference[None]
    batch = Batch(standard.energy, standard.mu[None], reference=foil)

    def aligned(offset: float, scale: float) -> Aligned:
        edge = Edge(edge_ev, offset, scale=scale)
        return align(batch, grid, edge, settings)

    def theory_row(amplitude: float, broadening: float) -> Array:
        return damped(shifted(row, FINE_EV, none, none + broadening), FINE_EV, none + amplitude)[0].numpy()

    def theory(amplitude: float, broadening: float) -> Array:
        return grid.footing(np.interp(grid.energy, fine, theory_row(amplitude, broadening))[None])[0]

    def apart(p: Array) -> Array:
        return aligned(p[0], p[1]).mu[0].astype(float) - theory(p[2], p[3])

    stretch = standard.stretch**2
    start, lowest, highest = list(START), list(LOWEST), list(HIGHEST)
    if scale is not None:
        start[0], lowest[1], highest[1] = (scale * stretch * (1 + k * HELD) for k in (0, -1, 1))

    def from_start(offset: float) -> OptimizeResult:
        # The grid's float32 would drown a smaller step of the numeric derivative.
        return least_squares(apart, (offset, *start), bounds=(lowest, highest), diff_step=1e-3)

    best = min((from_start(o) for o in START_OFFSETS_EV), key=lambda found: found.cost)
    misfit = float(np.sqrt(np.mean(best.fun**2)))
    offset, found, amplitude, broadening = (float(p) for p in best.x)
    own = aligned(offset, found)
    if (refusal := own.refused[0]) is not None:
        raise StandardError(f"{standard.name}: {refusal}")
    variance = misfit**2 * CORRELATED_EV / grid.step_ev
    sd = _sd(best.jac, variance)
    sd[0] = np.hypot(sd[0], own.quantities["energy_sd_ev"][0])
    return StandardFit(
        standard,
        offset,
        found / stretch,
        amplitude,
        broadening,
        float(fine[(theory_row(1.0, broadening) >= 0.5).argmax()]),
        (float(sd[0]), float(sd[1]), float(sd[2]), float(sd[3])),
        misfit,
        own.mu[0].astype(float),
        theory(amplitude, broadening),
    )


def _sd(jacobian: Array, variance: float) -> Array:
    """σ of the parameters, from residuals of this variance and from their bounds: one that changes nothing, as a
    broadening of 0 does, is as uncertain as these are wide."""
    information = jacobian.T @ jacobian / max(variance, 1e-300) + np.diag(np.subtract(HIGHEST, LOWEST) ** -2.0)
    return np.sqrt(np.diag(np.linalg.inv(information)))


def calibrate(
    standards: Sequence[Standard],
    grid: Grid,
    edge_ev: float,
    settings: AlignmentSettings,
    metal_gap_ev: float | None = None,
) -> tuple[list[StandardFit], OffsetCard | None, DomainCard]:
    """What the standards of one absorber say together, and each one's fit at the common scale.

    A metal's Fermi edge stands elsewhere against FEFF and its structure is damped otherwise than an oxide's, so a
    metal tells of the scale alone; of the offset too, less ``metal_gap_ev``, where there is nothing else. Amplitude
    and broadening of metals alone stay at the identity.

    Raises
    ------
    ValueError
        There are no standards, or one of them cannot be aligned.
    """
    if not standards:
        raise ValueError("no standards to calibrate on")
    free = [fit(s, grid, edge_ev, settings) for s in standards]
    scale, scale_sd = _mean([f.scale for f in free], [f.sd[1] for f in free], ONE_STANDARD_SCALE)
    fits = [fit(s, grid, edge_ev, settings, scale) for s in standards]
    others = [f for f in fits if not f.standard.metal]
    domain = DomainCard(scale=round(scale, 3), scale_sd=round(scale_sd, 3), source=_told(fits))
    if others:
        amplitude, amplitude_sd = _mean([f.amplitude for f in others], [f.sd[2] for f in others])
        broadening, broadening_sd = _mean([f.broadening_ev for f in others], [f.sd[3] for f in others])
        found = {"amplitude": amplitude, "amplitude_sd": amplitude_sd}
        found |= {"broadening_ev": broadening, "broadening_sd_ev": broadening_sd}
        found["step_ev"] = float(np.mean([f.step_ev for f in others]))
        domain = domain.model_copy(update={k: round(v, 2) for k, v in found.items()})
    elif metal_gap_ev is None:
        return fits, None, domain
    gap = 0.0 if others else metal_gap_ev or 0.0
    told = others or fits
    value, sd = _mean([f.offset_ev - gap for f in told], [f.sd[0] for f in told], ONE_STANDARD_EV)
    less = ""
    if not others:
        less, sd = f", less {gap:g} eV by which a metal stands above its oxides", float(np.hypot(sd, ONE_STANDARD_EV))
    return fits, OffsetCard(value_ev=round(value, 2), sd_ev=round(sd, 2), source=_told(told) + less), domain


def _mean(values: Sequence[float], sd: Sequence[float], alone: float = 0.0) -> tuple[float, float]:
    """Mean by inverse variance, and its σ: the larger of the formal one and that of the scatter; of one, ``alone``
    besides."""
    weight = 1 / np.maximum(np.square(sd), 1e-12)
    mean = float(np.average(values, weights=weight))
    formal = float(weight.sum() ** -0.5)
    if len(values) == 1:
        return mean, float(np.hypot(formal, alone))
    scatter = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, max(formal, scatter)


def _told(fits: Sequence[StandardFit]) -> str:
    return "; ".join(f"{f.standard.name}, misfit {f.misfit:.3f}" for f in fits)
