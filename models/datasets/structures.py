"""Descriptors of an absorbing site from its crystal structure, computed with pymatgen.

Needs the ``[train]`` extra.
"""

import hashlib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import numpy as np
from pymatgen.core import Composition, Element, Structure
from pymatgen.core.local_env import CrystalNN
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

DESCRIPTORS = ("OS", "OS_mean", "CN", "CN2", "OCN", "NNRS", "MOOD", "PSGO", "NNOSM", "mean_bond")
INTEGER = ("OS", "CN", "CN2", "OCN", "PSGO")
SYMPREC_A = 0.01
_MIN_DISTANCE_A = 0.5

CHARGE = {
    **dict.fromkeys(("H", "Li", "Na", "K", "Rb", "Cs"), 1),
    **dict.fromkeys(("Be", "Mg", "Ca", "Sr", "Ba", "Zn", "Cd"), 2),
    **dict.fromkeys(("B", "Al", "Ga", "In", "Sc", "Y", "La", "Nd", "Sm", "Gd", "Dy", "Ho", "Er", "Lu"), 3),
    **dict.fromkeys(("Cr", "Fe"), 3),  # if BVAnalyzer agrees
    **dict.fromkeys(("Si", "Ge", "Ti", "Zr", "Hf"), 4),
    **dict.fromkeys(("P", "Nb", "Ta"), 5),
    **dict.fromkeys(("F", "Cl", "Br", "I"), -1),
    "O": -2,
}
"""Known charges for a charge balance, e. Elements with several common charges (V, Mn, Co, Ni, Cu …) are left out;
in their compounds the absorber's mean oxidation state remains unassigned."""
CHANGEABLE = ("Cr", "Fe")

_Neighbours = list[dict[str, Any]]
"""Output of CrystalNN: ``site``, ``site_index`` and ``image`` of each bonded atom."""


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings of pymatgen and spglib about fallbacks (a default radius, a rounded coordinate), which occur
    thousands of times in a batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def bare(structure: Structure) -> Structure:
    """Return a structure of elements only, without oxidation states, charge and site properties.

    Raises
    ------
    ValueError
        A site is partially occupied, or two atoms are too close.
    """
    if not structure.is_ordered:
        raise ValueError("partial occupancies: write the structure as an ordered cell")
    plain = Structure(structure.lattice, [Element(s.specie.symbol) for s in structure], structure.frac_coords)
    distances = plain.get_neighbor_list(_MIN_DISTANCE_A)[3]
    if len(distances):
        raise ValueError(f"atoms {distances.min():.2f} Å apart")
    return plain


def digest(structure: Structure) -> str:
    """Return a digest of elements, positions (to 10⁻⁵ of the cell) and pymatgen's version."""
    places = np.round(np.vstack([structure.lattice.matrix, structure.frac_coords]), 5) + 0.0  # no −0
    elements = ",".join(site.species_string for site in structure)
    return hashlib.sha256(f"{version('pymatgen-core')} {elements}".encode() + places.tobytes()).hexdigest()[:24]


def distinct_sites(structure: Structure, element: str) -> list[int]:
    """Return the first site of each set of symmetrically equivalent sites of ``element``."""
    of_element = [i for i, site in enumerate(structure) if site.specie.symbol == element]
    if len(of_element) < 2:
        return of_element
    with quiet():
        equivalent = SpacegroupAnalyzer(structure, symprec=SYMPREC_A).get_symmetry_dataset().equivalent_atoms
    return list({int(equivalent[i]): i for i in reversed(of_element)}.values())[::-1]


def mean_oxidation(composition: Composition, absorber: str, charge: Mapping[str, int] = CHARGE) -> float:
    """Return the mean oxidation state of the absorber by charge balance, e; 0 in the element itself.

    NaN if the charge of another element is unknown, or if the result is outside the absorber's range in crystals
    (ICSD), as in a suboxide.
    """
    rest = {e.symbol: n for e, n in composition.element_composition.items() if e.symbol != absorber}
    amount = composition.element_composition[absorber]
    if not rest:
        return 0.0
    if not amount or any(e not in charge for e in rest):
        return math.nan
    mean = -sum(charge[e] * n for e, n in rest.items()) / amount
    known = Element(absorber).icsd_oxidation_states
    return mean if min(known, default=0) <= mean <= max(known, default=0) else math.nan


