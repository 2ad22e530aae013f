"""Differences between measurement and FEFF (energy offset and scale, amplitude, broadening), fitted on standards."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from scipy.optimize import OptimizeResult, least_squares

from ...agent.spectra import Aligned, AlignmentSettings, Batch, align, with_tail
from ...agent.types import Array, Edge, Grid, InputError, continued
from ..card import DomainCard, OffsetCard
from .augment import PAD_EV, damped, shifted

_STEP_EV = 0.25  # step of FEFF's spectrum while it is broadened and damped
_START_OFFSETS_EV = np.arange(-4.0, 13.0, 2.0)
_START_SCALE_AMPLITUDE_BROADENING_EV = (1.0, 0.9, 2.5)
_KNOWN_SCALE_TOLERANCE = 1e-4  # relative; the bounds of a known scale must not be equal
_LOWER_BOUNDS, _UPPER_BOUNDS = (-8.0, 0.85, 0.4, 0.0), (16.0, 1.15, 1.3, 6.0)
"""Bounds of offset (eV), scale, amplitude and broadening (eV)."""
_UNKNOWN_BEYOND_EV = 3.0
"""Distance by which broadening moves the unknown range beyond the end of a FEFF row into the row, eV."""
_RESIDUAL_CORRELATION_EV = 10.0
"""Distance at which residuals are independent, eV: they are misfits of broad features, not noise."""
_OFFSET_SCATTER_EV, _SCALE_SCATTER = 0.9, 0.015
"""Scatter of offset (eV) and scale among compounds of one element. The offsets of 22 oxides of Ti, V, Cr, Mn, Fe and
Ni scatter by 0.9 eV about the means of their elements, and so will the next compound, however well the mean is known.
A bond length that is wrong by 0.7 % changes the scale by 1.5 %, which a single standard does not reveal."""
_GAP_SCATTER_EV = 1.1
"""Scatter of a metal's offset minus that of its oxides, eV, among Ti, V, Cr, Fe and Ni."""


class StandardError(InputError):
    """A standard is unusable; the message states its name, what was found and what was expected."""


@dataclass(frozen=True)
class Standard:
    """A measured spectrum and its FEFF counterpart."""

    name: str
    energy: Array
    """(M,) energies, eV."""
    mu: Array
    """(M,) absorption."""
    reference: Array | None
    """(M,) absorption of the foil measured at the same time; for a metal foil, its own."""
    feff_energy: Array
    """(K,) energies on FEFF's scale, eV."""
    feff_mu: Array
    """(K,) FEFF's absorption."""
    metal: bool = False
    """Whether the standard is the metal itself."""
    stretch: float = 1.0
    """Ratio of the first-shell bond length in FEFF's structure to the known one. Energies of the fine structure are
    proportional to its inverse square; this error of the structure is removed from the scale."""


def mean_of_sites(sites: Sequence[tuple[float, Array, Array]]) -> tuple[Array, Array]:
    """Average the FEFF rows of the sites of one compound.

    Parameters
    ----------
    sites : weight, energies (K,), eV, and absorption (K,) of each site

    Returns
    -------
    energy, mu : (L,) each, for the range that all rows cover
    """
    first, last = min(energy[0] for _, energy, _ in sites), min(energy[-1] for _, energy, _ in sites)
    common = np.unique(np.concatenate([energy for _, energy, _ in sites]))
    common = common[common <= last]
    rows = [np.interp(common, *(a[0] for a in with_tail(e[None], mu[None], first))) for _, e, mu in sites]
    return common, np.average(rows, axis=0, weights=[weight for weight, *_ in sites])


