"""The distance of a spectrum from one reference, and its position between two."""

import math

import numpy as np
from numpy.typing import NDArray

from ..types import Z90, DescriptorEstimate

Spectrum = NDArray[np.floating]


def compare(
    spectrum: Spectrum, first: Spectrum, second: Spectrum | None, noise: float
) -> dict[str, DescriptorEstimate]:
    """Return ``distance`` to the first reference and, with a second, ``position`` and ``position_misfit``.

    The position p minimises |μ − μ₀ − p (μ₁ − μ₀)|; its interval is that of least squares with independent residuals.
    Neighbouring residuals of different compounds are correlated, so that the true error is larger.

    Parameters
    ----------
    spectrum : (G,) aligned spectrum, edge steps; NaN beyond the end of a short scan
    first, second : (G,) references, edge steps
    noise : standard deviation per measured point, edge steps; NaN counts as no noise
    """
    noise = 0.0 if math.isnan(noise) else noise
    span = np.zeros(len(first)) if second is None else np.subtract(second, first, dtype=float)
    difference = np.subtract(spectrum, first, dtype=float)
    known = np.isfinite(difference + span)
    span, difference, n = span[known], difference[known], int(known.sum())
    sd_frame = noise / math.sqrt(n)
    found = {"distance": _gaussian(_rms(difference), sd_frame, sd_frame)}
    if square := float(span @ span):  # 0 if there is no second reference or it equals the first
        position = float(span @ difference) / square
        misfit = _rms(difference - position * span)
        sd = misfit * math.sqrt(n / (n - 1) / square)
        found["position"] = _gaussian(position, sd, noise / math.sqrt(square))
        found["position_misfit"] = _gaussian(misfit, sd_frame, sd_frame)
    return found


def _rms(values: Spectrum) -> float:
    return math.sqrt(float(np.mean(values**2)))


def _gaussian(mean: float, sd: float, sd_frame: float) -> DescriptorEstimate:
    return DescriptorEstimate(mean, mean - Z90 * sd, mean + Z90 * sd, sd_frame=sd_frame)
