"""Cubic crystals by their sites: to find the operations of a face-centred group takes pymatgen a second each time."""

import numpy as np
from pymatgen.core import Lattice, Structure

FACES = np.array([[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]])


def face_centred(edge_a: float, *places: tuple[str, list[list[float]]]) -> Structure:
    """Return a cubic cell with each element at its places, and at those moved by half of two edges."""
    elements = [element for element, found in places for _ in range(4 * len(found))]
    cell = [place + FACES for _, found in places for place in found]
    return Structure(Lattice.cubic(edge_a), elements, np.concatenate(cell) % 1)


def rock_salt(metal: str, edge_a: float) -> Structure:
    return face_centred(edge_a, (metal, [[0, 0, 0]]), ("O", [[0.5, 0.5, 0.5]]))


def spinel(metal: str, edge_a: float, x: float) -> Structure:
    """Return a spinel with O at x, x, x (Fd-3m, the origin at an inversion). Its tetrahedral sites come first."""
    y = 0.25 - x
    half = [[x, x, x], [x, y, y], [y, x, y], [y, y, x]]
    octahedral = [[0.5, 0.5, 0.5], [0.5, 0.25, 0.25], [0.25, 0.5, 0.25], [0.25, 0.25, 0.5]]
    oxygen = [*half, *([-c for c in place] for place in half)]
    return face_centred(edge_a, (metal, [[0.125] * 3, [0.875] * 3]), (metal, octahedral), ("O", oxygen))
