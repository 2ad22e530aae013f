"""What is wrong with a detector's channel: dead, clipped, or without beam."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..types import Array, Reason

CLIPPED_POINTS = 4  # in a row at the very maximum
DISTINCT = 0.5  # of a channel's values, without which equal neighbours mean nothing: few counts, no noise
DARK = 0.1  # of its median: what I0 never falls to with beam
DARK_POINTS = 3  # in a row; fewer are a glitch
DETECTOR_ROLES = ("i0", "it", "fluorescence", "iref")
CONSTANT = {"it": Reason.IT_CONSTANT, "fluorescence": Reason.IF_CONSTANT, "iref": Reason.IREF_CONSTANT}
"""I0 may be constant, as where intensities come divided by it."""
SATURATED = {
    "i0": Reason.I0_SATURATED,
    "it": Reason.IT_SATURATED,
    "fluorescence": Reason.IF_SATURATED,
    "iref": Reason.IREF_SATURATED,
}


def find_flaw(columns: Mapping[str, Array], role: str) -> tuple[Reason, str] | None:
    """Return the first flaw of a channel, (M,), as reason and detail; None where it has none.

    Constant: the detector is dead or stuck. Saturated: several points in a row have the maximum to the last bit. I0
    dropped: it is below a tenth of its median for several points, as in a beam dump. An I0 that is not positive is
    refused elsewhere.
    """
    channel = columns[role]
    if channel.size < 2 * CLIPPED_POINTS:
        return None
    lowest, highest = channel.min(), channel.max()
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        return None
    if role in CONSTANT and lowest == highest:
        return CONSTANT[role], f"all {channel.size} values are {channel[0]:g}"
    if (run := _clipped(channel, channel == highest)) is not None:
        return SATURATED[role], f"{run} points in a row at its maximum, {highest:g}"
    if role == "i0" and not lowest >= DARK * highest:  # else nothing is dark, whatever the median
        dark = channel < DARK * np.median(channel)
        if (run := _longest(dark)) >= DARK_POINTS:
            where = " at the end" if dark[-DARK_POINTS:].all() else ""
            return Reason.I0_DROPPED, f"below {DARK:g} of its median for {run} points in a row{where}"
    return None


def _clipped(channel: Array, top: NDArray[np.bool_]) -> int | None:
    """How many points in a row are clipped, or None; ``top`` are those at the maximum."""
    if np.count_nonzero(top) < CLIPPED_POINTS or (run := _longest(top)) < CLIPPED_POINTS:
        return None
    rest = channel[~top]
    if rest.size < 2 * CLIPPED_POINTS or np.unique(rest).size < DISTINCT * rest.size:
        return None
    return run


def _longest(mask: NDArray[np.bool_]) -> int:
    """Length of the longest run."""
    borders = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False]))))
    return int((borders[1::2] - borders[::2]).max()) if borders.size else 0
