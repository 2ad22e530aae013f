"""Tabulated absorption edges and emission lines, and the constant that converts wavelengths to energies.

Edges and lines come from xraydb: W. T. Elam, B. D. Ravel, J. R. Sieber, Radiat. Phys. Chem. 63, 121 (2002).
"""

import re
from functools import cache

from .errors import InputError

HC_EV_ANGSTROM = 1e10 * 6.62607015e-34 * 299792458.0 / 1.602176634e-19
"""Planck's constant times the speed of light, eV Å; exact since the SI of 2019, and equal to xraydb's value."""

_SYMBOLS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr "
    "Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W "
    "Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf"
)
ELEMENTS = tuple(_SYMBOLS.split())
"""Symbols of the elements in the order of their atomic numbers."""


class TableError(InputError):
    """The tables lack an element, edge, line or compound, which the message names."""


@cache
def edge_ev(element: str, edge: str = "K") -> float:
    """Return the tabulated energy of an absorption edge, eV.

    Raises
    ------
    TableError
        The tables lack the element or the edge.
    """
    import xraydb  # imported late: it takes a second, and few commands need it

    try:
        tabulated = xraydb.xray_edge(element, edge)
    except ValueError:
        tabulated = None
    if tabulated is None:
        raise TableError(f"{element} {edge}: found no such edge in the tables")
    return float(tabulated.energy)


def is_edge(name: str) -> bool:
    """Return whether a text names an absorption edge: K, L1, …; L and M alone stand for any of their edges."""
    return re.fullmatch(r"K|L[1-3]?|M[1-5]?", name) is not None


@cache
def all_edges() -> tuple[tuple[str, str, float], ...]:
    """Return element, edge and tabulated energy, eV, of the K and L edges of all elements, by energy."""
    import xraydb

    edges = ((element, name, edge) for element in ELEMENTS[2:] for name, edge in xraydb.xray_edges(element).items())
    found = [(element, name, float(edge.energy)) for element, name, edge in edges if name in ("K", "L1", "L2", "L3")]
    return tuple(sorted(found, key=lambda found: found[2]))


@cache
def emission_ev(element: str, line: str = "Ka1") -> float:
    """Return the tabulated energy of an emission line, eV.

    Raises
    ------
    TableError
        The tables lack the element or the line.
    """
    import xraydb

    try:
        lines = xraydb.xray_lines(element)
    except ValueError:
        lines = {}
    if line not in lines:
        raise TableError(f"{element} {line}: found no such line; expected one of {', '.join(lines) or 'an element'}")
    return float(lines[line].energy)
