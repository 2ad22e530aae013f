"""Finds flaws of a detector channel: a constant or saturated signal, or no beam."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..types import Array, Reason

_MIN_SATURATED_POINTS = 4
"""Smallest number of successive points at the maximum that counts as saturation."""
_MIN_DISTINCT_FRACTION = 0.5
"""Share of distinct values among the others; below it (few counts, no noise) equal neighbours occur by chance."""
_MAX_DARK_FRACTION = 0.1
"""Share of the median of I0 below which there is no beam."""
_MIN_DARK_POINTS = 3
"""Smallest number of successive dark points; fewer are a glitch."""
DETECTOR_ROLES = ("i0", "it", "fluorescence", "iref")
_CONSTANT = {"it": Reason.IT_CONSTANT, "fluorescence": Reason.IF_CONSTANT, "iref": Reason.IREF_CONSTANT}
"""Reasons by role. I0 may be constant: some beamlines publish intensities that are already divided by it."""
_SATURATED = {
    "i0": Reason.I0_SATURATED,
    "it": Reason.IT_SATURATED,
    "fluorescence": Reason.IF_SATURATED,
    "iref": Reason.IREF_SATURATED,
}


def turn_negative_currents(columns: Mapping[str, Array]) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Turn the sign of currents that are negative throughout, as electrometers of negative polarity record them.

    A negative fluorescence is turned only together with I0; beside a positive I0 it is a signal below an offset.

    Returns
    -------
    columns : by role, each (M,)
    turned : roles of the turned columns
    """
    turned = tuple(role for role in DETECTOR_ROLES if role in columns and _is_negative(columns[role]))
    if "i0" not in turned:
        turned = tuple(role for role in turned if role != "fluorescence")
    return {role: -column if role in turned else column for role, column in columns.items()}, turned


def _is_negative(channel: Array) -> bool:
    finite = channel[np.isfinite(channel)]
    return finite.size > 0 and bool(finite.max() < 0)


def find_flaw(columns: Mapping[str, Array], role: str) -> tuple[Reason, str] | None:
    """Return the first flaw of a channel, (M,), as reason and detail; None if it has no flaw.

    The signal is constant if the detector is dead or stuck. It is saturated if several successive points equal the
    maximum exactly. I0 has dropped, as in a beam dump, if it is below a tenth of its median for several points.
    ``form_spectrum`` refuses an I0 that is not positive.
    """
    channel = columns[role]
    if channel.size < 2 * _MIN_SATURATED_POINTS:
        return None
    lowest, highest = channel.min(), channel.max()
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        return None
    if role in _CONSTANT and lowest == highest:
        return _CONSTANT[role], f"all {channel.size} values are {channel[0]:g}"
    if (length := _saturated_points(channel, channel == highest)) is not None:
        return _SATURATED[role], f"{length} points in a row at its maximum, {highest:g}"
    if role == "i0" and not lowest >= _MAX_DARK_FRACTION * highest:  # spares the median if no point can be dark
        dark = channel < _MAX_DARK_FRACTION * np.median(channel)
        if (length := _longest_run(dark)) >= _MIN_DARK_POINTS:
            place = " at the end" if dark[-_MIN_DARK_POINTS:].all() else ""
            detail = f"below {_MAX_DARK_FRACTION:g} of its median for {length} points in a row{place}"
            return Reason.I0_DROPPED, detail
    return None


def is_suspicious(channels: Array, role: str) -> NDArray[np.bool_]:
    """Return (N,) whether channels, (N, M), may have a flaw or values that are not positive."""
    lowest, highest = channels.min(axis=1), channels.max(axis=1)
    not_positive = ~((lowest > 0) & np.isfinite(highest))
    saturated = np.count_nonzero(channels == highest[:, None], axis=1) >= _MIN_SATURATED_POINTS
    if role != "i0":
        return not_positive | saturated
    return not_positive | (saturated & (lowest < highest)) | ~(lowest >= _MAX_DARK_FRACTION * highest)


def _saturated_points(channel: Array, at_maximum: NDArray[np.bool_]) -> int | None:
    """Return the number of successive saturated points, or None."""
    if np.count_nonzero(at_maximum) < _MIN_SATURATED_POINTS:
        return None
    length = _longest_run(at_maximum)
    rest = channel[~at_maximum]
    if length < _MIN_SATURATED_POINTS or rest.size < 2 * _MIN_SATURATED_POINTS:
        return None
    return length if np.unique(rest).size >= _MIN_DISTINCT_FRACTION * rest.size else None


def _longest_run(mask: NDArray[np.bool_]) -> int:
    """Return the length of the longest run of True values."""
    borders = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False]))))
    return int((borders[1::2] - borders[::2]).max()) if borders.size else 0
