"""Which fields of a stream are energy, I0, It, Iref, fluorescence or μ: as configured, else as usually named.

The usual names are those of public beamline profiles (NSLS-II BMM, ISS, QAS and SST-1, APS Haven) and of XDI.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from ..types import Array, Formula, Reason
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
from .run_start import first_value, nested_value, parse_absorber
from .settings import FieldSettings

Form = Literal["step", "array"]


@dataclass(frozen=True, slots=True)
class StreamFields:
    """The fields of one descriptor, by their role."""

    form: Form
    """``step``: one energy per Event; ``array``: one spectrum per Event."""
    formula: Formula | None
    """None: the stream has energies alone, for the spectra of another stream of its run."""
    energy: str | None
    """None: the energies are ``grid``, or those of another stream."""
    energy_scale: float = 1.0
    """What turns the recorded energy into eV."""
    axis: EnergyAxis | None = None
    """What does so where ``energy`` is a position."""
    time: str | None = None
    i0: str | None = None
    it: str | None = None
    iref: str | None = None
    fluorescence: tuple[str, ...] = ()
    mu: str | None = None
    reference: str | None = None
    readings: tuple[str, ...] = ()
    """The scalar numbers besides."""
    grid: Array | None = field(default=None, compare=False)
    """(M,) eV, from the descriptor's configuration."""

    def in_ev(self, recorded: Any) -> Any:
        """Turn recorded energies, or positions, into eV."""
        return recorded * self.energy_scale if self.axis is None else self.axis(recorded)

    @property
    def used(self) -> frozenset[str]:
        """The data keys that a spectrum is made of."""
        named = (self.energy, self.time, self.i0, self.it, self.iref, self.mu, self.reference, *self.fluorescence)
        return frozenset(name for name in named if name)

    def describe(self) -> str:
        """Say in words what is read, for the log: ``transmission of I0, It over energy``."""
        named = [self.i0, self.it, self.iref, *self.fluorescence, self.mu, self.reference]
        energy = self.energy or ("energies of the configuration" if self.grid is not None else "another stream")
        return f"{self.formula or 'energies'} of {', '.join(n for n in named if n) or 'none'} over {energy}"


@dataclass(frozen=True, slots=True)
class UnreadableStream:
    """Why a stream that looks like absorption data cannot be read."""

    reason: Reason
    detail: str


FOIL_ROLES = ("iref", "reference")
"""The roles that a frame can do without."""
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
        named = [match_keys(name, keys, element) for name in fields.fluorescence]
        if any(
            len(found) > 1 and not is_pattern(name) for name, found in zip(fields.fluorescence, named, strict=True)
        ):
            raise AmbiguousFieldError("fluorescence", max(named, key=len))
        found = tuple(dict.fromkeys(key for keys in named for key in keys)) if all(named) else ()
        return listed if listed and set(listed) <= set(found) else found
    if listed:
        return listed
    # BMM names its dead-time corrected regions of interest after the element.
    return tuple(element_channels(element, keys) or match_synonyms("fluorescence", keys))


def resolve(
    fields: FieldSettings, descriptor: Mapping[str, Any], start: Mapping[str, Any]
) -> StreamFields | UnreadableStream | None:
    """Find the fields of a spectrum in a descriptor.

    Returns None for a stream without energy or absorption, which is nobody's fault, and Unreadable for one that
    has part of it, that lacks a configured field, in which a role could be either of two fields, whose positions
    have no relation to energy, or whose spectra are in files that nobody has read.
    """
    name = str(descriptor.get("name", "primary"))
    if not fields.reads(name):
        return None
    every: Mapping[str, Mapping[str, Any]] = descriptor["data_keys"]
    keys = {key: about for key, about in every.items() if not about.get("external")}
    try:
        found = _resolve(fields, keys, descriptor, start)
        lacks = _lacks(fields, found, keys, descriptor, start)
    except AmbiguousFieldError as error:
        return UnreadableStream(Reason.AMBIGUOUS_FIELDS, f"stream {name}: {error}")
    if len(keys) < len(every) and not (isinstance(found, StreamFields) and found.formula):
        outside = ", ".join(key for key in every if key not in keys)
        return UnreadableStream(Reason.EXTERNAL_DATA_NOT_READ, f"stream {name}: {outside}")
    return describe_missing_fields(lacks, (name,), every) if lacks else found


