"""Finds the fields of a stream (energy, I0, It, Iref, fluorescence, μ) by configured or usual names.

The usual names come from public beamline profiles (NSLS-II BMM, ISS, QAS and SST-1, APS Haven) and from XDI.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..types import Array, Formula, Reason
from .energy_unit import are_kev, unit_to_ev
from .form import NUMERIC, is_scalar
from .monochromator import RELATION_EXAMPLE, EnergyAxis
from .names import (
    SYNONYMS,
    AmbiguousFieldError,
    element_channels,
    is_pattern,
    match_keys,
    match_one,
    match_synonyms,
    plain_name,
)
from .run_start import find_no_foil, first_value, nested_value
from .settings import FieldSettings
from .watched import element_and_edge

Form = Literal["step", "array"]


@dataclass(frozen=True, slots=True)
class StreamFields:
    """The data keys of one descriptor, by role."""

    form: Form
    """``step``: one energy per Event; ``array``: one spectrum per Event."""
    formula: Formula | None
    """Formula of the absorption; None if the stream holds only the energies for another stream's spectra."""
    energy: str | None
    """Data key of the energy; None if ``grid`` or another stream holds the energies."""
    energy_scale: float = 1.0
    """Factor that converts the recorded energy to eV."""
    unit_known: bool = True
    """Whether the descriptor states the unit of the energies; if not, their values show whether it is keV."""
    axis: EnergyAxis | None = None
    """Conversion to eV if ``energy`` holds positions."""
    time: str | None = None
    i0: str | None = None
    it: str | None = None
    iref: str | None = None
    fluorescence: tuple[str, ...] = ()
    mu: str | None = None
    reference: str | None = None
    readings: tuple[str, ...] = ()
    """Other scalar data keys, at most ``MAX_READINGS``."""
    reading_units: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Units of the readings, if their data keys state one."""
    grid: Array | None = field(default=None, compare=False)
    """(M,) energies, eV, from the descriptor's configuration."""

    def in_ev(self, recorded: Any) -> Any:
        """Convert recorded energies or positions to eV."""
        if self.axis is not None:
            return self.axis(recorded)
        if not self.unit_known and isinstance(recorded, np.ndarray) and are_kev(recorded):
            return recorded * 1000.0
        return recorded * self.energy_scale

    @property
    def used(self) -> frozenset[str]:
        """The data keys that contribute to a spectrum."""
        keys = (self.energy, self.time, self.i0, self.it, self.iref, self.mu, self.reference, *self.fluorescence)
        return frozenset(key for key in keys if key)

    def describe(self) -> str:
        """Return the formula and the fields in words: ``transmission of I0, It over energy``."""
        keys = [self.i0, self.it, self.iref, *self.fluorescence, self.mu, self.reference]
        energy = self.energy or ("energies of the configuration" if self.grid is not None else "another stream")
        return f"{self.formula or 'energies'} of {', '.join(key for key in keys if key) or 'none'} over {energy}"


@dataclass(frozen=True, slots=True)
class UnreadableStream:
    """The reason why a stream of absorption data cannot be read."""

    reason: Reason
    detail: str


MAX_READINGS = 500
"""Largest number of readings that the frames of a stream carry; each is averaged over each sweep."""
MAX_ENERGY_CANDIDATES = 128
"""Largest number of data keys among which the energy is sought by values; the work grows with its square."""

FOIL_ROLES = ("iref", "reference")
"""The roles of the reference foil; a frame can be served without them."""
_ESSENTIAL = ("energy", "i0", "it", "fluorescence", "mu")
_SIGNAL: Mapping[Formula, str] = {
    "transmission": "it",
    "fluorescence": "fluorescence",
    "mu": "mu",
    "normalised": "mu",
}


