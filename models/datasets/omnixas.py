"""Rows of OmniXAS (Kharel et al., Phys. Rev. Materials 9, 043803, 2025), as its repository publishes them.

``tutorial_omnixas/material_id_and_site/Ni_FEFF_val.txt`` has an id per row, such as ``mp-640147_002`` for site 2 of a
structure of the Materials Project, and ``tutorial_omnixas/ml_data/Ni_FEFF_val_y.txt`` the spectra in the same order.
The structures are separate. Needs the ``[train]`` extra.
"""

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np
from pymatgen.core import Structure

from ...agent.types import Array, InputError
from .feff_runs import FeffSpectrum
from .structure_files import Site, structure_files, structures_in
from .structures import bare

PARTS = ("train", "val", "test")
POINTS, STEP_EV = 141, 0.25
START_EV = {
    "Ti": 4964.504,
    "V": 5464.097,
    "Cr": 5989.168,
    "Mn": 6537.886,
    "Fe": 7111.23,
    "Co": 7709.282,
    "Ni": 8332.181,
    "Cu": 8983.173,
}
"""First energy of each absorber's rows, eV (``config/data/transformations.yaml`` of OmniXAS)."""
BACKGROUND = {
    "Ti": 1.678,
    "V": 1.514,
    "Cr": 1.377,
    "Mn": 1.239,
    "Fe": 1.141,
    "Co": 1.037,
    "Ni": 0.953,
    "Cu": 0.879,
}
"""Atomic background by FEFF 50 eV above the edge, in the unit of the published spectra; that of Cr is interpolated
between V and Co. Sites differ by ± 2 %. Published spectra are not divided by it, other rows are."""
_ID = re.compile(r"(?P<material>.+)_(?P<site>\d+)$")


def read_omnixas(
    folder: Path, absorber: str, parts: Collection[str], structures: Path
) -> tuple[list[FeffSpectrum], list[str]]:
    """Read the rows of an absorber, each with its structure.

    Parameters
    ----------
    folder : ``tutorial_omnixas`` of OmniXAS's repository
    parts : parts of OmniXAS's split by material, which the rows keep
    structures : file or folder of structures, named by their Materials Project ids

    Returns
    -------
    The rows, and messages about those without a structure.

    Raises
    ------
    InputError
        A file is missing or of another form, or OmniXAS has no such absorber.
    """
    if absorber not in START_EV:
        raise InputError(f"absorber {absorber}: expected one of OmniXAS's, {', '.join(START_EV)}")
    published = [(part, *row) for part in PARTS if part in parts for row in _part(folder, absorber, part)]
    found = _structures_of({material for _, _, material, _, _ in published}, structures)
    energy: Array = START_EV[absorber] + STEP_EV * np.arange(POINTS, dtype=float)
    spectra: list[FeffSpectrum] = []
    failed: list[str] = []
    for part, name, material, index, mu in published:
        structure = found.get(material)
        if structure is None:
            failed.append(f"{name}: no structure {material}")
        elif isinstance(structure, str):
            failed.append(f"{name}: {structure}")
        elif index >= len(structure) or structure[index].specie.symbol != absorber:
            failed.append(f"{name}: site {index} of its structure is not {absorber}")
        else:
            site = Site(name, material, structure, index, "mp", part)
            spectra.append(FeffSpectrum(site, energy, mu / BACKGROUND[absorber]))
    return spectra, failed


def _part(folder: Path, absorber: str, part: str) -> list[tuple[str, str, int, Array]]:
    """Return id, material, site and spectrum of each row of one part."""
    names = folder / "material_id_and_site" / f"{absorber}_FEFF_{part}.txt"
    targets = folder / "ml_data" / f"{absorber}_FEFF_{part}_y.txt"
    for path in (names, targets):
        if not path.is_file():
            raise InputError(f"{path}: not found; expected the folder tutorial_omnixas of OmniXAS's repository")
    ids = names.read_text(encoding="utf-8").split()
    meant = [_ID.match(i) for i in ids]
    if not all(meant):
        raise InputError(f"{names}: id {ids[meant.index(None)]!r}; expected a form such as mp-640147_002")
    try:
        mu: Array = np.loadtxt(targets, dtype=float, ndmin=2)
    except ValueError as e:
        raise InputError(f"{targets}: {e}; expected {POINTS} numbers per row") from None
    if mu.shape != (len(ids), POINTS):
        raise InputError(f"{targets}: {mu.shape[0]} rows of {mu.shape[1]} numbers; expected {len(ids)} of {POINTS}")
    return [(i, m["material"], int(m["site"]), row) for i, m, row in zip(ids, meant, mu, strict=True) if m]


def _structures_of(materials: Collection[str], path: Path) -> dict[str, Structure | str]:
    """Return the structure of each material, or why it cannot be used."""
    found: dict[str, Structure | str] = {}
    for file in structure_files(path) if path.exists() else []:
        for name, document, read in structures_in(file):
            name = str(document.get("material", name))
            if name not in materials or name in found:
                continue
            try:
                line = "abc" in document
                whole = Structure(document["lattice"], document["species"], document["abc"]) if line else read()
                found[name] = bare(whole)
            except Exception as e:  # pymatgen raises many types of exceptions for unusual structures
                found[name] = str(e) or type(e).__name__
    if not found:
        raise InputError(f"{path}: no structure of {len(materials)} materials; expected files named by their ids")
    return found