def external_keys_of_spectra(
    fields: FieldSettings, descriptor: Mapping[str, Any], start: Mapping[str, Any]
) -> frozenset[str] | UnreadableStream:
    """Return the external data keys without which a descriptor's spectra cannot be read.

    None where there are no spectra, or where what is in the documents makes them already. Unreadable where they
    could not be read even so.
    """
    every: Mapping[str, Mapping[str, Any]] = descriptor["data_keys"]
    outside = frozenset(key for key, about in every.items() if about.get("external"))
    if not outside:
        return frozenset()
    if isinstance(found := resolve(fields, descriptor, start), StreamFields):
        return found.used & outside
    whole = resolve(fields, mark_filled(descriptor, outside), start)
    if isinstance(whole, StreamFields):
        return whole.used & outside
    return whole if isinstance(whole, UnreadableStream) else frozenset()


def mark_filled(descriptor: Mapping[str, Any], filled: Iterable[str]) -> dict[str, Any]:
    """Return a descriptor whose external keys ``filled`` are in its events."""
    filled = set(filled)
    keys = {
        key: {k: v for k, v in about.items() if k != "external"} if key in filled else about
        for key, about in descriptor["data_keys"].items()
    }
    return {**descriptor, "data_keys": keys}


def find_missing_fields(
    fields: FieldSettings, descriptors: Iterable[Mapping[str, Any]], roles: Iterable[str] = _ESSENTIAL
) -> dict[str, str]:
    """Return, by role, the configured names that are data keys of none of ``descriptors``."""
    data, axes = set[str](), set[str]()
    for descriptor in descriptors:
        data |= set(descriptor["data_keys"])
        for device in (descriptor.get("configuration") or {}).values():
            axes |= set(device.get("data") or {})
    missing = {}
    for role in roles:
        named = getattr(fields, role) or ()
        names = (named,) if isinstance(named, str) else named
        if role == "energy" and fields.position and match_keys(fields.position, data):
            continue
        lost = [name for name in names if not match_keys(name, data | axes if role == "energy" else data)]
        missing |= {role: ", ".join(lost)} if lost else {}
    return missing


def has_i0(fields: FieldSettings, keys: Iterable[str]) -> bool:
    """Whether one of the data keys is the intensity of the beam."""
    keys = list(keys)
    return bool(match_synonyms("i0", keys)) or (fields.i0 is not None and bool(match_keys(fields.i0, keys)))


def describe_missing_fields(names: Iterable[str], streams: Iterable[str], found: Iterable[str]) -> UnreadableStream:
    """Say that configured data keys are in none of ``streams``, and what was found there."""
    lacking = ", ".join(f"'{name}'" for name in names)
    there = ", ".join(found) or "nothing"
    return UnreadableStream(
        Reason.FIELD_MISSING, f"no key {lacking} in stream {', '.join(streams)}; found {there}"[:500]
    )


def _lacks(
    fields: FieldSettings,
    found: StreamFields | UnreadableStream | None,
    keys: Mapping[str, Mapping[str, Any]],
    descriptor: Mapping[str, Any],
    start: Mapping[str, Any],
) -> list[str]:
    """Return the configured data keys for want of which a stream of spectra is not read as configured.

    A configuration may name more signals than each scan records: one of them is enough. That a stream has spectra
    is told by what can be read of it when the missing keys are guessed.
    """
    missing = find_missing_fields(fields, [descriptor])
    if not missing:
        return []
    others = fields.model_copy(update={role: () if role == "fluorescence" else None for role in missing})
    guess = _resolve(others, keys, descriptor, start)
    lacks = found is not None or isinstance(guess, StreamFields)
    if isinstance(found, StreamFields):
        signal = set(missing) == {"energy"} or found.formula is None or getattr(fields, _SIGNAL[found.formula])
        energy = isinstance(guess, StreamFields) and (guess.energy is not None or guess.grid is not None)
        lacks = not signal or ("energy" in missing and energy)
    return list(missing.values()) if lacks else []