def _fluorescence(
    fields: FieldSettings, keys: list[str], start: Mapping[str, Any], element: str | None
) -> tuple[str, ...]:
    listed = nested_value(start, "XDI", "_dtc")
    listed = tuple(listed) if isinstance(listed, (list, tuple)) and all(name in keys for name in listed) else ()
    if fields.fluorescence:
        matches = [match_keys(name, keys, element) for name in fields.fluorescence]
        if any(len(m) > 1 and not is_pattern(name) for name, m in zip(fields.fluorescence, matches, strict=True)):
            raise AmbiguousFieldError("fluorescence", max(matches, key=len))
        configured = tuple(dict.fromkeys(key for m in matches for key in m)) if all(matches) else ()
        return listed if listed and set(listed) <= set(configured) else configured
    if listed:
        return listed
    # BMM names its dead-time corrected regions of interest after the element.
    return tuple(element_channels(element, keys) or match_synonyms("fluorescence", keys))


def resolve(
    fields: FieldSettings, descriptor: Mapping[str, Any], start: Mapping[str, Any]
) -> StreamFields | UnreadableStream | None:
    """Find the fields of a spectrum in a descriptor.

    Returns
    -------
    StreamFields
        The stream has spectra, or the energies of spectra.
    UnreadableStream
        The stream has only part of a spectrum, lacks a configured field, has several fields for one role, has
        positions without a relation to energy, or has spectra in files that no stage reads.
    None
        The stream has no energy and no absorption.
    """
    name = str(descriptor.get("name", "primary"))
    if not fields.reads(name):
        return None
    all_keys: Mapping[str, Mapping[str, Any]] = descriptor["data_keys"]
    keys = {key: about for key, about in all_keys.items() if not about.get("external")}
    try:
        resolved = _resolve(fields, keys, descriptor, start)
        missing = _missing_names(fields, resolved, keys, descriptor, start)
    except AmbiguousFieldError as error:
        return UnreadableStream(Reason.AMBIGUOUS_FIELDS, f"stream {name}: {error}")
    if len(keys) < len(all_keys) and not (isinstance(resolved, StreamFields) and resolved.formula):
        external = ", ".join(key for key in all_keys if key not in keys)
        return UnreadableStream(Reason.EXTERNAL_DATA_NOT_READ, f"stream {name}: {external}")
    return describe_missing_fields(missing, (name,), all_keys) if missing else resolved


def energy_candidates(
    fields: FieldSettings, descriptor: Mapping[str, Any], start: Mapping[str, Any]
) -> dict[str, StreamFields]:
    """Return, for each data key that may hold the energy, the fields of the stream.

    Empty if the energy or the position is configured, if the stream has no intensities, or if it has more than
    ``MAX_ENERGY_CANDIDATES`` data keys.
    """
    if fields.energy is not None or fields.position is not None:
        return {}
    if len(descriptor["data_keys"]) > MAX_ENERGY_CANDIDATES:
        return {}
    found = {}
    for key in descriptor["data_keys"]:
        if not is_pattern(key):
            resolved = resolve(fields.model_copy(update={"energy": key}), descriptor, start)
            if isinstance(resolved, StreamFields) and resolved.formula and resolved.energy == key:
                found[key] = resolved
    return found


def find_missing_fields(
    fields: FieldSettings, descriptors: Iterable[Mapping[str, Any]], roles: Iterable[str] = _ESSENTIAL
) -> dict[str, str]:
    """Return, by role, the configured names that none of ``descriptors`` has as a data key."""
    data, axes = set[str](), set[str]()
    for descriptor in descriptors:
        data |= set(descriptor["data_keys"])
        for recorded, _ in _configurations(descriptor):
            axes |= set(recorded)
    missing = {}
    for role in roles:
        configured = getattr(fields, role) or ()
        names = (configured,) if isinstance(configured, str) else configured
        if role == "energy" and fields.position and match_keys(fields.position, data):
            continue
        unmatched = [name for name in names if not match_keys(name, data | axes if role == "energy" else data)]
        missing |= {role: ", ".join(unmatched)} if unmatched else {}
    return missing


def has_i0(fields: FieldSettings, keys: Iterable[str]) -> bool:
    """Return whether one of the data keys is I0."""
    keys = list(keys)
    return bool(match_synonyms("i0", keys)) or (fields.i0 is not None and bool(match_keys(fields.i0, keys)))


def describe_missing_fields(names: Iterable[str], streams: Iterable[str], found: Iterable[str]) -> UnreadableStream:
    """Report that all ``streams`` lack configured data keys; list the data keys found in them."""
    missing = ", ".join(f"'{name}'" for name in names)
    present = ", ".join(found) or "nothing"
    detail = f"no key {missing} in stream {', '.join(streams)}; found {present}"
    return UnreadableStream(Reason.FIELD_MISSING, detail[:500])


