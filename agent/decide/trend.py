"""The robust line through a series of values: where it stands now, how fast it moves, how sure that is."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import stdtrit

from ..types import Array, hodges_lehmann, mad_sd, theil_sen

Z90 = 1.6449
"""Half width of a Gaussian's central 90 % in standard deviations: what an estimate's interval spans."""


@dataclass(frozen=True, slots=True)
class TrendLine:
    """A line through a series.

    Errors are such that ± 1.645 of them is the 90 % interval, however few the points.
    """

    value: float
    """At the newest time, in the series' unit."""
    value_error: float
    slope: float
    """Per second."""
    slope_error: float
    scatter: float
    """Standard deviation of the points about the line, outliers held to three of it."""


@lru_cache(maxsize=256)
def _error_factor(n: int) -> float:
    """From the scatter to Gaussian standard errors: efficiency 3/π, and Student's t for n − 2."""
    return math.sqrt(math.pi / 3) * float(stdtrit(n - 2, 0.95)) / Z90


def robust_line(time: Array, value: Array) -> TrendLine:
    """Fit a line that up to 29 % of outliers cannot carry away.

    The slope is the median of the slopes of all pairs (Theil 1950, Sen 1968), the height the median of the
    pairs' mean residuals (Hodges & Lehmann 1963); both keep 3/π of the efficiency of least squares under
    Gaussian noise. Of straight lines with such noise the 90 % interval holds 0.86 at 7 points, 0.88 at 15
    and 0.90 at 50, and more where there are outliers.

    Args:
        time: (n,) seconds, rising; n ≥ 3.
        value: (n,), any unit.
    """
    n = len(time)
    t = time - time[-1]
    slope = theil_sen(t, value)
    residual = value - slope * t
    height = hodges_lehmann(residual)
    # Two parameters are fitted, hence n − 2.
    off = np.abs(residual - height)
    off = np.minimum(off, 3 * mad_sd(residual, height))
    scatter = math.sqrt(float(off @ off) / (n - 2))
    error = scatter * _error_factor(n)
    centre = float(t.mean())
    spread = float(((t - centre) ** 2).sum())
    if spread == 0:
        return TrendLine(height, error / math.sqrt(n), 0.0, math.inf, scatter)
    value_error = error * math.sqrt(1 / n + centre**2 / spread)
    return TrendLine(height, value_error, slope, error / math.sqrt(spread), scatter)