def _resolve(
    fields: FieldSettings,
    keys: Mapping[str, Mapping[str, Any]],
    descriptor: Mapping[str, Any],
    start: Mapping[str, Any],
) -> StreamFields | UnreadableStream | None:
    numeric = [key for key, about in keys.items() if about.get("dtype") in ("number", "integer", "array")]
    scalar = [key for key in numeric if is_scalar(keys[key])]
    vector = [key for key in numeric if key not in scalar]
    position = match_one("position", fields.position, numeric) if fields.position else None
    energy = position or match_one("energy", fields.energy, numeric)
    grid = None
    if energy is None:
        grid = _configured_energies(fields, descriptor)
    elif (
        position is None
        and fields.energy is None
        and energy in scalar
        and (arrays := match_synonyms("energy", vector))
    ):
        energy = match_one("energy", None, arrays)  # a whole spectrum beside the motor's position
    form: Form = "step" if energy in scalar else "array"
    usable = [key for key in (scalar if form == "step" else vector) if key != energy]
    channels = _channels(fields, usable, start)
    time = match_one("time", fields.time, numeric) if fields.time else None
    used = {energy, time, *(v for k, v in channels.items() if k != "fluorescence"), *channels.get("fluorescence", ())}
    energies = SYNONYMS["energy"].patterns
    readings = tuple(
        key for key in scalar if key not in used and not any(p.search(plain_name(key)) for p in energies)
    )
    if channels.get("formula") is None:
        if energy is None:
            return None
        if form == "step" or usable:
            return UnreadableStream(
                Reason.NO_ABSORPTION_FIELDS, f"{energy} came with {', '.join(usable) or 'nothing else'}"
            )
    axis = None
    if position is not None:
        axis = _axis(fields, position, start)
        if isinstance(axis, UnreadableStream):
            return axis
    scale = 1000.0 if energy and str(keys[energy].get("units", "")).lower() == "kev" else 1.0
    return StreamFields(
        form=form, energy=energy, energy_scale=scale, axis=axis, time=time, readings=readings, grid=grid, **channels
    )


def _axis(fields: FieldSettings, position: str, start: Mapping[str, Any]) -> EnergyAxis | UnreadableStream:
    """Return how positions become energies in this run."""
    if fields.relation is None:
        detail = f"{position} is a position, and nothing says how it becomes an energy: declare {RELATION_EXAMPLE}"
        return UnreadableStream(Reason.NO_ENERGY_RELATION, detail)
    offset = fields.relation.offset(start)
    if offset is None:
        lacking = getattr(fields.relation, "offset_from", None)
        return UnreadableStream(
            Reason.NO_ENERGY_RELATION, f"the RunStart has no number {lacking!r} for the angle's offset"
        )
    return EnergyAxis(fields.relation, offset)


