"""Explains how the agent reads a stream; for a stream that it does not read, guesses the roles of the fields."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..fields import (
    Bragg,
    FieldSettings,
    StreamFields,
    UnreadableStream,
    energy_candidates,
    is_scalar,
    likely_keys,
    match_keys,
    match_synonyms,
    may_be_intensity,
    plain_name,
    resolve,
    scanned_motors,
    unit_to_ev,
)
from ..stream import guess_energy, prefer_readback, scale_to_ev
from ..types import Array, Formula, all_edges
from .steps import EdgeMatch, Steps, find_steps, suggest_edges
from .streams import StreamSummary

ROLES = ("energy", "position", "i0", "it", "iref", "fluorescence", "mu", "reference", "time")
"""Roles in the order in which they are shown."""
_DETECTORS = ("i0", "it", "iref", "fluorescence")
_MIN_FURTHER_FALL = 1.05
"""Smallest ratio of the fall of Iref at the edge to the fall of It."""
_MIN_PART_OF_DEEPEST = 0.1
"""Smallest change at the edge that is the sample's, relative to the deepest fall."""
_MIN_RANGE_EV = 20.0
"""Smallest range of energies of a scan, eV."""
_ANGLES_DEG = (1.0, 89.0)
_CRYSTALS: Mapping[str, float] = {"Si(111)": 3.1356, "Si(311)": 1.6375, "Si(220)": 1.9201}
"""Spacing of the reflecting planes of common monochromators, Å; the most common comes first."""


@dataclass(frozen=True, slots=True)
class RoleFound:
    """The fields of one role, and the reason for this role."""

    role: str
    keys: tuple[str, ...]
    why: str
    alternatives: tuple[str, ...] = ()
    """Other fields that may have this role."""


@dataclass(slots=True)
class Reading:
    """How a stream is read, or could be read."""

    stream: StreamSummary
    as_it_is: bool = False
    """Whether the agent reads the stream with the given settings."""
    refusal: str = ""
    """Why the agent refuses the stream; empty if it does not."""
    roles: dict[str, RoleFound] = field(default_factory=dict)
    formula: Formula | None = None
    relation: Mapping[str, Any] | None = None
    """Settings that convert the position to energy."""
    energies: Array = field(default_factory=lambda: np.empty(0))
    """(M,) energies, eV; empty if unknown."""
    edges: list[EdgeMatch] = field(default_factory=list)
    """Edges that the energies suggest, the likeliest first."""
    edge_seen: bool = False
    """Whether a field changes at the first of ``edges``."""

    @property
    def missing(self) -> list[str]:
        """Parts of a spectrum that the stream lacks, in words."""
        lacks = [] if self.roles.keys() & {"energy", "position"} else ["energy"]
        if "mu" not in self.roles:
            lacks += [] if "i0" in self.roles else ["I0"]
            lacks += [] if self.roles.keys() & {"it", "fluorescence"} else ["It or If (or μ)"]
        return lacks


@np.errstate(all="ignore")
def explain(stream: StreamSummary, settings: FieldSettings) -> Reading:
    """Return how a stream is read with these settings or, if it is not read, the likely roles of its fields.

    Parameters
    ----------
    stream : StreamSummary
    settings : FieldSettings

    Returns
    -------
    Reading
    """
    reading = Reading(stream)
    resolved = resolve(settings, stream.descriptor, stream.run.start)
    guessed = None
    if not isinstance(resolved, StreamFields) or (resolved.energy is None and resolved.grid is None):
        candidates = energy_candidates(settings, stream.descriptor, stream.run.start)
        columns = {key: stream.column(key) for key in candidates}
        units = {key: about.get("units") for key, about in stream.keys.items()}
        absorber = (stream.run.element, stream.run.edge)
        guessed = guess_energy(candidates, columns, units, absorber, settings.min_points)
    if isinstance(resolved, UnreadableStream):
        reading.refusal = f"{resolved.reason}: {resolved.detail}"
    fields = guessed or (resolved if isinstance(resolved, StreamFields) else None)
    axis_known = fields is not None and (fields.energy is not None or fields.grid is not None)
    if fields is not None and axis_known and fields.formula is not None and settings.reads(stream.name):
        _take_read_fields(reading, fields, settings, guessed=guessed is not None)
    else:
        _guess_roles(reading, settings)
    return reading


def _take_read_fields(reading: Reading, fields: StreamFields, settings: FieldSettings, *, guessed: bool) -> None:
    """Describe the fields with which the agent reads a stream."""
    reading.as_it_is = True
    reading.formula = fields.formula
    named = {
        role: (key,) if isinstance(key, str) else tuple(key or ())
        for role in ROLES
        if role != "position" and (key := getattr(fields, role))
    }
    for role, keys in named.items():
        shown = "position" if role == "energy" and fields.axis is not None else role
        why = "its values are energies" if role == "energy" and guessed else _why(shown, settings)
        reading.roles[shown] = RoleFound(shown, keys, why)
    if fields.grid is not None:
        reading.roles["energy"] = RoleFound("energy", (), "in the configuration of the descriptor")
        reading.energies = fields.grid
    elif fields.energy is not None:
        reading.energies = np.asarray(fields.in_ev(reading.stream.column(fields.energy)), dtype=np.float64)
    _find_edge(reading, _steps(reading, settings))