@dataclass(frozen=True)
class StandardFit:
    """Parameters of one standard (see :class:`~xas_agent.models.card.DomainCard`) and their σ."""

    standard: Standard
    offset_ev: float
    scale: float
    amplitude: float
    broadening_ev: float
    step_ev: float
    """Energy at half height of FEFF's spectrum, eV from the tabulated edge."""
    sd: tuple[float, float, float, float]
    """σ of offset, scale, amplitude and broadening; that of the offset includes the σ of the measured energies."""
    misfit: float
    """RMS difference on the grid, in edge steps."""
    energy: Array
    """(K,) energies of the grid in the range of both spectra, eV from the tabulated edge."""
    measured: Array
    """(K,) measured spectrum on the grid after the fit."""
    theory: Array
    """(K,) FEFF's spectrum, damped and broadened."""


class _Comparison:
    """A standard and its FEFF spectrum on the same grid, at any parameters."""

    def __init__(self, standard: Standard, grid: Grid, edge_ev: float, settings: AlignmentSettings) -> None:
        self.grid, self.edge_ev, self.settings = grid, edge_ev, settings
        foil = None if standard.reference is None else standard.reference[None]
        self.batch = Batch(standard.energy, standard.mu[None], reference=foil)
        bounds = grid.bounds[0] - PAD_EV, grid.bounds[-1] + PAD_EV
        energy, mu = with_tail(standard.feff_energy[None] - edge_ev, standard.feff_mu[None], bounds[0])
        self.fine = np.arange(*bounds, _STEP_EV)
        self.row = torch.tensor(np.interp(self.fine, energy[0], mu[0]))[None]
        # A numerical derivative changes one parameter at a time, so that one of the two spectra stays the same.
        self._left, self._right = lru_cache(maxsize=8)(self._continued), lru_cache(maxsize=8)(self.theory)

    def measured(self, offset: float, scale: float) -> Aligned:
        """Align the measured spectrum."""
        return align(self.batch, self.grid, Edge(self.edge_ev, offset, scale=scale), self.settings)

    def is_refused_between(self, lower: Sequence[float], upper: Sequence[float]) -> bool:
        """Return whether the measured spectrum is refused at all offsets and scales between bounds: it has no fit."""
        offsets = np.linspace(lower[0], upper[0], 5)
        return all(self.measured(offset, scale).refused[0] for offset in offsets for scale in (lower[1], upper[1]))

    def theory(self, amplitude: float, broadening: float) -> Array:
        """Return FEFF's spectrum (G,), broadened and damped, on the footing."""
        return self.grid.footing(np.interp(self.grid.energy, self.fine, self._row(amplitude, broadening))[None])[0]

    def half_height_ev(self, broadening: float) -> float:
        """Return the energy at half height of FEFF's spectrum, eV from the tabulated edge."""
        return float(self.fine[(self._row(1.0, broadening) >= 0.5).argmax()])

    def residuals(self, p: Array) -> Array:
        """Return measured minus computed at offset, scale, amplitude and broadening."""
        return self._left(p[0], p[1]) - self._right(p[2], p[3])

    def _continued(self, offset: float, scale: float) -> Array:
        # An offset below 0 moves the end of a short standard into the grid.
        return np.nan_to_num(continued(self.measured(offset, scale).mu[0]).astype(float))

    def _row(self, amplitude: float, broadening: float) -> Array:
        zero = torch.zeros(1, 1, dtype=self.row.dtype)
        return damped(shifted(self.row, _STEP_EV, zero, zero + broadening), _STEP_EV, zero + amplitude)[0].numpy()


