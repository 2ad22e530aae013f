"""What tables say of elements: through xraydb, which comes with the extra ``xray``.

C. T. Chantler, J. Phys. Chem. Ref. Data 29, 597 (2000) for f''; W. T. Elam, B. D. Ravel, J. R. Sieber, Radiat. Phys.
Chem. 63, 121 (2002) for edges, lines and absorption coefficients.
"""

from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from ..agent.errors import InputError

Floats = NDArray[np.float64]
BESIDE_EV = 10.0  # of the edge, where a coefficient below and above it is taken


class TableError(InputError):
    """No tables, or not of what was asked for; one message that says which."""


@dataclass(frozen=True, slots=True)
class Coefficients:
    """Absorption coefficients of a compound at density 1, 1/cm, as :func:`thick_alpha` takes them."""

    fluorescence: float
    below: float
    above: float


def f2(element: str, energy: Floats) -> Floats:
    """f'' of an element at energies in eV, for MBACK. Raises TableError."""
    tables = _xraydb()
    try:
        return np.asarray(tables.f2_chantler(element, energy), dtype=np.float64)
    except ValueError as error:
        raise TableError(f"{element}: found no tabulated f'', expected the symbol of an element ({error})") from None


def edge_ev(element: str, edge: str = "K") -> float:
    """Tabulated energy of an absorption edge, eV. Raises TableError."""
    tables = _xraydb()
    try:
        found = tables.xray_edge(element, edge)
    except ValueError:
        found = None
    if found is None:
        raise TableError(f"{element} {edge}: found no such edge in the tables")
    return float(found.energy)


def emission_ev(element: str, line: str = "Ka1") -> float:
    """Tabulated energy of an emission line, eV. Raises TableError."""
    tables = _xraydb()
    try:
        lines = tables.xray_lines(element)
    except ValueError:
        lines = {}
    if line not in lines:
        raise TableError(f"{element} {line}: found no such line; expected one of {', '.join(lines) or 'an element'}")
    return float(lines[line].energy)


def coefficients(formula: str, element: str, edge: str = "K", line: str = "Ka1") -> Coefficients:
    """Of a compound such as ``LiNiO2`` around an edge of one of its elements. Raises TableError."""
    at = edge_ev(element, edge)
    energies = np.array([emission_ev(element, line), at - BESIDE_EV, at + BESIDE_EV])
    tables = _xraydb()
    try:
        found = tables.material_mu(formula, energies, density=1.0)
    except (ValueError, KeyError) as error:
        raise TableError(f"{formula}: found no compound, expected a formula such as LiNiO2 ({error})") from None
    return Coefficients(*(float(v) for v in found))


def _xraydb() -> ModuleType:
    try:
        import xraydb  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise TableError("tabulated X-ray data need xraydb: pip install xas-agent[xray]") from None
    return xraydb
