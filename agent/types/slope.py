"""The relation of a descriptor's estimates to its true values along a series of one sample."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SeriesSlope:
    """A model's estimates along a series: estimate = offset + ``value`` · truth, with scatter.

    The offset is common to the series and unknown.
    """

    value: float
    """Change of the estimates per change of the true value, dimensionless."""
    sd: float
    """Standard deviation of ``value`` between series."""
    scatter_sd: float = 0.0
    """Standard deviation of the true values about a line through the estimates, in the descriptor's unit."""
