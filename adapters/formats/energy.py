"""Energies in eV, from what a file has of them: eV, keV, the angle of a monochromator, or numbers alone."""

import re

import numpy as np

from ...agent.types import HC_EV_ANGSTROM, Array

XRAYS_EV = (100.0, 150_000.0)
"""What energies of X-ray absorption spectra lie within, eV."""
XRAYS_KEV = (0.9, 45.0)
"""Likewise keV, as far as they cannot be those of an ultraviolet scan in eV."""
WIDEST = 2.0
"""A spectrum's last energy is at most this many times its first: wave numbers, times and indices span more."""


class EnergyAxisError(ValueError):
    """A column that cannot be converted to energies in eV."""


def looks_like_energy(values: Array) -> str | None:
    """The unit, ``eV`` or ``keV``, in which a column may be the energies of a spectrum, by its values; else None.

    They go one way, are positive, and neither too small nor too far apart for one. Angles of 10 to 15 degrees look
    like keV, too: only a column that has no better name may be taken at that.
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
    if low <= 0 or low == high or high / low > WIDEST:
        return None
    if XRAYS_KEV[0] <= low and high <= XRAYS_KEV[1]:
        return "keV"
    return "eV" if XRAYS_EV[0] <= low and high <= XRAYS_EV[1] else None


def in_ev(values: Array, name: str, unit: str) -> tuple[Array, tuple[str, ...]]:
    """Energies of a column that is named as such, eV, and what was guessed of them.

    Args:
        unit: as the file names it, in any case; empty where it does not.

    Raises:
        EnergyAxisError: in a unit that is none of energy.
    """
    said = unit.strip().lower() or next(iter(re.findall(r"(?:^|_)(k?ev)$", name.lower())), "")
    if said in ("ev", "electronvolt", "electron volt"):
        doubt = f"energies of {name!r} taken as eV, as the file says; their values are those of keV"
        return values, (doubt,) if _unit_by_values(values) == "keV" else ()
    if said in ("kev", "kiloelectronvolt"):
        doubt = f"energies of {name!r} taken as keV, as the file says; their values are those of eV"
        return values * 1000.0, (doubt,) if _unit_by_values(values) == "eV" else ()
    if said and not re.fullmatch(r"a\.?u\.?|none|n/?a|-|\?", said):
        raise EnergyAxisError(f"energies of column {name!r} in {unit!r}, expected eV or keV")
    guess = _unit_by_values(values)
    if guess == "keV":
        return values * 1000.0, (f"energies of {name!r} taken as keV, by their values",)
    if guess == "eV":
        return values, ()
    return values, (f"energies of {name!r} taken as eV, which their values do not tell",)


def from_angle(values: Array, name: str, unit: str, d_spacing: str) -> Array:
    """Energies (M,) eV from the Bragg angles of a monochromator: E = hc / (2 d sin θ).

    Args:
        unit: degrees or radians, as the file names it.
        d_spacing: of its crystal, Å, as the file has it.

    Raises:
        EnergyAxisError: no d spacing, another unit, or angles that no crystal has.
    """
    number = re.match(r"\s*([\d.]+)", d_spacing)
    if not number or not 0.1 < float(number[1].rstrip(".") or 0) < 100:
        found = f"Mono.d_spacing {d_spacing!r}" if d_spacing else "no Mono.d_spacing"
        raise EnergyAxisError(f"angles in column {name!r} and {found}, expected its value in Å")
    if re.match(r"deg", unit.strip(), re.I):
        theta = np.deg2rad(values)
    elif re.match(r"rad", unit.strip(), re.I):
        theta = values
    else:
        raise EnergyAxisError(f"angles of column {name!r} in {unit or 'no unit'!r}, expected degrees or radians")
    if not np.isfinite(theta).all() or theta.min() <= 0 or theta.max() > np.pi / 2:
        raise EnergyAxisError(f"angles of column {name!r} that are not within 0 and 90 degrees")
    return HC_EV_ANGSTROM / (2 * float(number[1].rstrip(".")) * np.sin(theta))
