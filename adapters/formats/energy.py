"""Conversion of a column to energies in eV: from eV, keV, Bragg angles, or numbers without a unit."""

import re

import numpy as np

from ...agent.types import HC_EV_ANGSTROM, Array

XRAYS_EV = (100.0, 150_000.0)
"""Range of the energies of X-ray absorption spectra, eV."""
XRAYS_KEV = (0.9, 45.0)
"""Range of these energies in keV, without values that may be those of an ultraviolet scan in eV."""
MAX_ENERGY_RATIO = 2.0
"""Largest ratio of a spectrum's highest to its lowest energy; wave numbers, times and indices exceed it."""


_OTHER_UNIT = re.compile(
    r"pi?x(els?)?|ch(annels?)?|(half-?)?steps?|counts?|cts|pulses?|points?|index|m?deg(rees?)?|m?rad(ians?)?"
    r"|[mcuµμnk]?m|a|å|ang(str[oö]ms?)?|[mµμun]?s(ec(onds?)?)?|[kmg]?hz|[mkµμu]?v(olts?)?|[mkµμunp]?amps?|[mµμunp]a"
    r"|[mg]ev|[mk]?j(oules?)?|hartrees?|ryd(bergs?)?|ry|%|k|.*[/^].*|.*-1"
)
"""Units of quantities other than X-ray energies; other words in brackets may belong to a column's name."""
_SPACING = re.compile(
    r"(\d+[.,]?\d*(?:e[+-]?\d+)?)\s*(å|a|ang(?:str[oö]ms?)?\.?|nm)?(?:\s*\([^)]*\))?(?:\s+#.*)?", re.I
)


class EnergyAxisError(ValueError):
    """A column cannot be converted to energies in eV."""


def looks_like_energy(values: Array) -> str | None:
    """Return the unit, ``eV`` or ``keV``, in which the values may be energies of a spectrum; None if they cannot.

    Energies are monotonic and positive, and their range is that of a spectrum. Angles of 10 to 15 degrees also
    satisfy this, so that only columns without a telling name should be checked.
    """
    if len(values) < 2 or not np.isfinite(values).all():
        return None
    steps = np.diff(values)
    if not ((steps >= 0).all() or (steps <= 0).all()):
        return None
    return _unit_by_values(values)


def _unit_by_values(values: Array) -> str | None:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return None
    low, high = float(finite.min()), float(finite.max())
    if low <= 0 or low == high or high / low > MAX_ENERGY_RATIO:
        return None
    if XRAYS_KEV[0] <= low and high <= XRAYS_KEV[1]:
        return "keV"
    return "eV" if XRAYS_EV[0] <= low and high <= XRAYS_EV[1] else None


def in_ev(values: Array, name: str, unit: str) -> tuple[Array, tuple[str, ...]]:
    """Convert a column of energies to eV.

    Parameters
    ----------
    values : ndarray
        Energies in the unit of the file.
    name : str
        Name of the column, for messages.
    unit : str
        Unit in the file, in any case; empty if the file does not give it.

    Returns
    -------
    energy : ndarray
        Energies, eV.
    notes : tuple of str
        Guesses and doubts about the unit.

    Raises
    ------
    EnergyAxisError
        The unit is not a unit of energy.
    """
    written = unit.strip().lower() or next(iter(re.findall(r"(?:^|_)(k?ev)$", name.lower())), "")
    if written in ("ev", "electronvolt", "electron volt"):
        doubt = f"energies of {name!r} are read as eV, the unit in the file, but their values suggest keV"
        return values, (doubt,) if _unit_by_values(values) == "keV" else ()
    if written in ("kev", "kiloelectronvolt"):
        doubt = f"energies of {name!r} are read as keV, the unit in the file, but their values suggest eV"
        return values * 1000.0, (doubt,) if _unit_by_values(values) == "eV" else ()
    guess = _unit_by_values(values)
    unknown = written and not re.fullmatch(r"a\.?u\.?|none|n/?a|-|\?", written)
    if unknown and (guess is None or _OTHER_UNIT.fullmatch(written)):
        raise EnergyAxisError(f"energies of column {name!r} in {unit!r}, expected eV or keV")
    if unknown:
        note = f"{unit!r} beside {name!r} is no unit of energy; read as {guess}, because the values fit"
        return in_ev(values, name, guess or "")[0], (note,)
    if guess == "keV":
        return values * 1000.0, (f"energies of {name!r} are read as keV, because their values fit",)
    if guess == "eV":
        return values, ()
    return values, (f"energies of {name!r} are read as eV, although their values fit neither eV nor keV",)


def from_angle(values: Array, name: str, unit: str, d_spacing: str) -> Array:
    """Convert Bragg angles of a monochromator to energies: E = hc / (2 d sin θ).

    Parameters
    ----------
    values : ndarray, (M,)
        Bragg angles.
    name : str
        Name of the column, for messages.
    unit : str
        Unit of the angles in the file: degrees or radians.
    d_spacing : str
        Text of the file about the d spacing of the crystal, Å.

    Returns
    -------
    ndarray, (M,)
        Energies, eV.

    Raises
    ------
    EnergyAxisError
        The d spacing is missing, the unit is unknown, or an angle lies outside 0 to 90 degrees.
    """
    spacing = spacing_in_angstrom(d_spacing)
    if spacing is None:
        found = f"Mono.d_spacing {d_spacing!r}" if d_spacing else "no Mono.d_spacing"
        raise EnergyAxisError(
            f"angles in column {name!r} and {found}, expected its value in Å: --column d_spacing=3.1356 for "
            "Si(111), or a line # Mono.d_spacing: 3.1356 in the header, or --column energy=… for a column of energies"
        )
    if re.match(r"deg", unit.strip(), re.I):
        theta = np.deg2rad(values)
    elif re.match(r"rad", unit.strip(), re.I):
        theta = values
    else:
        raise EnergyAxisError(f"angles of column {name!r} in {unit or 'no unit'!r}, expected degrees or radians")
    if not np.isfinite(theta).all() or theta.min() <= 0 or theta.max() > np.pi / 2:
        raise EnergyAxisError(f"angles of column {name!r} outside 0 to 90 degrees")
    return HC_EV_ANGSTROM / (2 * spacing * np.sin(theta))


def spacing_in_angstrom(text: str) -> float | None:
    """Return the d spacing of a crystal, Å, from a text of a number and a unit; None if it is anything else.

    >>> spacing_in_angstrom("3.1355 A"), spacing_in_angstrom("0,31355 nm"), spacing_in_angstrom("3.1.3")
    (3.1355, 3.1355, None)
    """
    found = _SPACING.fullmatch(text.strip())
    if found is None:
        return None
    spacing = float(found[1].replace(",", ".")) * (10 if (found[2] or "").lower() == "nm" else 1)
    return round(spacing, 9) if 0.1 < spacing < 100 else None
