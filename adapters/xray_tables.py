"""Tables of xraydb for the alignment: f'' of an element and absorption coefficients of a compound.

Sources: C. T. Chantler, J. Phys. Chem. Ref. Data 29, 597 (2000) for f''; W. T. Elam, B. D. Ravel, J. R. Sieber,
Radiat. Phys. Chem. 63, 121 (2002) for absorption coefficients. xraydb is imported at the first use, because the
import takes a second.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from ..agent.spectra import AlignmentSettings, SelfAbsorptionSettings, thick_alpha
from ..agent.types import AbsorptionTable, Array, TableError, Tabulated, edge_ev, emission_ev

_COEFFICIENT_OFFSET_EV = 10.0
"""Distance from the edge at which the coefficients below and above it are evaluated, eV."""
_F2_ENERGIES_EV = np.arange(-1500.0, 4000.0, 2.0)
"""Energies relative to the edge at which f'' is tabulated, eV: the range of any scan of the edge."""
_STRONGEST_LINE = {"K": "Ka1", "L1": "Lb3", "L2": "Lb1", "L3": "La1"}


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Absorption coefficients of a compound at a density of 1 g/cm³, 1/cm: the arguments of :func:`thick_alpha`."""

    fluorescence: float
    below: float
    above: float


def tabulated(settings: AlignmentSettings, element: str, edge: str) -> Tabulated:
    """Return the tables that the alignment settings require for an absorber and its edge.

    Parameters
    ----------
    settings : AlignmentSettings
    element : str
        Symbol of the absorber.
    edge : str
        Edge, such as ``K``.

    Returns
    -------
    Tabulated

    Raises
    ------
    TableError
        The element, line or compound is unknown; the message names the setting.
    """
    table, correction = None, settings.self_absorption
    if settings.normalisation.mode == "mback":
        with _setting_in_error("alignment.normalisation.mode: mback"):
            energy = edge_ev(element, edge) + _F2_ENERGIES_EV
            energy = energy[energy > _COEFFICIENT_OFFSET_EV]
            table = AbsorptionTable(energy, f2(element, energy))
    if correction is None or correction.formula is None:
        return Tabulated(table)
    with _setting_in_error(f"alignment.self_absorption.formula: {correction.formula}"):
        return Tabulated(table, _alpha(correction, correction.formula, element, edge))


def _alpha(settings: SelfAbsorptionSettings, formula: str, element: str, edge: str) -> float | None:
    """Return α of a thick sample, dimensionless; None if the compound does not contain the element."""
    if element not in elements(formula):
        return None
    if edge not in _STRONGEST_LINE:
        raise TableError(f"{element} {edge}: expected one of the edges {', '.join(_STRONGEST_LINE)}, or alpha")
    mu = coefficients(formula, element, edge, _STRONGEST_LINE[edge])
    angles = {"angle_in_deg": settings.angle_in_deg, "angle_out_deg": settings.angle_out_deg}
    return thick_alpha(mu.fluorescence, mu.below, mu.above, **angles)


@contextmanager
def _setting_in_error(setting: str) -> Iterator[None]:
    try:
        yield
    except TableError as error:
        raise TableError(f"{setting}: {error}") from None


def elements(formula: str) -> frozenset[str]:
    """Return the symbols of the elements of a compound; raise TableError if the formula is invalid."""
    import xraydb

    try:
        symbols = frozenset(xraydb.chemparse(formula))
    except ValueError as error:
        raise TableError(_no_compound(error)) from None
    if not symbols:
        raise TableError(_no_compound("it is empty"))
    return symbols


def f2(element: str, energy: Array) -> Array:
    """Return f'' of an element, (M,), at energies in eV, for MBACK; raise TableError for an unknown element."""
    import xraydb

    try:
        return np.asarray(xraydb.f2_chantler(element, energy), dtype=np.float64)
    except ValueError as error:
        raise TableError(f"{element}: found no tabulated f'', expected the symbol of an element ({error})") from None


def coefficients(formula: str, element: str, edge: str = "K", line: str = "Ka1") -> Coefficients:
    """Return the absorption coefficients of a compound at an emission line, below and above an edge.

    Parameters
    ----------
    formula : str
        Formula, such as ``LiNiO2``.
    element, edge, line : str
        Absorber, edge and emission line.

    Raises
    ------
    TableError
        The formula, element, edge or line is unknown.
    """
    at_edge = edge_ev(element, edge)
    offset = _COEFFICIENT_OFFSET_EV
    energies = np.array([emission_ev(element, line), at_edge - offset, at_edge + offset])
    import xraydb

    try:
        values = xraydb.material_mu(formula, energies, density=1.0)
    except (ValueError, KeyError) as error:
        raise TableError(f"{formula}: {_no_compound(error)}") from None
    return Coefficients(*(float(value) for value in values))


def _no_compound(cause: object) -> str:
    return f"found no compound, expected a formula such as LiNiO2 ({' '.join(str(cause).split())})"