def fit(
    standard: Standard, grid: Grid, edge_ev: float, settings: AlignmentSettings, scale: float | None = None
) -> StandardFit:
    """Fit a standard by least squares on the grid.

    The measured spectrum is moved to FEFF's energies, FEFF's spectrum is broadened and damped.

    Parameters
    ----------
    grid, edge_ev : grid and tabulated edge of the model
    settings : normalisation of measured spectra
    scale : known energy scale; None to fit it

    Raises
    ------
    StandardError
        The standard cannot be aligned.
    """
    grid = _covered(grid, standard, edge_ev, _UPPER_BOUNDS[1] if scale is None else scale * standard.stretch**2)
    compared = _Comparison(standard, grid, edge_ev, settings)
    stretch = standard.stretch**2
    start, lower, upper = list(_START_SCALE_AMPLITUDE_BROADENING_EV), list(_LOWER_BOUNDS), list(_UPPER_BOUNDS)
    if scale is not None:
        start[0], lower[1], upper[1] = (scale * stretch * (1 + k * _KNOWN_SCALE_TOLERANCE) for k in (0, -1, 1))

    refusal = compared.measured(0.0, start[0]).refused[0]
    if refusal is not None and compared.is_refused_between(lower, upper):
        raise StandardError(f"{standard.name}: {refusal}")

    def fit_from(offset: float) -> OptimizeResult:
        # With a smaller step, the numerical derivative would be lost in the float32 rounding of aligned spectra.
        return least_squares(compared.residuals, (offset, *start), bounds=(lower, upper), diff_step=1e-3)

    best = min((fit_from(o) for o in _START_OFFSETS_EV), key=lambda result: result.cost)
    misfit = float(np.sqrt(np.mean(best.fun**2)))
    offset, fitted_scale, amplitude, broadening = (float(p) for p in best.x)
    aligned = compared.measured(offset, fitted_scale)
    if (refusal := aligned.refused[0]) is not None:
        raise StandardError(f"{standard.name}: {refusal}")
    variance = misfit**2 * _RESIDUAL_CORRELATION_EV / grid.step_ev
    sd = _parameter_sd(best.jac, variance)
    sd[0] = np.hypot(sd[0], aligned.quantities["energy_sd_ev"][0])
    return StandardFit(
        standard,
        offset,
        fitted_scale / stretch,
        amplitude,
        broadening,
        compared.half_height_ev(broadening),
        (float(sd[0]), float(sd[1]), float(sd[2]), float(sd[3])),
        misfit,
        grid.energy,
        aligned.mu[0].astype(float),
        compared.theory(amplitude, broadening),
    )


def _covered(grid: Grid, standard: Standard, edge_ev: float, largest_scale: float) -> Grid:
    """Return the part of the grid that a standard covers at any offset above 0 and at any scale up to the largest.

    The fit compares the same points at all offsets and scales. Only a grid for short spectra is shortened.

    Raises
    ------
    StandardError
        The FEFF row ends before the shortest spectrum.
    """
    if grid.short_stop_ev is None:
        return grid
    theory_last = float(standard.feff_energy[-1]) - edge_ev
    if theory_last < grid.short_stop_ev:
        found, needed = standard.feff_energy[-1], grid.short_stop_ev + edge_ev
        raise StandardError(f"{standard.name}: the FEFF row ends at {found:.1f} eV, needed {needed:.1f} eV")
    if theory_last < grid.bounds[-1]:
        theory_last -= _UNKNOWN_BEYOND_EV
    last = min((float(standard.energy[-1]) - edge_ev) / largest_scale, theory_last)
    stop = float(grid.energy[grid.points_to(max(last, grid.short_stop_ev)) - 1])
    anchor_ev = grid.anchor_ev[0], min(grid.anchor_ev[1], stop)
    return replace(grid, stop_ev=stop, anchor_ev=anchor_ev, short_stop_ev=stop)


def _parameter_sd(jacobian: Array, variance: float) -> Array:
    """Return the σ of the parameters from the variance of the residuals, limited to the width of the bounds.

    A parameter without effect, such as a broadening of 0, has a derivative of 0.
    """
    widths = np.subtract(_UPPER_BOUNDS, _LOWER_BOUNDS)
    information = jacobian.T @ jacobian / max(variance, 1e-300) + np.diag(widths**-2.0)
    return np.sqrt(np.diag(np.linalg.inv(information)))