def _missing_names(
    fields: FieldSettings,
    resolved: StreamFields | UnreadableStream | None,
    keys: Mapping[str, Mapping[str, Any]],
    descriptor: Mapping[str, Any],
    start: Mapping[str, Any],
) -> list[str]:
    """Return the configured names that a stream of spectra lacks and needs to be read as configured.

    A configuration may name more signals than a scan records; one of them is enough. Detection of the missing fields
    by their usual names shows whether the stream holds spectra at all.
    """
    missing = find_missing_fields(fields, [descriptor])
    if not missing:
        return []
    remaining = fields.model_copy(update={role: () if role == "fluorescence" else None for role in missing})
    detected = _resolve(remaining, keys, descriptor, start)
    prevented = resolved is not None or isinstance(detected, StreamFields)
    if isinstance(resolved, StreamFields):
        signal = set(missing) == {"energy"} or resolved.formula is None or getattr(fields, _SIGNAL[resolved.formula])
        energy = isinstance(detected, StreamFields) and (detected.energy is not None or detected.grid is not None)
        prevented = not signal or ("energy" in missing and energy)
    return list(missing.values()) if prevented else []


def _setpoint_of(axis: str) -> re.Pattern[str]:
    """Return a pattern for the setpoint of an axis, such as ``mono_user_setpoint`` for ``mono_readback``.

    The setpoint repeats the axis and does not describe the sample's state.
    """
    device = re.sub(r"_(user_)?(readback|rbv|value)$", "", plain_name(axis))
    return re.compile(rf"^{re.escape(device)}_(user_)?setpoint$")


def _resolve(
    fields: FieldSettings,
    keys: Mapping[str, Mapping[str, Any]],
    descriptor: Mapping[str, Any],
    start: Mapping[str, Any],
) -> StreamFields | UnreadableStream | None:
    numeric = {key: is_scalar(about) for key, about in keys.items() if about.get("dtype") in NUMERIC}
    scalar = [key for key, is_one in numeric.items() if is_one]
    vector = [key for key, is_one in numeric.items() if not is_one]
    position = match_one("position", fields.position, numeric) if fields.position else None
    energy = position or match_one("energy", fields.energy, numeric)
    grid = None
    if energy is None:
        grid = _configured_energies(fields, descriptor)
    elif position is None and fields.energy is None and energy in scalar:
        # An array of energies next to the motor's scalar energy is the axis of a whole spectrum.
        energy = match_one("energy", None, match_synonyms("energy", vector)) or energy
    form: Form = "step" if energy in scalar else "array"
    usable = [key for key in (scalar if form == "step" else vector) if key != energy]
    signals = _signals(fields, usable, start)
    time = match_one("time", fields.time, numeric) if fields.time else None
    used = {energy, time, *(v for k, v in signals.items() if k != "fluorescence"), *signals.get("fluorescence", ())}
    unused = {key: plain_name(key) for key in scalar if key not in used}
    energies = [*SYNONYMS["energy"].patterns, *([_setpoint_of(energy)] if energy else [])]
    readings = tuple(key for key, name in unused.items() if not any(p.search(name) for p in energies))[:MAX_READINGS]
    if signals.get("formula") is None:
        if energy is None:
            return None
        if form == "step" or usable:
            help_ = "; name fields.i0 and fields.it, fields.fluorescence or fields.mu" if usable else ""
            detail = f"{energy} came with {', '.join(usable) or 'nothing else'}"
            return UnreadableStream(Reason.NO_ABSORPTION_FIELDS, detail[:400] + help_)
    axis = None
    if position is not None:
        axis = _axis(fields, position, start)
        if isinstance(axis, UnreadableStream):
            return axis
    scale = unit_to_ev(keys[energy].get("units")) if energy else 1.0
    return StreamFields(
        form=form,
        energy=energy,
        energy_scale=scale or 1.0,
        unit_known=scale is not None,
        axis=axis,
        time=time,
        readings=readings,
        reading_units={key: str(unit) for key in readings if (unit := keys[key].get("units"))},
        grid=grid,
        **signals,
    )


