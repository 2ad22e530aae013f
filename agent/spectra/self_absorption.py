"""Self-absorption in fluorescence: its strength and its correction.

The fluorescence of a thick sample is not proportional to the absorption μₐ of the edge, but to
μₐ/(μₐ + μ_b + g·μ_f). Here μ_b is all other absorption at the incident energy, μ_f is the absorption of the
fluorescence on its way out, and g = sin(in)/sin(out). The normalised spectrum N therefore depends on the normalised
absorption T as N = T·(1 + α)/(T + α) with α = (μ_b + g·μ_f)/Δμ: white lines and EXAFS are damped, small features by
the factor α/(1 + α).

L. Tröger et al., Phys. Rev. B 46, 3283 (1992); D. Haskel, FLUO (1999), with Larch's ``fluo_corr`` as the reference
implementation. This is the thick limit of C. H. Booth, F. Bridges, Phys. Scr. T115, 202 (2005).
"""

from typing import Self

import numpy as np
from pydantic import Field, model_validator

from ..types import Array, Flag, Settings

# Share of the maximum, 1 + α, that a thick sample can show. Closer to it, noise makes the correction arbitrary.
_MAX_CORRECTABLE_PART = 0.98


class SelfAbsorptionSettings(Settings):
    """The sample and its geometry. Spectra measured in transmission stay unchanged."""

    formula: str | None = None
    """Formula of the whole sample, such as ``LiNiO2``; α is computed from the tables of xraydb."""
    alpha: float | None = Field(default=None, gt=0)
    """α, if known; it replaces the formula."""
    angle_in_deg: float = Field(default=45.0, gt=0, le=90)
    """Angle between the sample's surface and the incident beam, degrees."""
    angle_out_deg: float = Field(default=45.0, gt=0, le=90)
    """Angle between the sample's surface and the direction of the detector, degrees."""
    correct: bool = True
    """Whether to correct the damping; otherwise the agent only reports it."""
    mu_is_fluorescence: bool = False
    """Whether an absorption that arrives already computed was measured in fluorescence."""

    @model_validator(mode="after")
    def _formula_or_alpha(self) -> Self:
        if (self.formula is None) == (self.alpha is None):
            raise ValueError("expected either formula or alpha")
        return self


def thick_alpha(
    mu_fluorescence: float,
    mu_below: float,
    mu_above: float,
    *,
    angle_in_deg: float = 45.0,
    angle_out_deg: float = 45.0,
) -> float:
    """Return α of a thick sample from tabulated absorption coefficients: α = (μ_b + g·μ_f)/Δμ.

    Parameters
    ----------
    mu_fluorescence : absorption coefficient of the whole compound at the energy of the fluorescence line, in any unit
    mu_below, mu_above : absorption coefficients just below and just above the edge, in the same unit
    angle_in_deg : angle between the sample's surface and the incident beam, degrees
    angle_out_deg : angle between the sample's surface and the direction of the detector, degrees

    Returns
    -------
    α, dimensionless

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
    """Return the remaining fraction α/(1 + α) of small features, 0…1; 1 without self-absorption."""
    return 1.0 / (1.0 + 1.0 / np.asarray(alpha))


def correct_self_absorption(norm: Array, alpha: Array | float) -> Array:
    """Correct normalised spectra for self-absorption: T = N·α/(1 + α − N).

    Parameters
    ----------
    norm : (..., M) normalised fluorescence
    alpha : α of all spectra, or (..., 1)

    Returns
    -------
    (..., M) corrected spectra; NaN at points higher than a thick sample can show, which mean that α is too small
    """
    maximum = alpha + 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(norm < _MAX_CORRECTABLE_PART * maximum, norm * alpha / (maximum - norm), np.nan)


def treat_self_absorption(
    norm: Array, settings: SelfAbsorptionSettings, alpha: float | None, fluorescence: bool
) -> tuple[Array, float, Flag | None]:
    """Apply ``settings`` to normalised spectra.

    Parameters
    ----------
    norm : (N, M) normalised spectra
    alpha : α of the declared compound; None if it does not contain the absorber
    fluorescence : whether the spectra were measured in fluorescence

    Returns
    -------
    spectra : (N, M), NaN at points higher than a thick sample can show
    damping : remaining fraction of small features; NaN if unknown
    flag : states whether and how the spectra were corrected
    """
    if not fluorescence:
        return norm, 1.0, Flag.NOT_FLUORESCENCE if settings.correct else None
    if alpha is None:
        return norm, np.nan, Flag.SELF_ABSORPTION_NOT_KNOWN
    left = float(damping(alpha))
    if not settings.correct:
        return norm, left, Flag.SELF_ABSORPTION_LEFT_IN
    return correct_self_absorption(norm, alpha), left, Flag.SELF_ABSORPTION_CORRECTED
