"""What the model says of one frame."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .reasons import Flag


@dataclass(frozen=True, slots=True)
class DescriptorEstimate:
    """One descriptor of one frame.

    A classified descriptor has all fields; a regressed one has ``mean``, ``lo`` and ``hi`` alone.
    """

    mean: float
    """Expectation (for OS from the mean-OS head), or the regressed value, in the descriptor's unit."""
    lo: float
    hi: float
    """Ends of the calibrated interval around ``mean``."""
    value: float | None = None
    """The most probable class."""
    p: float | None = None
    """Its probability."""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    """Of every class, by its label."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """All descriptors of one frame."""

    descriptors: Mapping[str, DescriptorEstimate]
    """By name: OS, CN, CN2, OCN, PSGO, NNRS, MOOD, in the order of the model's card."""
    ood_score: float
    """0 for a spectrum like those trained on; above 1 the model has not seen its like."""
    flags: tuple[Flag, ...] = ()
    """What a reader must know before using the numbers."""
