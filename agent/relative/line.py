"""Maps a model's estimates to true values by a line through frames whose true values are known."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..types import Z90, DescriptorEstimate, SeriesSlope

_CHANCE = 0.01
"""Probability with which consistent anchors are taken for contradictory."""


@dataclass(frozen=True, slots=True)
class Known:
    """A known value and the mean estimate of the frames that have it, both in the descriptor's unit."""

    value: float
    sd: float
    mean: float
    sd_frame: float
    """Standard deviation of ``mean`` due to the scatter of repeats."""


@dataclass(frozen=True, slots=True)
class Line:
    """True value = ``height`` + ``scale`` · (estimate − ``centre``), with independent errors of height and scale."""

    centre: float
    height: float
    height_var: float
    scale: float
    scale_var: float
    scatter_var: float
    """Variance of true values about the line."""
    contradiction: float = 1.0
    """Factor, above 1, by which the residuals of the anchors exceed their errors; 1 if they agree."""

    def value(self, estimate: DescriptorEstimate) -> DescriptorEstimate:
        """Return the true value of a frame with its 90 % interval."""
        from_centre = estimate.mean - self.centre
        variance = self.height_var + from_centre**2 * self.scale_var + self.scatter_var
        return self._interval(self.height + self.scale * from_centre, variance, estimate.sd_frame)

    def change(self, first: tuple[float, float], estimate: DescriptorEstimate) -> DescriptorEstimate:
        """Return the change of the true value since a first frame; the level cancels, the scale does not.

        Parameters
        ----------
        first : mean and ``sd_frame`` of the first frame
        """
        by = estimate.mean - first[0]
        sd_frame = math.hypot(first[1], estimate.sd_frame)
        interval = self._interval(self.scale * by, by**2 * self.scale_var, sd_frame)
        return interval.scattering(abs(self.scale) * estimate.sd_frame)

    def _interval(self, mean: float, variance: float, sd_frame: float) -> DescriptorEstimate:
        sd_frame *= abs(self.scale)
        half = Z90 * math.hypot(self.contradiction * math.sqrt(variance), sd_frame)
        return DescriptorEstimate(mean, mean - half, mean + half, sd_frame=sd_frame)


def fit_line(known: Sequence[Known], slope: SeriesSlope) -> Line:
    """Fit the line by Bayesian least squares.

    The height has a flat prior. The scale is the inverse of the slope of the estimates; its prior is Gaussian with
    mean 1/s and standard deviation σ/s² for a slope s ± σ, to first order in σ/s. The error of an anchor combines
    those of its known value, of its estimate (scatter of repeats) and of the scatter about the line. The fit neglects
    errors on its abscissa, the estimates, since they are small compared with the distances between anchors.

    One anchor therefore shifts a series, and the scale's prior widens the interval with the distance from it. Several
    anchors with different values also determine the scale. Height at the weighted centre and scale are independent
    (A. Gelman et al., Bayesian Data Analysis, 3rd ed., 14.8). If χ² exceeds its 99 % quantile, all errors are
    multiplied by the root of χ² per degree of freedom (R. T. Birge, Phys. Rev. 40, 207 (1932)).

    Parameters
    ----------
    known : the anchors; without any, height and centre have no meaning
    slope : slope of the estimates against true values
    """
    from scipy.special import chdtri  # imported late: it takes long, and only anchors need it

    scale, scale_sd = 1 / slope.value, slope.sd / slope.value**2
    if not known:
        return Line(math.nan, math.nan, math.inf, scale, scale_sd**2, slope.scatter_sd**2)
    values, sds, means, sds_frame = np.array([(k.value, k.sd, k.mean, k.sd_frame) for k in known]).T
    weights = 1 / (sds**2 + (scale * sds_frame) ** 2 + slope.scatter_sd**2)
    total = weights.sum()
    centre, height = weights @ means / total, weights @ values / total
    x, y = means - centre, values - height - scale * (means - centre)
    # Relative to the prior's scale and in units of its error, so that a scale without error stays unchanged.
    correction = scale_sd**2 * (weights @ (x * y)) / (1 + scale_sd**2 * (weights @ x**2))
    scale_var = scale_sd**2 / (1 + scale_sd**2 * (weights @ x**2))
    residuals = y - correction * x
    chi2 = weights @ residuals**2 + (correction / scale_sd) ** 2 if scale_sd else weights @ residuals**2
    free = len(known) - 1
    contradiction = math.sqrt(chi2 / free) if free and chi2 > chdtri(free, _CHANCE) else 1.0
    numbers = (centre, height, 1 / total, scale + correction, scale_var, slope.scatter_sd**2, contradiction)
    return Line(*map(float, numbers))
