"""Finds the energies of a stream by their values, if the field names do not identify them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..fields import MAX_ENERGY_RATIO, XRAYS_EV, XRAYS_KEV, StreamFields, plain_name, plain_unit
from ..types import Array, TableError, edge_ev
from .sweeps import split_sweeps

_MONOCHROMATOR = re.compile(r"(^|_)(mono\w*|dcm\w*|hhm\w*|pgm\w*|energy|en|e|x?ev|kev)(_|$)")
_TARGET = re.compile(r"(^|_)(set_?point|request\w*|target|nominal|sp)(_|$)")


def guess_energy(
    candidates: Mapping[str, StreamFields],
    columns: Mapping[str, Array],
    units: Mapping[str, Any],
    absorber: tuple[str | None, str | None],
    min_points: int,
) -> StreamFields | None:
    """Return the candidate whose values are energies of a spectrum; None unless there is exactly one.

    The values must cover the run's absorption edge. If the edge is unknown, the unit or the name of the field must
    also be that of an energy. A readback takes precedence over its setpoint.

    Parameters
    ----------
    candidates : fields of the stream, by the data key of the energy
    columns : values of these data keys, (M,) each, in the order of acquisition
    units : units of these data keys in the descriptor
    absorber : element and edge of the run, as far as they are known
    min_points : smallest number of points in a sweep
    """
    scales = {key: scale_to_ev(key, columns[key], units.get(key), absorber, min_points) for key in candidates}
    found = prefer_readback([key for key, scale in scales.items() if scale is not None])
    if len(found) != 1:
        return None
    return replace(candidates[found[0]], energy_scale=scales[found[0]] or 1.0, unit_known=True)


def prefer_readback(keys: Sequence[str]) -> list[str]:
    """Return the keys of readbacks, if any, and among these the keys of monochromators, if any."""
    found = list(keys)
    for preferred in (lambda name: not _TARGET.search(name), _MONOCHROMATOR.search):
        found = [key for key in found if preferred(plain_name(key))] or found
    return found


def scale_to_ev(
    key: str,
    values: Array,
    unit: Any,
    absorber: tuple[str | None, str | None],
    min_points: int,
    *,
    by_name: bool = True,
) -> float | None:
    """Return the factor that converts a column of energies to eV; None if it does not hold energies.

    Parameters
    ----------
    key : data key of the column
    values : (M,) in the order of acquisition
    unit : unit in the descriptor, or None
    absorber : element and edge of the run, as far as they are known
    min_points : smallest number of points in a sweep
    by_name : whether a column of an unknown element needs the unit or the name of an energy
    """
    unit = plain_unit(unit)
    if unit not in ("", "ev", "kev") or values.size < min_points or not np.isfinite(values).all():
        return None
    low, high = float(values.min()), float(values.max())
    if not 0 < low < high <= MAX_ENERGY_RATIO * low or len(split_sweeps(values)) > values.size / min_points:
        return None
    scale = next((s for s, (a, b) in ((1000.0, XRAYS_KEV), (1.0, XRAYS_EV)) if a <= low and high <= b), None)
    if unit and scale is not None:
        scale = 1000.0 if unit == "kev" else 1.0
    if scale is None:
        return None
    element, edge = absorber
    edges = _edges(element, edge)
    if edges:
        return scale if any(low * scale < at < high * scale for at in edges) else None
    return scale if unit or not by_name or _MONOCHROMATOR.search(plain_name(key)) else None


def _edges(element: str | None, edge: str | None) -> list[float]:
    """Return the tabulated edges, eV, that a run may measure; empty if the element is unknown."""
    energies = []
    for name in (edge,) if edge else ("K", "L3", "L2", "L1"):
        try:
            energies.append(edge_ev(element or "", name))
        except TableError:
            continue
    return energies
