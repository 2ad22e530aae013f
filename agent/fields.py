"""Which fields of a stream are energy, I0, It, Iref, fluorescence or μ: as configured, else as usually named.

The usual names are those of public beamline profiles (NSLS-II BMM, ISS, QAS and SST-1, APS Haven) and of XDI.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from .settings import Settings
from .start import absorber, first, inner

Formula = Literal["transmission", "fluorescence", "mu", "normalised"]
Form = Literal["step", "array"]


class FieldMap(Settings):
    """Where in the documents a spectrum is. Whatever is not set is guessed for each descriptor.

    Names are data keys; case and ``-`` against ``_`` make no difference.
    """

    energy: str | None = None
    """Data key of the energy, eV (keV where the descriptor says so)."""
    i0: str | None = None
    """Data key of the incident intensity, any unit, positive."""
    it: str | None = None
    """Data key of the transmitted intensity, in the unit of I0."""
    iref: str | None = None
    """Data key of the intensity behind the reference foil, in the unit of It."""
    fluorescence: tuple[str, ...] = ()
    """Data keys of the fluorescence channels; they are summed."""
    mu: str | None = None
    """Data key of an absorption that is already computed; ``formula`` says whether it is also normalised."""
    reference: str | None = None
    """Data key of the reference foil's absorption where that is already computed."""
    formula: Formula | None = None
    """``transmission``: μ = ln(I0/It); ``fluorescence``: If/I0; ``mu``, ``normalised``: the field ``mu`` as is.

    None: the rawest that is there, in the order transmission, fluorescence, mu, normalised, so that all frames
    are normalised alike; fluorescence first where the RunStart names it as its mode.
    """
    element: str | None = Field(default=None, pattern="^[A-Z][a-z]?$")
    """Symbol of the absorber, in any case; None: from the RunStart."""
    edge: str | None = Field(default=None, pattern="^[KLM][1-5]?$")
    """K, L3, … in any case, or with the absorber as in ``Ni_K``; None: from the RunStart."""
    streams: tuple[str, ...] | None = None
    """Streams to read; None: all with an energy but ``baseline`` and monitors (``*_monitor``)."""
    skip_plans: tuple[str, ...] = ("align", "dark", "time_scan", "rocking", "sead", "333")
    """Runs whose plan name or scan kind contains one of these words are not absorption scans."""
    min_points: int = Field(default=10, ge=3)
    """Least number of distinct energies in a frame."""
    max_missing_fraction: float = Field(default=0.02, ge=0, lt=1)
    """A sweep that lost more of its points than this is set aside; so is any with 3 neighbours lost."""

    @model_validator(mode="before")
    @classmethod
    def _normal_absorber(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        read = zip(("element", "edge"), absorber(given.get("element"), given.get("edge")), strict=True)
        return {**given, **{key: value for key, value in read if value is not None}}

    def reads(self, stream: str) -> bool:
        """Whether spectra are looked for in the stream of this name."""
        if self.streams is not None:
            return stream in self.streams
        return stream != "baseline" and not stream.endswith("_monitor")


@dataclass(frozen=True, slots=True)
class Channels:
    """The fields of one descriptor, by their role."""

    form: Form
    """``step``: one energy per Event; ``array``: one spectrum per Event."""
    formula: Formula | None
    """None: the stream has energies alone, for the spectra of another stream of its run."""
    energy: str | None
    """None: the energies are ``grid``, or those of another stream."""
    energy_scale: float = 1.0
    """What turns the recorded energy into eV."""
    i0: str | None = None
    it: str | None = None
    iref: str | None = None
    fluorescence: tuple[str, ...] = ()
    mu: str | None = None
    reference: str | None = None
    readings: tuple[str, ...] = ()
    """The scalar numbers besides."""
    grid: NDArray[np.float64] | None = field(default=None, compare=False)
    """(M,) eV, from the descriptor's configuration."""

    def describe(self) -> str:
        """Say in words what is read, for the log: ``transmission of I0, It over energy``."""
        named = [self.i0, self.it, self.iref, *self.fluorescence, self.mu, self.reference]
        energy = self.energy or ("energies of the configuration" if self.grid is not None else "another stream")
        return f"{self.formula or 'energies'} of {', '.join(n for n in named if n) or 'none'} over {energy}"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a stream that looks like absorption data cannot be read."""

    reason: str
    detail: str


FOIL = ("iref", "reference")
"""The roles that a frame can do without."""
_ESSENTIAL = ("energy", "i0", "it", "fluorescence", "mu")
_SIGNAL: Mapping[Formula, str] = {
    "transmission": "it",
    "fluorescence": "fluorescence",
    "mu": "mu",
    "normalised": "mu",
}
_TAILS = ("count", "counts", "net_count", "net_current", "current", "mean", "value", "volt", "voltage")
_VETO = re.compile(
    r"(^|_)(gain|offset|clock|dark|setpoint|sensitivity|std|sigma|err|error|time|timestamp|bias|status|edge)(_|$)"
)
_OTHER_ENERGY = re.compile(r"(^|_)(id|ivu|epu|und|undulator|gap|roi\d*|edge|offset|resolution)(_|$)")
_ENERGIES = ("energy", "dcm_energy", "hhm_energy", "mono_energy", "monochromator_energy", "en_energy", "pgm_energy")


def _detector(words: str, *special: str) -> tuple[re.Pattern[str], ...]:
    """Patterns from the surest to the least sure for a detector that goes by one of ``words``."""
    exact = rf"^({words})$"
    ends = rf"_({words})$"
    tails = [rf"(^|_)({words})_{tail}$" for tail in _TAILS]
    return tuple(re.compile(p) for p in (exact, *special, ends, *tails))


_USUAL: Mapping[str, tuple[re.Pattern[str], ...]] = {
    "energy": tuple(
        re.compile(p)
        for p in (
            *(rf"^{name}$" for name in _ENERGIES),
            r"(^|_)energy(_(user_)?readback|_rbv|_value|_ev|_kev)?$",
            r"^(en|e)$",
            r"(^|_)energy_(user_)?setpoint$",
        )
    ),
    "i0": _detector("i0|io|i_0|izero", r"^apb_ave_ch1_mean$", r"^nexafs_i0up$"),
    "it": _detector("it|itrans|i_t|i1|transmission|transmitted", r"^apb_ave_ch2_mean$"),
    "iref": _detector("ir|iref|irefer|i_ref|i_r|i2", r"^apb_ave_ch3_mean$"),
    "fluorescence": _detector(
        r"(if|iff|i_f|ifluor|ifluo|fluo|fluor|fluorescence)_?\d*",
        r"^apb_ave_ch4_mean$",
        r"^xsx?_channel\d+_rois_roi01_value$",
    ),
    "mu": _detector("mu|xmu|mut|mutrans|mu_trans|mu_t|absorption|absorbance", "^(muf|mufluor|mu_fluor|mu_fluo)$"),
    "normalised": _detector(
        "norm|normalized|normalised|mu_norm|norm_mu|(norm(alized|alised)_mu)|(mu_norm(alized|alised))"
    ),
    "reference": _detector("reference|mu_ref|muref|mu_reference|reference_mu"),
}


class _AmbiguousError(Exception):
    def __init__(self, role: str, names: Iterable[str]) -> None:
        super().__init__(f"{role} may be any of {', '.join(names)}: name one in the configuration")


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def usual(role: str, keys: Iterable[str]) -> list[str]:
    """Return the keys that match the surest pattern of ``role`` that any key matches.

    Roles are ``energy``, ``i0``, ``it``, ``iref``, ``fluorescence``, ``mu``, ``normalised`` and ``reference``.

    >>> usual("it", ["i0", "itrans", "it_dark"])
    ['itrans']
    """
    veto = _OTHER_ENERGY if role == "energy" else _VETO
    plain = {key: _plain(key) for key in keys}
    plain = {key: name for key, name in plain.items() if not veto.search(name)}
    for pattern in _USUAL[role]:
        if found := [key for key, name in plain.items() if pattern.search(name)]:
            return found
    return []


def _one(role: str, configured: str | None, keys: Iterable[str]) -> str | None:
    """Return the key of ``role``; raise _AmbiguousError where several are as good as each other."""
    keys = list(keys)
    if configured is not None:
        found = [k for k in keys if k == configured] or [k for k in keys if _plain(k) == _plain(configured)]
    else:
        found = usual(role, keys)
    if len(found) > 1:
        raise _AmbiguousError(role, found)
    return found[0] if found else None


def _fluorescence(
    fields: FieldMap, keys: list[str], start: Mapping[str, Any], element: str | None
) -> tuple[str, ...]:
    if fields.fluorescence:
        found = tuple(_one("fluorescence", name, keys) for name in fields.fluorescence)
        return tuple(name for name in found if name) if None not in found else ()
    listed = inner(start, "XDI", "_dtc")
    if isinstance(listed, (list, tuple)) and listed and all(name in keys for name in listed):
        return tuple(listed)
    if element and element != "I":  # BMM names its dead-time corrected regions of interest Ni1, Ni2, …; I0 is none
        pattern = re.compile(rf"^{element.lower()}_?\d+$")
        if found := tuple(key for key in keys if pattern.match(_plain(key))):
            return found
    return tuple(usual("fluorescence", keys))


def resolve(
    fields: FieldMap, descriptor: Mapping[str, Any], start: Mapping[str, Any]
) -> Channels | Unreadable | None:
    """Find the fields of a spectrum in a descriptor.

    Returns None for a stream without energy or absorption, which is nobody's fault, and Unreadable for one that
    has part of it, that lacks a configured field, or in which a role could be either of two fields.
    """
    name = str(descriptor.get("name", "primary"))
    if not fields.reads(name):
        return None
    every: Mapping[str, Mapping[str, Any]] = descriptor["data_keys"]
    keys = {key: about for key, about in every.items() if not about.get("external")}
    try:
        found = _resolve(fields, keys, descriptor, start)
        lacks = _lacks(fields, found, keys, descriptor, start)
    except _AmbiguousError as error:
        return Unreadable("ambiguous fields", f"stream {name}: {error}")
    if len(keys) < len(every) and not (isinstance(found, Channels) and found.formula):
        outside = ", ".join(key for key in every if key not in keys)
        return Unreadable("external data not supported yet", f"stream {name}: {outside}")
    return field_missing(lacks, (name,), every) if lacks else found


def absent(
    fields: FieldMap, descriptors: Iterable[Mapping[str, Any]], roles: Iterable[str] = _ESSENTIAL
) -> dict[str, str]:
    """Return, by role, the configured names that are data keys of none of ``descriptors``."""
    data, axes = set[str](), set[str]()
    for descriptor in descriptors:
        data |= {_plain(key) for key in descriptor["data_keys"]}
        for device in (descriptor.get("configuration") or {}).values():
            axes |= {_plain(key) for key in device.get("data") or {}}
    missing = {}
    for role in roles:
        named = getattr(fields, role) or ()
        names = (named,) if isinstance(named, str) else named
        lost = [name for name in names if _plain(name) not in (data | axes if role == "energy" else data)]
        missing |= {role: ", ".join(lost)} if lost else {}
    return missing


def has_i0(fields: FieldMap, keys: Iterable[str]) -> bool:
    """Whether one of the data keys is the intensity of the beam."""
    keys = list(keys)
    return bool(usual("i0", keys)) or (fields.i0 is not None and _plain(fields.i0) in map(_plain, keys))


def field_missing(names: Iterable[str], streams: Iterable[str], found: Iterable[str]) -> Unreadable:
    """Say that configured data keys are in none of ``streams``, and what was found there."""
    lacking = ", ".join(f"'{name}'" for name in names)
    there = ", ".join(found) or "nothing"
    return Unreadable("field missing", f"no key {lacking} in stream {', '.join(streams)}; found {there}"[:500])


def _lacks(
    fields: FieldMap,
    found: Channels | Unreadable | None,
    keys: Mapping[str, Mapping[str, Any]],
    descriptor: Mapping[str, Any],
    start: Mapping[str, Any],
) -> list[str]:
    """Return the configured data keys for want of which a stream of spectra is not read as configured.

    A configuration may name more signals than each scan records: one of them is enough. That a stream has spectra
    is told by what can be read of it when the missing keys are guessed.
    """
    missing = absent(fields, [descriptor])
    if not missing:
        return []
    others = fields.model_copy(update={role: () if role == "fluorescence" else None for role in missing})
    guess = _resolve(others, keys, descriptor, start)
    lacks = found is not None or isinstance(guess, Channels)
    if isinstance(found, Channels):
        signal = set(missing) == {"energy"} or found.formula is None or getattr(fields, _SIGNAL[found.formula])
        energy = isinstance(guess, Channels) and (guess.energy is not None or guess.grid is not None)
        lacks = not signal or ("energy" in missing and energy)
    return list(missing.values()) if lacks else []


def _resolve(
    fields: FieldMap,
    keys: Mapping[str, Mapping[str, Any]],
    descriptor: Mapping[str, Any],
    start: Mapping[str, Any],
) -> Channels | Unreadable | None:
    numeric = [key for key, about in keys.items() if about.get("dtype") in ("number", "integer", "array")]
    scalar = [key for key in numeric if is_scalar(keys[key])]
    vector = [key for key in numeric if key not in scalar]
    energy = _one("energy", fields.energy, numeric)
    grid = None
    if energy is None:
        grid = _configured_energies(fields, descriptor)
    elif fields.energy is None and energy in scalar and (arrays := usual("energy", vector)):
        energy = _one("energy", None, arrays)  # a whole spectrum beside the motor's position
    form: Form = "step" if energy in scalar else "array"
    usable = [key for key in (scalar if form == "step" else vector) if key != energy]
    channels = _channels(fields, usable, start)
    used = {energy, *(v for k, v in channels.items() if k != "fluorescence"), *channels.get("fluorescence", ())}
    positions = set(_USUAL["energy"])
    readings = tuple(key for key in scalar if key not in used and not any(p.search(_plain(key)) for p in positions))
    if channels.get("formula") is None:
        if energy is None:
            return None
        if form == "step" or usable:
            return Unreadable("no absorption fields", f"{energy} came with {', '.join(usable) or 'nothing else'}")
    scale = 1000.0 if energy and str(keys[energy].get("units", "")).lower() == "kev" else 1.0
    return Channels(form=form, energy=energy, energy_scale=scale, readings=readings, grid=grid, **channels)


def _channels(fields: FieldMap, keys: list[str], start: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the formula and the fields that it takes; ``formula`` is None where none can be served."""
    element, _ = element_and_edge(fields, start)
    i0 = _one("i0", fields.i0, keys)
    it = _one("it", fields.it, keys)
    fluorescence = _fluorescence(fields, keys, start, element)
    plain = _one("mu", fields.mu, keys)
    normalised = _one("normalised", fields.mu, keys)
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


def _wanted(fields: FieldMap, start: Mapping[str, Any]) -> str:
    """Return the formula that the configured fields, or else the mode in the RunStart, call for."""
    if fields.mu:
        return "mu"
    if fields.it or fields.fluorescence:
        return "transmission" if fields.it else "fluorescence"
    mode = str(first(start, ("XDI._mode", "XDI.mode", "mode", "detection_mode", "scan_mode"))).lower()
    return "fluorescence" if "fluo" in mode else "transmission"


def _reference(fields: FieldMap, keys: list[str], it: str | None) -> dict[str, str | None]:
    """Return the fields of the reference foil; it is optional, so doubt about it means going without."""
    try:
        if it and (iref := _one("iref", fields.iref, keys)):
            return {"it": it, "iref": iref}
        return {"reference": _one("reference", fields.reference, keys)}
    except _AmbiguousError:
        return {}


def is_scalar(about: Mapping[str, Any]) -> bool:
    """Whether a data key describes one number per Event; arrays of one count as such."""
    shape = about.get("shape") or []
    if not shape:
        return about.get("dtype") != "array"
    return all(n == 1 for n in shape)


def _configured_energies(fields: FieldMap, descriptor: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """Return the energies, (M,) eV, that a device keeps as configuration: a dispersive spectrometer's axis."""
    for device in (descriptor.get("configuration") or {}).values():
        data, about = device.get("data") or {}, device.get("data_keys") or {}
        arrays = {key: value for key, value in data.items() if np.size(value) > 1 and not isinstance(value, str)}
        if key := _one("energy", fields.energy, arrays):
            scale = 1000.0 if str(about.get(key, {}).get("units", "")).lower() == "kev" else 1.0
            return np.asarray(arrays[key], dtype=np.float64).reshape(-1) * scale
    return None


def element_and_edge(fields: FieldMap, start: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the absorber's symbol and the edge, from the configuration or from the RunStart's many shapes.

    >>> element_and_edge(FieldMap(), {"edge": "Ni_K"})
    ('Ni', 'K')
    >>> element_and_edge(FieldMap(), {"XDI": {"Element": {"symbol": ("cu",), "edge": "K"}}})
    ('Cu', 'K')
    """
    element, edge = absorber(
        first(start, ("element", "Element.symbol", "XDI.Element.symbol", "symbol")),
        first(start, ("edge", "Element.edge", "XDI.Element.edge")),
    )
    return fields.element or element, fields.edge or edge


def skipped_plan(fields: FieldMap, start: Mapping[str, Any]) -> str | None:
    """Return the word of ``skip_plans`` by which a run is not an absorption scan, if any."""
    kind = " ".join(
        str(first(start, (key,)) or "") for key in ("plan_name", "XDI._kind", "scan_kind", "kind")
    ).lower()
    for word in fields.skip_plans:
        # 333 must not be found inside an energy of 8333 eV
        pattern = rf"(?<!\d){re.escape(word)}(?!\d)" if word.isdigit() else re.escape(word)
        if re.search(pattern, kind):
            return word
    return None
