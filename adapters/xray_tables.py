"""The tables of xraydb that alignment asks for: f'' of an element, absorption coefficients of a compound.

C. T. Chantler, J. Phys. Chem. Ref. Data 29, 597 (2000) for f''; W. T. Elam, B. D. Ravel, J. R. Sieber, Radiat. Phys.
Chem. 63, 121 (2002) for absorption coefficients. xraydb is imported when it is first asked: that takes a second.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ..agent.spectra import AlignmentSettings, SelfAbsorptionSettings, thick_alpha
from ..agent.types import AbsorptionTable, Array, TableError, Tabulated, edge_ev, emission_ev

BESIDE_EV = 10.0  # of the edge, where a coefficient below and above it is taken
TABLE_EV = np.arange(-1500.0, 4000.0, 2.0)  # about the edge: what any scan of it reaches
STRONGEST_LINE = {"K": "Ka1", "L1": "Lb3", "L2": "Lb1", "L3": "La1"}


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Absorption coefficients of a compound at density 1, 1/cm, as :func:`thick_alpha` takes them."""

    fluorescence: float
    below: float
    above: float


def tabulated(settings: AlignmentSettings, element: str, edge: str) -> Tabulated:
    """Return the tables that the settings ask for, of one absorber and its edge.

    Raises
    ------
    TableError
        No such element, line or compound; the message names the setting.
    """
    found, how = None, settings.self_absorption
    if settings.normalisation.mode == "mback":
        with _asked_by("alignment.normalisation.mode: mback"):
            energy = edge_ev(element, edge) + TABLE_EV
            energy = energy[energy > BESIDE_EV]
            found = AbsorptionTable(energy, f2(element, energy))
    if how is None or how.formula is None:
        return Tabulated(found)
    with _asked_by(f"alignment.self_absorption.formula: {how.formula}"):
        return Tabulated(found, _alpha(how, how.formula, element, edge))


def _alpha(how: SelfAbsorptionSettings, formula: str, element: str, edge: str) -> float | None:
    """None where the element is not in the compound."""
    if element not in elements(formula):
        return None
    if edge not in STRONGEST_LINE:
        raise TableError(f"{element} {edge}: expected one of the edges {', '.join(STRONGEST_LINE)}, or alpha")
    mu = coefficients(formula, element, edge, STRONGEST_LINE[edge])
    angles = {"angle_in_deg": how.angle_in_deg, "angle_out_deg": how.angle_out_deg}
    return thick_alpha(mu.fluorescence, mu.below, mu.above, **angles)


@contextmanager
def _asked_by(setting: str) -> Iterator[None]:
    try:
        yield
    except TableError as error:
        raise TableError(f"{setting}: {error}") from None


def elements(formula: str) -> frozenset[str]:
    """Of a compound. Raises TableError."""
    import xraydb

    try:
        found = frozenset(xraydb.chemparse(formula))
    except ValueError as error:
        raise TableError(_no_compound(error)) from None
    if not found:
        raise TableError(_no_compound("it is empty"))
    return found


def f2(element: str, energy: Array) -> Array:
    """f'' of an element at energies in eV, for MBACK. Raises TableError."""
    import xraydb

    try:
        return np.asarray(xraydb.f2_chantler(element, energy), dtype=np.float64)
    except ValueError as error:
        raise TableError(f"{element}: found no tabulated f'', expected the symbol of an element ({error})") from None


def coefficients(formula: str, element: str, edge: str = "K", line: str = "Ka1") -> Coefficients:
    """Of a compound such as ``LiNiO2`` around an edge of one of its elements. Raises TableError."""
    at = edge_ev(element, edge)
    energies = np.array([emission_ev(element, line), at - BESIDE_EV, at + BESIDE_EV])
    import xraydb

    try:
        found = xraydb.material_mu(formula, energies, density=1.0)
    except (ValueError, KeyError) as error:
        raise TableError(f"{formula}: {_no_compound(error)}") from None
    return Coefficients(*(float(v) for v in found))


def _no_compound(why: object) -> str:
    return f"found no compound, expected a formula such as LiNiO2 ({' '.join(str(why).split())})"