def calibrate(
    standards: Sequence[Standard],
    grid: Grid,
    edge_ev: float,
    settings: AlignmentSettings,
    metal_gap_ev: float | None = None,
    known_scale: float | None = None,
) -> tuple[list[StandardFit], OffsetCard | None, DomainCard]:
    """Combine the standards of one absorber.

    The edge of a metal is shifted against FEFF's, and its fine structure damped, differently from those of an oxide.
    Metals therefore contribute only to the scale, and, minus ``metal_gap_ev``, to the offset if there is no other
    standard. If all standards are metals, amplitude and broadening are not fitted.

    Parameters
    ----------
    grid, edge_ev : grid and tabulated edge of the model
    settings : normalisation of measured spectra
    metal_gap_ev : offset of metals above that of oxides, eV
    known_scale : energy scale known from other elements; None to fit it

    Returns
    -------
    The fit of each standard at the common scale; the offset, None with metals only and no gap; the domain.

    Raises
    ------
    ValueError
        There are no standards.
    StandardError
        A standard cannot be aligned.
    """
    if not standards:
        raise ValueError("no standards to calibrate on")
    for name, value, (low, high) in (
        ("scale", known_scale, (_LOWER_BOUNDS[1], _UPPER_BOUNDS[1])),
        ("metal gap", metal_gap_ev, (0.0, _UPPER_BOUNDS[0])),
    ):
        if value is not None and not low <= value <= high:
            raise StandardError(f"{name}: found {value:g}, expected {low:g} to {high:g}")
    if known_scale is None:
        free = [fit(s, grid, edge_ev, settings) for s in standards]
        scale, scale_sd = _mean([f.scale for f in free], [f.sd[1] for f in free], _SCALE_SCATTER)
    else:
        scale, scale_sd = known_scale, _SCALE_SCATTER
    fits = [fit(s, grid, edge_ev, settings, scale) for s in standards]
    others = [f for f in fits if not f.standard.metal]
    domain = DomainCard(scale=round(scale, 3), scale_sd=round(scale_sd, 3), source=_source(fits))
    if others:
        amplitude, amplitude_sd = _mean([f.amplitude for f in others], [f.sd[2] for f in others])
        broadening, broadening_sd = _mean([f.broadening_ev for f in others], [f.sd[3] for f in others])
        fitted = {
            "amplitude": amplitude,
            "amplitude_sd": amplitude_sd,
            "broadening_ev": broadening,
            "broadening_sd_ev": broadening_sd,
            "step_ev": float(np.mean([f.step_ev for f in others])),
        }
        domain = domain.model_copy(update={k: round(v, 2) for k, v in fitted.items()})
    elif metal_gap_ev is None:
        return fits, None, domain
    gap = 0.0 if others else metal_gap_ev or 0.0
    used = others or fits
    value, sd = _mean([f.offset_ev - gap for f in used], [f.sd[0] for f in used])
    sd, correction = float(np.hypot(sd, _OFFSET_SCATTER_EV)), ""
    if not others:
        correction, sd = f", less {gap:g} eV between a metal and its oxides", float(np.hypot(sd, _GAP_SCATTER_EV))
    return fits, OffsetCard(value_ev=round(value, 2), sd_ev=round(sd, 2), source=_source(used) + correction), domain


def _mean(values: Sequence[float], sd: Sequence[float], alone: float = 0.0) -> tuple[float, float]:
    """Return the inverse-variance mean and its σ, the larger of the formal and the empirical standard error.

    The σ of a single value includes ``alone``.
    """
    weight = 1 / np.maximum(np.square(sd), 1e-12)
    mean = float(np.average(values, weights=weight))
    formal = float(weight.sum() ** -0.5)
    if len(values) == 1:
        return mean, float(np.hypot(formal, alone))
    scatter = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, max(formal, scatter)


def _source(fits: Sequence[StandardFit]) -> str:
    return "; ".join(f"{f.standard.name}, misfit {f.misfit:.3f}" for f in fits)
