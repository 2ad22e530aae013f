"""Self-absorption in fluorescence: how strong it must be, and a spectrum without it.

In a thick sample the fluorescence is not proportional to the absorption μₐ of the edge but to μₐ/(μₐ + μ_b + g·μ_f):
with everything else than the edge, μ_b, and the fluorescence's own way out, μ_f, g = sin(in)/sin(out). So the
normalised N measures the normalised absorption T through N = T·(1 + α)/(T + α) with α = (μ_b + g·μ_f)/Δμ: white
lines and EXAFS are damped, by α/(1 + α) where they are small.

L. Tröger et al., Phys. Rev. B 46, 3283 (1992); D. Haskel, FLUO (1999), with Larch's ``fluo_corr`` as the reference
implementation; for thinner samples C. H. Booth, F. Bridges, Phys. Scr. T115, 202 (2005), which this is the limit of.
"""

from typing import Self

import numpy as np
from pydantic import Field, model_validator

from ..types import Array, Flag, Settings

CORRECTABLE = 0.98
"""Of 1 + α, the most that a thick sample can show: nearer than this a little noise becomes any absorption at all."""


class SelfAbsorptionSettings(Settings):
    """What the sample is. Spectra measured in transmission are left as they are."""

    formula: str | None = None
    """Formula of the whole sample, such as ``LiNiO2``; α is computed from the tables of xraydb."""
    alpha: float | None = Field(default=None, gt=0)
    """α where it is known; in place of the formula."""
    angle_in_deg: float = Field(default=45.0, gt=0, le=90)
    """Angle between the sample's surface and the incident beam, degrees."""
    angle_out_deg: float = Field(default=45.0, gt=0, le=90)
    """Angle between the sample's surface and the direction of the detector, degrees."""
    correct: bool = True
    """Whether to correct the damping; otherwise it is only reported."""
    mu_is_fluorescence: bool = False
    """Whether an absorption that arrives already computed was measured in fluorescence."""

    @model_validator(mode="after")
    def _formula_or_alpha(self) -> Self:
        if (self.formula is None) == (self.alpha is None):
            raise ValueError("either formula or alpha")
        return self


def thick_alpha(
    mu_fluorescence: float,
    mu_below: float,
    mu_above: float,
    *,
    angle_in_deg: float = 45.0,
    angle_out_deg: float = 45.0,
) -> float:
    """α of a thick sample from tabulated absorption coefficients of the whole compound, all in one unit.

    Parameters
    ----------
    mu_fluorescence : at the energy of the fluorescence line
    mu_below, mu_above : just below and above the edge
    angle_in_deg, angle_out_deg : between the sample's surface and the incident beam, and the detector

    Raises
    ------
    ValueError
        The absorption does not rise at the edge, or an angle is not between 0 and 90°.
    """
    if not mu_above > mu_below > 0 or not mu_fluorescence > 0:
        raise ValueError(
            f"no edge between {mu_below:g} and {mu_above:g}, or fluorescence absorbed by {mu_fluorescence:g}"
        )
    if not (0 < angle_in_deg <= 90 and 0 < angle_out_deg <= 90):
        raise ValueError(f"angles of {angle_in_deg:g}° and {angle_out_deg:g}°, expected more than 0° and at most 90°")
    geometry = np.sin(np.deg2rad(angle_in_deg)) / np.sin(np.deg2rad(angle_out_deg))
    return float((mu_below + geometry * mu_fluorescence) / (mu_above - mu_below))


def damping(alpha: Array | float) -> Array | float:
    """What is left of small features, 0…1: 1 without self-absorption."""
    return 1.0 / (1.0 + 1.0 / np.asarray(alpha))


def corrected(norm: Array, alpha: Array | float) -> Array:
    """Normalised spectra (..., M) without self-absorption; α one for all, or (..., 1).

    NaN where a point is as high as no thick sample can be: α is too small then.
    """
    most = alpha + 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(norm < CORRECTABLE * most, norm * alpha / (most - norm), np.nan)


def undamped(
    norm: Array, settings: SelfAbsorptionSettings, alpha: float | None, fluorescence: bool
) -> tuple[Array, float, Flag | None]:
    """Normalised spectra (N, M) as ``settings`` want them, how much they were damped, and what a reader must know.

    What no thick sample shows is NaN. ``alpha`` is the declared compound's, None where the absorber is not in it.
    """
    if not fluorescence:
        return norm, 1.0, Flag.NOT_FLUORESCENCE if settings.correct else None
    if alpha is None:
        return norm, np.nan, Flag.SELF_ABSORPTION_NOT_KNOWN
    left = float(damping(alpha))
    if not settings.correct:
        return norm, left, Flag.SELF_ABSORPTION_LEFT_IN
    return corrected(norm, alpha), left, Flag.SELF_ABSORPTION_CORRECTED