def _why(role: str, settings: FieldSettings) -> str:
    if getattr(settings, role, None):
        return "named in the config"
    return "a usual name"


def _guess_roles(reading: Reading, settings: FieldSettings) -> None:
    """Guess the roles of the fields by configured and usual names, the plan's motors, likely names and the values."""
    stream = reading.stream
    numeric = [k for k, about in stream.keys.items() if about.get("dtype") in ("number", "integer", "array")]
    if axis := _guess_axis(reading, numeric, settings):
        reading.roles[axis.role] = axis
    steps = _steps(reading, settings)
    _find_edge(reading, steps)
    form = is_scalar(stream.keys[axis.keys[0]]) if axis and axis.keys else True
    pool = [key for key in numeric if is_scalar(stream.keys[key]) == form and not (axis and key in axis.keys)]
    for role in ("mu", *_DETECTORS):
        if found := _guess_by_name(role, pool, settings):
            reading.roles[role] = found
    _guess_by_steps(reading, steps, pool)
    has = reading.roles.keys()
    if "i0" in has and "it" in has:
        reading.formula = "transmission"
    elif "i0" in has and "fluorescence" in has:
        reading.formula = "fluorescence"
    elif "mu" in has:
        reading.formula = "mu"


def _guess_axis(reading: Reading, numeric: list[str], settings: FieldSettings) -> RoleFound | None:
    """Return the field of the energies, or of the angles of the monochromator."""
    stream = reading.stream
    motors = scanned_motors(stream.run.start, numeric)
    if settings.energy and (keys := match_keys(settings.energy, numeric)):
        reading.energies = stream.column(keys[0])
        return RoleFound("energy", (keys[0],), "named in the config", tuple(keys[1:]))
    scales: dict[str, float] = {}
    for absorber in ((stream.run.element, stream.run.edge), (None, None)):
        for key in numeric:
            unit, column = stream.keys[key].get("units"), stream.column(key)
            scale = scale_to_ev(key, column, unit, absorber, settings.min_points, by_name=False)
            turns = not unit and scale == 1000.0 and _may_be_angle(key)
            if scale is not None and not turns and np.ptp(column) * scale >= _MIN_RANGE_EV:
                scales[key] = scale
        if scales:
            break
    usual = [key for key in match_synonyms("energy", numeric) if key in scales or not stream.rows]
    moved = [key for key in scales if key in motors]
    likely = usual or moved or [key for key in scales if not likely_keys("i0", [key])]
    angle = None if likely else _guess_angle(reading, [*motors, *(key for key in numeric if key not in motors)])
    likely = likely or ([] if angle else list(scales))
    if likely:
        key, *others = sorted(likely, key=lambda key: key not in prefer_readback(likely))
        reading.energies = stream.column(key) * scales.get(key, 1.0)
        why = "a usual name" if usual else "the motor of the plan; its values are energies"
        why = why if usual or moved else "its values are energies"
        if scales.get(key) == 1000.0 and unit_to_ev(stream.keys[key].get("units")) != 1000.0:
            reading.relation = {"kind": "polynomial", "coefficients_ev": [0.0, 1000.0]}
            return RoleFound("position", (key,), f"{why}, in keV", tuple(others))
        return RoleFound("energy", (key,), why, tuple(others))
    return angle


def _guess_angle(reading: Reading, keys: Iterable[str]) -> RoleFound | None:
    """Return the first field whose name or unit, and values, are typical of Bragg angles."""
    low, high = _ANGLES_DEG
    for key in keys:
        angles, unit = reading.stream.column(key), str(reading.stream.keys[key].get("units") or "").lower()
        named = unit.startswith("deg") or _may_be_angle(key)
        if named and angles.size and low < angles.min() < angles.max() < high:
            crystal = _set_bragg(reading, angles)
            return RoleFound("position", (key,), f"its values are angles; the crystal is assumed to be {crystal}")
    return None


def _may_be_angle(key: str) -> bool:
    return any(word in plain_name(key) for word in ("bragg", "theta", "angle"))


def _set_bragg(reading: Reading, angles: Array) -> str:
    """Convert angles to energies with the crystal that fits the run's edge; return the crystal's name."""
    edges = [at for name, edge, at in all_edges() if name == reading.stream.run.element and edge in ("K", "L3")]
    energies = {name: Bragg(d_spacing_ang=d).energy(angles, 0.0) for name, d in _CRYSTALS.items()}
    fitting = [name for name, e in energies.items() if any(e.min() < at < e.max() for at in edges)]
    crystal = (fitting or list(_CRYSTALS))[0]
    reading.energies = energies[crystal]
    reading.relation = {"kind": "bragg", "d_spacing_ang": _CRYSTALS[crystal]}
    return crystal


