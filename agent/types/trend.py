"""The robust line through a series of values: its present value, its slope and their errors."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .array import Array
from .robust import hodges_lehmann, mad_sd, theil_sen

Z90 = 1.6449
"""Half-width of the central 90 % of a Gaussian, in standard deviations; estimates have intervals of this coverage."""


@dataclass(frozen=True, slots=True)
class TrendLine:
    """A line through a series.

    The 90 % interval is ± 1.645 errors for any number of points.
    """

    value: float
    """Value of the line at the newest time, in the unit of the series."""
    value_error: float
    slope: float
    """Slope per second."""
    slope_error: float
    scatter: float
    """Standard deviation of the points about the line, with outliers clipped at three standard deviations."""


@lru_cache(maxsize=256)
def _error_factor(n: int) -> float:
    """Return the ratio of Gaussian standard errors to the scatter: efficiency 3/π and Student's t for n − 2."""
    from scipy.special import stdtrit  # imported late: it takes long, and only trends need it

    return math.sqrt(math.pi / 3) * float(stdtrit(n - 2, 0.95)) / Z90


def robust_line(time: Array, value: Array) -> TrendLine:
    """Fit a line that tolerates up to 29 % of outliers.

    The slope is the median of the slopes of all pairs (Theil 1950, Sen 1968); the height is the median of the pairs'
    mean residuals (Hodges & Lehmann 1963). Both have 3/π of the efficiency of least squares under Gaussian noise. For
    straight lines with such noise, the 90 % interval contains the true value with a probability of 0.86 at 7 points,
    0.88 at 15 and 0.90 at 50, and with a higher one if there are outliers.

    Parameters
    ----------
    time : (n,) times, s, rising; n ≥ 3
    value : (n,) values in any unit
    """
    n = len(time)
    t = time - time[-1]
    slope = theil_sen(t, value)
    residual = value - slope * t
    height = hodges_lehmann(residual)
    deviation = np.minimum(np.abs(residual - height), 3 * mad_sd(residual, height))
    scatter = math.sqrt(float(deviation @ deviation) / (n - 2))  # two parameters are fitted
    error = scatter * _error_factor(n)
    centre = float(t.mean())
    spread = float(((t - centre) ** 2).sum())
    if spread == 0:
        return TrendLine(height, error / math.sqrt(n), 0.0, math.inf, scatter)
    value_error = error * math.sqrt(1 / n + centre**2 / spread)
    return TrendLine(height, value_error, slope, error / math.sqrt(spread), scatter)
