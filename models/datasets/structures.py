"""The descriptors of an absorbing site, from its crystal structure; pymatgen does the chemistry.

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
from pymatgen.core.bond_valence import BVAnalyzer
from pymatgen.core.local_env import CrystalNN
from pymatgen.symmetry.analyzer import SpacegroupAnalyzer

DESCRIPTORS = ("OS", "OS_mean", "CN", "CN2", "OCN", "NNRS", "MOOD", "PSGO", "NNOSM", "mean_bond")
INTEGER = ("OS", "CN", "CN2", "OCN", "PSGO")
SYMPREC_A = 0.01
LEAST_DISTANCE_A = 0.5

CHARGE = {
    **dict.fromkeys(("H", "Li", "Na", "K", "Rb", "Cs"), 1),
    **dict.fromkeys(("Be", "Mg", "Ca", "Sr", "Ba", "Zn", "Cd"), 2),
    **dict.fromkeys(("B", "Al", "Ga", "In", "Sc", "Y", "La", "Nd", "Sm", "Gd", "Dy", "Ho", "Er", "Lu"), 3),
    **dict.fromkeys(("Cr", "Fe"), 3),  # where BVAnalyzer finds so
    **dict.fromkeys(("Si", "Ge", "Ti", "Zr", "Hf"), 4),
    **dict.fromkeys(("P", "Nb", "Ta"), 5),
    **dict.fromkeys(("F", "Cl", "Br", "I"), -1),
    "O": -2,
}
"""Charges taken as known in a charge balance, e. An element of several usual ones (V, Mn, Co, Ni, Cu …) is not
here, and beside it the mean of an absorber stays unassigned."""
CHANGEABLE = ("Cr", "Fe")

_Neighbours = list[dict[str, Any]]
"""What CrystalNN gives: ``site``, ``site_index`` and ``image`` of each bonded atom."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without pymatgen's and spglib's warnings: each is a fallback that they take (a default radius, a rounded
    coordinate) or a notice to their own callers, thousands of times in a batch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def bare(structure: Structure) -> Structure:
    """The elements at their places, without oxidation states, charge and site properties.

    Raises
    ------
    ValueError
        A site is shared by several elements or partly empty, or two atoms are nearer than atoms can be.
    """
    if not structure.is_ordered:
        raise ValueError("partial occupancies: write the structure as an ordered cell")
    plain = Structure(structure.lattice, [Element(s.specie.symbol) for s in structure], structure.frac_coords)
    distances = plain.get_neighbor_list(LEAST_DISTANCE_A)[3]
    if len(distances):
        raise ValueError(f"atoms {distances.min():.2f} Å apart")
    return plain


def digest(structure: Structure) -> str:
    """The same for the same elements at the same places, to 10⁻⁵ of a cell, under the same pymatgen."""
    places = np.round(np.vstack([structure.lattice.matrix, structure.frac_coords]), 5) + 0.0  # no −0
    elements = ",".join(site.species_string for site in structure)
    return hashlib.sha256(f"{version('pymatgen-core')} {elements}".encode() + places.tobytes()).hexdigest()[:24]


def distinct_sites(structure: Structure, element: str) -> list[int]:
    """The first site of each set of symmetrically equivalent ones of ``element``."""
    of_element = [i for i, site in enumerate(structure) if site.specie.symbol == element]
    if len(of_element) < 2:
        return of_element
    with quiet():
        equivalent = SpacegroupAnalyzer(structure, symprec=SYMPREC_A).get_symmetry_dataset().equivalent_atoms
    return list({int(equivalent[i]): i for i in reversed(of_element)}.values())[::-1]


def mean_oxidation(composition: Composition, absorber: str, charge: Mapping[str, int] = CHARGE) -> float:
    """Mean oxidation state of the absorber by charge balance, e; NaN where the rest has no certain charge.

    0 in the element itself. NaN as well where the balance asks for more, or less, than the absorber is known with
    in crystals (ICSD), as in a suboxide: ions of those charges it cannot be.
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
    """The descriptors of sites of one structure.

    ``OS`` integer oxidation state, ``BVAnalyzer(symm_tol=0.1, max_radius=4)`` (between sites that it finds equally
    likely, as in half-charged layered oxides, its choice is arbitrary: there ``OS_mean`` is what a spectrum
    follows); ``OS_mean`` :func:`mean_oxidation`; ``CN`` number of first neighbours, ``CrystalNN()``; ``OCN`` how
    many of them are O; ``CN2`` number of distinct atoms bonded to a first neighbour, the absorber and the first
    shell left out; ``NNRS`` standard deviation and ``mean_bond`` mean of the first-neighbour distances, Å; ``MOOD``
    smallest O–O distance among the first-neighbour O, Å; ``PSGO`` order of the crystal's point group;
    ``NNOSM`` mean oxidation state of the first neighbours.

    Parameters
    ----------
    structure : ordered; oxidation states on its sites are not looked at
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
    """:data:`CHARGE`, without a changeable element that is not found in that state on each of its sites."""
    pairs = zip(structure, valences or (), strict=False)
    seen = {(site.specie.symbol, valence) for site, valence in pairs}
    doubtful = [e for e in CHANGEABLE if {v for s, v in seen if s == e} != {CHARGE[e]}]
    return {e: c for e, c in CHARGE.items() if e not in doubtful}


def _assigned(make: Callable[[], Any]) -> Any:
    """What ``make`` gives, or None: pymatgen and spglib raise whatever an odd structure makes them stumble over,
    and one such must not end a batch."""
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
    """An atom is a site and the lattice translation to it."""
    near = {(n["site_index"], tuple(map(int, n["image"]))) for n in first}
    bonded = {
        (m["site_index"], tuple(int(a + b) for a, b in zip(image, m["image"], strict=True)))
        for site, image in near
        for m in shell(site)
    }
    return len(bonded - near - {(i, (0, 0, 0))})
