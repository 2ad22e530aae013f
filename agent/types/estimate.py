"""The model's answer for one frame."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .reasons import Flag

ESTIMATE_PARTS = ("mean", "lo", "hi", "sd_frame")
"""Fields of :class:`DescriptorEstimate` that the agent's documents contain for every descriptor."""


@dataclass(frozen=True, slots=True)
class DescriptorEstimate:
    """One descriptor of one frame.

    A classified descriptor has all fields; a regressed one has no ``value``, ``p`` and ``probabilities``.
    """

    mean: float
    """Expectation (for OS from the mean-OS head) or regressed value, in the descriptor's unit."""
    lo: float
    hi: float
    """Upper end of the calibrated interval around ``mean``; ``lo`` is the lower end."""
    value: float | None = None
    """Most probable class."""
    p: float | None = None
    """Probability of the most probable class."""
    probabilities: Mapping[str, float] = field(default_factory=dict)
    """Probabilities of all classes, by class label."""
    sd_frame: float = 0.0
    """Standard deviation of ``mean`` between repeated measurements of the same sample, in the descriptor's unit; 0
    for computed spectra."""

    def scattering(self, sd_frame: float) -> "DescriptorEstimate":
        """Return this estimate with ``sd_frame``, faster than ``replace``, for each descriptor of each frame."""
        return DescriptorEstimate(self.mean, self.lo, self.hi, self.value, self.p, self.probabilities, sd_frame)


@dataclass(frozen=True, slots=True)
class Estimate:
    """All descriptors of one frame."""

    descriptors: Mapping[str, DescriptorEstimate]
    """Descriptors by name (OS, CN, CN2, OCN, PSGO, NNRS, MOOD), in the order of the model card."""
    ood_score: float
    """Out-of-distribution score: near 0 for spectra like the training spectra, above 1 for unfamiliar ones."""
    flags: tuple[Flag, ...] = ()
    """Notes that a reader needs before using the estimate."""


@dataclass(frozen=True, slots=True)
class Reach:
    """Limits of a model's estimates of one descriptor."""

    lowest: float
    highest: float
    """Largest expectation; ``lowest`` is the smallest, both in the descriptor's unit."""
    least_half_width: float
    """Half-width of the narrowest 90 % interval at a limit, where the interval is cut off."""


def keys_of(descriptor: str) -> tuple[str, ...]:
    """Return the keys of a classified descriptor in the agent's documents.

    >>> keys_of("OS")
    ('OS', 'OS_p', 'OS_mean', 'OS_lo', 'OS_hi', 'OS_sd_frame')
    """
    return (descriptor, *(f"{descriptor}_{part}" for part in ("p", *ESTIMATE_PARTS)))