def _guess_by_name(role: str, pool: list[str], settings: FieldSettings) -> RoleFound | None:
    """Return the fields that a configured, usual or likely name assigns to a role; None for none or several."""
    configured = getattr(settings, role)
    names = (configured,) if isinstance(configured, str) else configured or ()
    if keys := tuple(key for name in names for key in match_keys(name, pool)):
        return RoleFound(role, keys, "named in the config")
    for matches, why in (
        (match_synonyms(role, pool), "a usual name"),
        (likely_keys(role, pool), "its name suggests it"),
    ):
        if len(matches) == 1 or (matches and role == "fluorescence"):
            return RoleFound(role, tuple(matches), why)
    return None


def _guess_by_steps(reading: Reading, steps: Steps, pool: Iterable[str]) -> None:
    """Assign roles without a matching name to fields that fall, rise or stay flat at the edge."""
    roles = reading.roles
    taken = {key for found in roles.values() for key in found.keys}
    may_be = [key for key in pool if key not in taken and may_be_intensity(key)]
    free = [key for key in may_be if key in steps.intensities]
    deepest = max((-steps.steps.get(key, 0.0) for key in free), default=0.0)
    # A small change of the beam along the scan is not the sample's if another field shows a real edge.
    weak = {key for key in free if key in steps.steps and abs(steps.steps[key]) < _MIN_PART_OF_DEEPEST * deepest}
    free = [key for key in free if key not in weak]
    falls = sorted((key for key in free if steps.steps.get(key, 0.0) < 0), key=lambda key: -steps.steps[key])
    rises = sorted((key for key in free if steps.steps.get(key, 0.0) > 0), key=lambda key: -steps.steps[key])
    if "mu" in roles:
        return
    if "it" not in roles and falls:
        key, *others = falls
        roles["it"] = _by_step("it", (key,), steps, others)
        falls = others
    if "iref" not in roles and "it" in roles:
        least = _MIN_FURTHER_FALL * abs(steps.steps.get(roles["it"].keys[0], 0.0))
        deeper = [key for key in falls if -steps.steps[key] > least]
        if least and deeper:
            roles["iref"] = _by_step("iref", (deeper[0],), steps, deeper[1:])
    if "fluorescence" not in roles and rises and "it" not in roles:
        alike = [key for key in free if key in rises and _stem(key) == _stem(rises[0])]
        roles["fluorescence"] = _by_step("fluorescence", tuple(alike), steps, [k for k in rises if k not in alike])
    signal = roles.get("it") or roles.get("fluorescence")
    level = {**steps.flat, **{key: steps.logs[key] for key in weak}}
    flat = [key for key in may_be if key in steps.intensities and key in level]
    if "i0" not in roles and signal is not None and flat and signal.keys[0] in steps.logs:
        # Fluctuations of the beam are common to I0 and the signal, so that they cancel in the ratio.
        log = steps.logs[signal.keys[0]]
        rough = {key: float(np.abs(np.diff(log - level[key])).sum()) for key in flat}
        key, *others = sorted(flat, key=rough.__getitem__)
        roles["i0"] = RoleFound("i0", (key,), "no step at the edge, and the smoothest ratio", tuple(others[:3]))
    rising = [*rises, *(key for key in may_be if steps.steps.get(key, 0.0) > 0 and key not in rises)]
    if "i0" not in roles and "it" not in roles and rising:
        roles.pop("fluorescence", None)
        roles["mu"] = _by_step("mu", (rising[0],), steps, rising[1:])


def _by_step(role: str, keys: tuple[str, ...], steps: Steps, others: list[str]) -> RoleFound:
    change = steps.steps[keys[0]]
    word = ("their sum " if len(keys) > 1 else "") + ("falls" if change < 0 else "rises")
    why = f"{word} by {abs(np.expm1(change)):.0%} at the edge" if role != "mu" else f"{word} at the edge, and no I0"
    return RoleFound(role, keys, why, tuple(others[:3]))


def _stem(key: str) -> str:
    return "".join(c for c in plain_name(key) if not c.isdigit())


def _steps(reading: Reading, settings: FieldSettings) -> Steps:
    """Find the steps of the fields that may be intensities or absorption."""
    stream, axis = reading.stream, reading.roles.get("energy") or reading.roles.get("position")
    if not reading.energies.size or not np.isfinite(reading.energies).all():
        return Steps(None, {}, {}, {}, frozenset())
    taken = {key for found in (axis,) if found for key in found.keys}
    columns: Mapping[str, Array] = {
        key: column
        for key in stream.keys
        if key not in taken
        and may_be_intensity(key)
        and (column := stream.column(key)).size == reading.energies.size >= settings.min_points
    }
    return find_steps(reading.energies, columns)


def _find_edge(reading: Reading, steps: Steps) -> None:
    """Set the edges that the energies suggest; those of the run's element come first."""
    energies = reading.energies[np.isfinite(reading.energies)]
    if not energies.size:
        return
    reading.edge_seen = steps.e0_ev is not None
    reading.edges = suggest_edges(float(energies.min()), float(energies.max()), steps.e0_ev)
    element, edge = reading.stream.run.element, reading.stream.run.edge
    reading.edges.sort(key=lambda found: (found.element != element, edge is not None and found.edge != edge))