def describe(structure: Structure, sites: Sequence[int]) -> list[dict[str, float]]:
    """Compute the descriptors of sites of one structure.

    ``OS``: integer oxidation state by ``BVAnalyzer(symm_tol=0.1, max_radius=4)``. Its choice between equally likely
    sites is arbitrary, as in half-charged layered oxides, where the spectrum depends on ``OS_mean``. ``OS_mean``:
    :func:`mean_oxidation`. ``CN``: number of first neighbours by ``CrystalNN()``. ``OCN``: number of O among them.
    ``CN2``: number of distinct atoms bonded to a first neighbour, without the absorber and the first shell. ``NNRS``
    and ``mean_bond``: standard deviation and mean of the first-neighbour distances, Å. ``MOOD``: smallest O–O
    distance among the first-neighbour O, Å. ``PSGO``: order of the crystal's point group. ``NNOSM``: mean oxidation
    state of the first neighbours.

    Parameters
    ----------
    structure : ordered; oxidation states on its sites are ignored
    sites : indices in ``structure``

    Returns
    -------
    One mapping per site over all of :data:`DESCRIPTORS`; NaN where a descriptor could not be assigned.

    Raises
    ------
    ValueError
        The structure has partial occupancies, or no such site.
    """
    structure = bare(structure)
    if beyond := [i for i in sites if not 0 <= i < len(structure)]:
        raise ValueError(f"no site {beyond[0]} among {len(structure)}")
    with quiet():
        return _describe(structure, sites)


def _describe(structure: Structure, sites: Sequence[int]) -> list[dict[str, float]]:
    near = CrystalNN()
    shells: dict[int, _Neighbours] = {}

    def shell(i: int) -> _Neighbours:
        if i not in shells:
            shells[i] = near.get_nn_info(structure, i)
        return shells[i]

    from pymatgen.core.bond_valence import BVAnalyzer  # takes a second to read its tables

    valences = _assigned(lambda: BVAnalyzer(symm_tol=0.1, max_radius=4).get_valences(structure))
    order = _assigned(lambda: _point_group_order(structure))
    charge = _certain(structure, valences)
    found = []
    for i in sites:
        values: dict[str, float] = dict.fromkeys(DESCRIPTORS, math.nan)
        values["OS_mean"] = mean_oxidation(structure.composition, structure[i].specie.symbol, charge)
        values["PSGO"] = math.nan if order is None else order
        values["OS"] = math.nan if valences is None else valences[i]
        first = _assigned(lambda i=i: shell(i))
        if first:
            values |= _first_shell(structure, i, first)
            if valences is not None:
                values["NNOSM"] = float(np.mean([valences[n["site_index"]] for n in first]))
            second = _assigned(lambda i=i, first=first: _second_shell(i, first, shell))
            values["CN2"] = math.nan if second is None else second
        found.append(values)
    return found


def _point_group_order(structure: Structure) -> int:
    return len(SpacegroupAnalyzer(structure, symprec=SYMPREC_A).get_point_group_operations())


def _certain(structure: Structure, valences: list[int] | None) -> dict[str, int]:
    """Return :data:`CHARGE` without changeable elements that have another state on some site."""
    pairs = zip(structure, valences or (), strict=False)
    seen = {(site.specie.symbol, valence) for site, valence in pairs}
    doubtful = [e for e in CHANGEABLE if {v for s, v in seen if s == e} != {CHARGE[e]}]
    return {e: c for e, c in CHARGE.items() if e not in doubtful}


def _assigned(make: Callable[[], Any]) -> Any:
    """Return the result of ``make``, or None after an exception: pymatgen and spglib raise many types for unusual
    structures, which must not end a batch."""
    try:
        return make()
    except Exception:
        return None


def _first_shell(structure: Structure, i: int, first: _Neighbours) -> dict[str, float]:
    bonds = np.array([np.linalg.norm(n["site"].coords - structure[i].coords) for n in first])
    oxygen = np.array([n["site"].coords for n in first if n["site"].specie.symbol == "O"])
    pairs = np.triu_indices(len(oxygen), 1)
    apart = np.linalg.norm(oxygen[pairs[0]] - oxygen[pairs[1]], axis=-1) if len(oxygen) > 1 else np.array([math.nan])
    return {
        "CN": len(first),
        "OCN": len(oxygen),
        "NNRS": float(bonds.std()),
        "mean_bond": float(bonds.mean()),
        "MOOD": float(apart.min()),
    }


def _second_shell(i: int, first: _Neighbours, shell: Callable[[int], _Neighbours]) -> int:
    """Return the number of atoms in the second shell; an atom is a site with its lattice translation."""
    near = {(n["site_index"], tuple(map(int, n["image"]))) for n in first}
    bonded = {
        (m["site_index"], tuple(int(a + b) for a, b in zip(image, m["image"], strict=True)))
        for site, image in near
        for m in shell(site)
    }
    return len(bonded - near - {(i, (0, 0, 0))})
