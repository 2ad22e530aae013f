"""Statistics that outliers cannot carry away, fast enough for a few values at a time."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .array import Array

MAD_TO_SD = 1.4826
"""Standard deviation of a Gaussian over its median absolute deviation."""


def median(values: Array) -> float:
    """Median of one or more values, as ``np.median`` without its overhead on short arrays.

    Parameters
    ----------
    values : (n,), finite

    Examples
    --------
    >>> median(np.array([3.0, 1.0, 2.0, 10.0]))
    2.5
    """
    ordered = np.sort(values)
    return float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def nan_median(values: Array) -> Array:
    """Medians over the last axis without its NaN, several times as fast as ``np.nanmedian``.

    Parameters
    ----------
    values : (…, n)

    Returns
    -------
    (…,); 0 where all values are NaN
    """
    ordered = np.sort(values, axis=-1)  # NaN last
    count = np.isfinite(ordered).sum(axis=-1)
    middle = np.maximum(count - 1, 0)
    low = np.take_along_axis(ordered, (middle // 2)[..., None], -1)[..., 0]
    high = np.take_along_axis(ordered, ((middle + 1) // 2)[..., None], -1)[..., 0]
    return np.where(count > 0, (low + high) / 2, 0.0)


def mad_sd(values: Array, centre: float) -> float:
    """Standard deviation by the median absolute deviation from ``centre``.

    Parameters
    ----------
    values : (n,), finite, in any unit
    centre : their median or another robust location, in the same unit
    """
    return MAD_TO_SD * median(np.abs(values - centre))


def theil_sen(x: Array, y: Array) -> float:
    """Slope of the Theil–Sen line: the median slope of all pairs of points.

    Keeps 3/π of the efficiency of least squares under Gaussian noise and withstands 29 % of outliers
    (H. Theil, Proc. K. Ned. Akad. Wet. 53, 386 (1950); P. K. Sen, J. Am. Stat. Assoc. 63, 1379 (1968)).
    ``scipy.stats.theilslopes`` gives the same and takes longer than the alignment of a spectrum.

    Parameters
    ----------
    x, y : (n,), finite

    Returns
    -------
    In the unit of y over that of x; 0 where no two points differ in x.
    """
    first, later = _pairs(len(x))
    run, rise = x[later] - x[first], y[later] - y[first]
    if not run.all():
        apart = run != 0
        run, rise = run[apart], rise[apart]
    return median(rise / run) if len(run) else 0.0


def hodges_lehmann(values: Array) -> float:
    """Location of a symmetric distribution: the median of the means of all pairs (J. L. Hodges, E. L. Lehmann,
    Ann. Math. Stat. 34, 598 (1963)).

    Parameters
    ----------
    values : (n,), finite, n ≥ 2
    """
    first, later = _pairs(len(values))
    return median(values[first] + values[later]) / 2


@lru_cache(maxsize=256)
def _pairs(n: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.triu_indices(n, 1)
