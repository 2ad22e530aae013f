"""How the estimates of a descriptor follow its true value along a series of one sample."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SeriesSlope:
    """The course of a model's estimates along a series: estimate = offset + ``value`` · truth, with scatter.

    The offset is common to the series and not known.
    """

    value: float
    """Change of the estimates per change of the true value, dimensionless."""
    sd: float
    """Standard deviation of ``value`` between series."""
    scatter_sd: float = 0.0
    """Standard deviation of the true values about a line through the estimates, in the descriptor's unit."""
