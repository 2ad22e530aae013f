"""What is wrong with a detector's channel: dead, clipped, or without beam."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]

CLIPPED_POINTS = 4  # in a row at the very maximum
DISTINCT = 0.5  # of a channel's values, without which equal neighbours mean nothing: few counts, no noise
DARK = 0.1  # of its median: what I0 never falls to with beam
DARK_POINTS = 3  # in a row; fewer are a glitch
NAMES = {"i0": "I0", "it": "It", "if": "If", "iref": "Iref"}


def flaw(columns: Mapping[str, Column], role: str) -> tuple[str, str] | None:
    """The first flaw of a channel (M,), as (reason, detail), or None.

    ``If constant``: the detector is dead or stuck. I0 may be constant, as where intensities come divided by it.
    ``It saturated``: several points in a row stand at the maximum to the last bit. ``I0 dropped``: less than a tenth
    of its median for several points, as in a beam dump; ``I0 not positive`` is said elsewhere.
    """
    channel, name = columns[role], NAMES[role]
    if channel.size < 2 * CLIPPED_POINTS:
        return None
    lowest, highest = channel.min(), channel.max()
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        return None
    if role != "i0" and lowest == highest:
        return f"{name} constant", f"all {channel.size} values are {channel[0]:g}"
    if (run := _clipped(channel, channel == highest)) is not None:
        return f"{name} saturated", f"{run} points in a row at its maximum, {highest:g}"
    if role == "i0" and not lowest >= DARK * highest:  # else nothing is dark, whatever the median
        dark = channel < DARK * np.median(channel)
        if (run := _longest(dark)) >= DARK_POINTS:
            where = " at the end" if dark[-DARK_POINTS:].all() else ""
            return f"{name} dropped", f"below {DARK:g} of its median for {run} points in a row{where}"
    return None


def _clipped(channel: Column, top: NDArray[np.bool_]) -> int | None:
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