def _axis(fields: FieldSettings, position: str, start: Mapping[str, Any]) -> EnergyAxis | UnreadableStream:
    """Return the conversion of positions to energies in this run."""
    if fields.relation is None:
        detail = f"{position} is a position without a relation to energy: declare {RELATION_EXAMPLE}"
        return UnreadableStream(Reason.NO_ENERGY_RELATION, detail)
    offset = fields.relation.offset(start)
    if offset is None:
        key = getattr(fields.relation, "offset_from", None)
        return UnreadableStream(
            Reason.NO_ENERGY_RELATION, f"the RunStart has no number {key!r} for the angle's offset"
        )
    return EnergyAxis(fields.relation, offset)


def _signals(fields: FieldSettings, keys: list[str], start: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the formula and its fields; ``formula`` is None if no formula has all of its fields."""
    element, _ = element_and_edge(fields, start)
    i0 = match_one("i0", fields.i0, keys, element)
    it = match_one("it", fields.it, keys, element)
    fluorescence = _fluorescence(fields, keys, start, element)
    mu = match_one("mu", fields.mu, keys)
    normalised = match_one("normalised", fields.mu, keys)
    complete = {
        "transmission": bool(i0 and it),
        "fluorescence": bool(i0 and fluorescence),
        "mu": bool(mu),
        "normalised": bool(normalised),
    }
    formula: str | None
    if fields.formula is not None:
        formula = fields.formula if complete[fields.formula] else None
    else:
        preferred = _preferred_formula(fields, start)
        order = sorted(complete, key=lambda name: name != preferred)
        formula = next((name for name in order if complete[name]), None)
    chosen: dict[str, Any] = {"formula": formula}
    if formula in ("transmission", "fluorescence"):
        chosen["i0"] = i0
    if formula == "transmission":
        chosen["it"] = it
    if formula == "fluorescence":
        chosen["fluorescence"] = fluorescence
    if formula in ("mu", "normalised"):
        chosen["mu"] = mu if formula == "mu" else normalised
    return chosen | (_reference(fields, keys, it) if formula and not find_no_foil(start) else {})


def _preferred_formula(fields: FieldSettings, start: Mapping[str, Any]) -> str:
    """Return the formula that the configured fields imply, or otherwise the mode in the RunStart."""
    if fields.mu:
        return "mu"
    if bool(fields.it) != bool(fields.fluorescence):
        return "transmission" if fields.it else "fluorescence"
    mode = str(first_value(start, ("XDI._mode", "XDI.mode", "mode", "detection_mode", "scan_mode"))).lower()
    return "fluorescence" if "fluo" in mode else "transmission"


def _reference(fields: FieldSettings, keys: list[str], it: str | None) -> dict[str, str | None]:
    """Return the fields of the optional reference foil; ambiguous ones are ignored."""
    try:
        if it and (iref := match_one("iref", fields.iref, keys)):
            return {"it": it, "iref": iref}
        return {"reference": match_one("reference", fields.reference, keys)}
    except AmbiguousFieldError:
        return {}


def _configured_energies(fields: FieldSettings, descriptor: Mapping[str, Any]) -> Array | None:
    """Return the energies, (M,) eV, in a device's configuration, as of a dispersive spectrometer, or None."""
    for data, about in _configurations(descriptor):
        arrays = {key: value for key, value in data.items() if np.size(value) > 1 and not isinstance(value, str)}
        if key := match_one("energy", fields.energy, arrays):
            values = np.asarray(arrays[key], dtype=np.float64).reshape(-1)
            scale = unit_to_ev(about.get(key, {}).get("units")) or (1000.0 if are_kev(values) else 1.0)
            return values * scale
    return None


def _configurations(descriptor: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Yield the data and data keys of each device's configuration; skip entries that are not mappings."""
    devices = descriptor.get("configuration")
    for device in devices.values() if isinstance(devices, Mapping) else ():
        data, about = (device.get("data"), device.get("data_keys")) if isinstance(device, Mapping) else (None, None)
        if isinstance(data, Mapping):
            yield data, about if isinstance(about, Mapping) else {}