def _channels(fields: FieldSettings, keys: list[str], start: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the formula and the fields that it takes; ``formula`` is None where none can be served."""
    element, _ = element_and_edge(fields, start)
    i0 = match_one("i0", fields.i0, keys, element)
    it = match_one("it", fields.it, keys, element)
    fluorescence = _fluorescence(fields, keys, start, element)
    plain = match_one("mu", fields.mu, keys)
    normalised = match_one("normalised", fields.mu, keys)
    served = {
        "transmission": bool(i0 and it),
        "fluorescence": bool(i0 and fluorescence),
        "mu": bool(plain),
        "normalised": bool(normalised),
    }
    formula: str | None
    if fields.formula is not None:
        formula = fields.formula if served[fields.formula] else None
    else:
        order = ["transmission", "fluorescence", "mu", "normalised"]
        wanted = _wanted(fields, start)
        order.sort(key=lambda name: name != wanted)
        formula = next((name for name in order if served[name]), None)
    chosen: dict[str, Any] = {"formula": formula}
    if formula in ("transmission", "fluorescence"):
        chosen["i0"] = i0
    if formula == "transmission":
        chosen["it"] = it
    if formula == "fluorescence":
        chosen["fluorescence"] = fluorescence
    if formula in ("mu", "normalised"):
        chosen["mu"] = plain if formula == "mu" else normalised
    return chosen | (_reference(fields, keys, it) if formula else {})


def _wanted(fields: FieldSettings, start: Mapping[str, Any]) -> str:
    """Return the formula that the configured fields, or else the mode in the RunStart, call for."""
    if fields.mu:
        return "mu"
    if bool(fields.it) != bool(fields.fluorescence):
        return "transmission" if fields.it else "fluorescence"
    mode = str(first_value(start, ("XDI._mode", "XDI.mode", "mode", "detection_mode", "scan_mode"))).lower()
    return "fluorescence" if "fluo" in mode else "transmission"


def _reference(fields: FieldSettings, keys: list[str], it: str | None) -> dict[str, str | None]:
    """Return the fields of the reference foil; it is optional, so doubt about it means going without."""
    try:
        if it and (iref := match_one("iref", fields.iref, keys)):
            return {"it": it, "iref": iref}
        return {"reference": match_one("reference", fields.reference, keys)}
    except AmbiguousFieldError:
        return {}


def is_scalar(about: Mapping[str, Any]) -> bool:
    """Whether a data key describes one number per Event; arrays of one count as such."""
    shape = about.get("shape") or []
    if not shape:
        return about.get("dtype") != "array"
    return all(n == 1 for n in shape)


def _configured_energies(fields: FieldSettings, descriptor: Mapping[str, Any]) -> Array | None:
    """Return the energies, (M,) eV, that a device keeps as configuration: a dispersive spectrometer's axis."""
    for device in (descriptor.get("configuration") or {}).values():
        data, about = device.get("data") or {}, device.get("data_keys") or {}
        arrays = {key: value for key, value in data.items() if np.size(value) > 1 and not isinstance(value, str)}
        if key := match_one("energy", fields.energy, arrays):
            scale = 1000.0 if str(about.get(key, {}).get("units", "")).lower() == "kev" else 1.0
            return np.asarray(arrays[key], dtype=np.float64).reshape(-1) * scale
    return None


def element_and_edge(fields: FieldSettings, start: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the absorber's symbol and the edge, from the configuration or from the RunStart's many shapes.

    >>> element_and_edge(FieldSettings(), {"edge": "Ni_K"})
    ('Ni', 'K')
    >>> element_and_edge(FieldSettings(), {"XDI": {"Element": {"symbol": ("cu",), "edge": "K"}}})
    ('Cu', 'K')
    """
    element, edge = parse_absorber(
        first_value(start, ("element", "Element.symbol", "XDI.Element.symbol", "symbol")),
        first_value(start, ("edge", "Element.edge", "XDI.Element.edge")),
    )
    return fields.element or element, fields.edge or edge


def skip_reason(fields: FieldSettings, start: Mapping[str, Any]) -> str | None:
    """Return why a run is no absorption scan, by its plan name or kind; None where it is one."""
    kind = " ".join(str(first_value(start, (key,)) or "") for key in fields.kind_keys).lower()
    if word := next((word for word in fields.skip_plans if _says(kind, word)), None):
        return word
    if start and fields.only_plans and not any(_says(kind, word) for word in fields.only_plans):
        return f"none of {', '.join(fields.only_plans)}"
    return None


def _says(kind: str, word: str) -> bool:
    # 333 must not be found inside an energy of 8333 eV
    return bool(re.search(rf"(?<!\d){re.escape(word)}(?!\d)" if word.isdigit() else re.escape(word.lower()), kind))
