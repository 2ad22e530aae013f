"""The line from a model's estimates to true values, through frames whose true values are known."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..types import Z90, DescriptorEstimate, SeriesSlope

_CHANCE = 0.01
"""Probability with which anchors that agree are taken for contradictory."""


@dataclass(frozen=True, slots=True)
class Known:
    """A known value and the mean estimate of the frames that show it, both in the descriptor's unit."""

    value: float
    sd: float
    mean: float
    sd_frame: float
    """Standard deviation of ``mean`` by the scatter of repeats."""


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
    """Factor, above 1, by which the anchors' residuals exceed their errors; 1 if they agree."""

    def value(self, estimate: DescriptorEstimate) -> DescriptorEstimate:
        """Return the true value of a frame, with its 90 % interval."""
        from_centre = estimate.mean - self.centre
        variance = self.height_var + from_centre**2 * self.scale_var + self.scatter_var
        return self._interval(self.height + self.scale * from_centre, variance, estimate.sd_frame)

    def change(self, first: tuple[float, float], estimate: DescriptorEstimate) -> DescriptorEstimate:
        """Return the change of the true value since a first frame: the level cancels, the scale does not.

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

    The height has a flat prior. The scale is the inverse of the slope of the estimates; its prior is the Gaussian
    with mean 1/s and standard deviation σ/s² for a slope s ± σ, to first order in σ/s. An anchor's error is that of
    its known value, the scatter of its estimate by repeats and the scatter about the line. Errors of the estimates
    on the axis of the fit are not treated otherwise, since they are small compared with the distances of anchors.

    One anchor therefore shifts a series, and the scale's prior widens the interval with the distance from it. Several
    of different values determine the scale too. Height at the weighted centre and scale are independent (A. Gelman
    et al., Bayesian Data Analysis, 3rd ed., 14.8). If χ² exceeds its 99 % quantile, all errors are multiplied
    by the root of χ² per degree of freedom (R. T. Birge, Phys. Rev. 40, 207 (1932)).

    Parameters
    ----------
    known : the anchors, or none: then height and centre have no meaning
    slope : how the estimates follow true values
    """
    from scipy.special import chdtri  # late: it takes long to import, and only anchors need it

    scale, scale_sd = 1 / slope.value, slope.sd / slope.value**2
    if not known:
        return Line(math.nan, math.nan, math.inf, scale, scale_sd**2, slope.scatter_sd**2)
    values, sds, means, sds_frame = np.array([(k.value, k.sd, k.mean, k.sd_frame) for k in known]).T
    weights = 1 / (sds**2 + (scale * sds_frame) ** 2 + slope.scatter_sd**2)
    total = weights.sum()
    centre, height = weights @ means / total, weights @ values / total
    x, y = means - centre, values - height - scale * (means - centre)
    # Relative to the prior's scale and in units of its error, so that one without error stays as it is.
    correction = scale_sd**2 * (weights @ (x * y)) / (1 + scale_sd**2 * (weights @ x**2))
    scale_var = scale_sd**2 / (1 + scale_sd**2 * (weights @ x**2))
    residuals = y - correction * x
    chi2 = weights @ residuals**2 + (correction / scale_sd) ** 2 if scale_sd else weights @ residuals**2
    free = len(known) - 1
    contradiction = math.sqrt(chi2 / free) if free and chi2 > chdtri(free, _CHANCE) else 1.0
    numbers = (centre, height, 1 / total, scale + correction, scale_var, slope.scatter_sd**2, contradiction)
    return Line(*map(float, numbers))
