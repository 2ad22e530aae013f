"""Makes disordered structures of an oxide, rattled or quenched from the melt, as a queue of FEFF jobs.

Each structure is its own material, so that none is on both sides of a split. Needs the ``[train]`` extra, and
for the melts ``[quench]`` (:mod:`xas_agent.models.datasets.quench`).
"""

import gzip
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from pydantic import Field
from pymatgen.core import Structure

from ...agent.types import Array, InputError, Settings
from ..progress import Progress
from .batch import DIED, each, replacing
from .dataset import SplitSettings, split_materials
from .structure_files import row_id, structure_files, structures_in
from .structures import bare

AMORPHOUS = "amorphous"
_LEAST_SHARE = 0.7
"""Smallest distance in a rattled structure relative to its crystal; thermal motion hardly leads to smaller ones."""
_ROUNDS = 1000


class QuenchSettings(Settings):
    """The melting and quenching of a composition, at constant volume, with a Langevin thermostat."""

    atoms: int = Field(default=48, ge=2)
    """Number of atoms of the cubic cell, rounded up to whole formula units."""
    density_g_cm3: float | None = Field(default=None, gt=0)
    """Density, g/cm³; by default that of the given crystal."""
    melt_k: float = Field(default=4500.0, gt=0)
    """Temperature of the melt, K."""
    melt_ps: float = Field(default=0.6, gt=0)
    """Duration of the melt, ps; it begins with random positions."""
    cool_ps: float = Field(default=1.6, gt=0)
    """Duration of the cooling, ps; the temperature falls exponentially."""
    final_k: float = Field(default=300.0, gt=0)
    """Temperature at the end, K."""
    step_fs: float = Field(default=2.0, gt=0, le=5)
    """Time step, fs."""
    friction_per_ps: float = Field(default=15.0, gt=0)
    """Friction of the thermostat, 1/ps."""


class RattleSettings(Settings):
    """Random displacements of the atoms of a crystal."""

    amplitudes_a: tuple[float, ...] = ()
    """Standard deviations of the displacements along each axis, Å."""
    count: int = Field(default=10, ge=1)
    """Number of structures of each crystal and amplitude."""
    least_edge_a: float = Field(default=8.5, gt=0)
    """Smallest edge of the supercell, Å."""


@dataclass(frozen=True)
class Disordered:
    """A disordered structure, one material of a data set."""

    name: str
    kind: str
    """``rattled-0.1`` with the amplitude in Å, or ``amorphous``."""
    structure: Structure


def read_crystals(path: Path, absorber: str) -> dict[str, Structure]:
    """Read the structures of a file or folder that contain the absorber, by name.

    Raises
    ------
    InputError
        There are none, or one cannot be read.
    """
    found: dict[str, Structure] = {}
    for file in structure_files(path) if path.exists() else ():
        try:
            found |= {name: bare(read()) for name, _, read in structures_in(file)}
        except Exception as e:  # pymatgen raises many types of exceptions for unusual structures
            raise InputError(f"{file}: {e}") from None
    found = {name: s for name, s in found.items() if absorber in s.symbol_set}
    if not found:
        raise InputError(f"{path}: no structure with {absorber}; expected CIF, POSCAR or pymatgen's JSON")
    return found


def rattles(crystals: dict[str, Structure], settings: RattleSettings, seed: int) -> Iterator[Disordered]:
    """Yield the rattled supercells of crystals; each depends only on the seed and its own name.

    Raises
    ------
    ValueError
        An amplitude leaves atoms too close.
    """
    for name, crystal in crystals.items():
        large = supercell(crystal, settings.least_edge_a)
        for amplitude in settings.amplitudes_a:
            for k in range(settings.count):
                kind = f"rattled-{amplitude:g}"
                own = f"{name}-{kind}-{k:02d}"
                rng = np.random.default_rng([seed, crc32(own.encode())])
                yield Disordered(own, kind, rattled(large, amplitude, rng))


def supercell(crystal: Structure, least_edge_a: float) -> Structure:
    """Repeat a cell along each axis until no edge is shorter than ``least_edge_a``, Å."""
    return crystal * [ceil(least_edge_a / edge) for edge in crystal.lattice.abc]


def rattled(crystal: Structure, amplitude_a: float, rng: np.random.Generator) -> Structure:
    """Displace all atoms by Gaussian random numbers; atoms that come too close are displaced again.

    Parameters
    ----------
    amplitude_a : standard deviation along each axis, Å

    Raises
    ------
    ValueError
        Atoms remain too close.
    """
    least = _LEAST_SHARE * float(_distances(crystal).min())
    moved = rng.normal(0.0, amplitude_a, (len(crystal), 3))
    for _ in range(_ROUNDS):
        made = Structure(
            crystal.lattice,
            crystal.species,
            crystal.cart_coords + moved,
            coords_are_cartesian=True,
            to_unit_cell=True,
        )
        close = np.unique(np.argwhere(_distances(made) < least))
        if not len(close):
            return made
        moved[close] = rng.normal(0.0, amplitude_a, (len(close), 3))
    raise ValueError(f"displacements of {amplitude_a:g} Å leave atoms nearer than {least:.2f} Å")


def quenches(
    crystals: dict[str, Structure], count: int, settings: QuenchSettings, seed: int, jobs: int, progress: Progress
) -> tuple[list[Disordered], list[str]]:
    """Melt and quench each composition ``count`` times.

    Returns
    -------
    The amorphous structures, and messages about failures.
    """
    from .quench import quenched

    first = {s.reduced_formula: s for s in reversed(crystals.values())}
    tasks = [(f"{formula}-{AMORPHOUS}-{k:02d}", first[formula], seed + k) for formula in first for k in range(count)]
    made: list[Disordered] = []
    failed: list[str] = []
    for k, found in each("quenches", partial(quenched, settings=settings), tasks, jobs, progress, DIED):
        if isinstance(found, str):
            failed.append(f"{tasks[k][0]}: {found}")
        else:
            made.append(Disordered(tasks[k][0], AMORPHOUS, found))
    return sorted(made, key=lambda d: d.name), failed


def jobs_of(
    disordered: Iterable[Disordered], absorber: str, sites: dict[str, int], val_fraction: float, seed: int
) -> list[dict[str, Any]]:
    """Return the FEFF jobs of disordered structures, with crystals and kinds spread evenly over the queue.

    Parameters
    ----------
    sites : number of sites of the absorber, drawn at random, by kind of structure; 1 for kinds not in it
    val_fraction : share of the structures for validation
    """
    disordered = list(disordered)
    split = SplitSettings(val_fraction=val_fraction, seed=seed)
    sides = split_materials([d.name for d in disordered], split)
    groups: dict[str, list[list[dict[str, Any]]]] = {}
    for d in disordered:
        rng = np.random.default_rng([seed, crc32(d.name.encode()), 1])
        of_absorber = [i for i, site in enumerate(d.structure) if site.specie.symbol == absorber]
        drawn = rng.permutation(of_absorber)[: sites.get(d.kind, 1)]
        # One site of each structure, then another one of each.
        rounds = groups.setdefault(d.name.rpartition("-")[0], [])
        for n, index in enumerate(drawn.tolist()):
            rounds += [[] for _ in range(n + 1 - len(rounds))]
            rounds[n].append(_job(d, absorber, index, sides[d.name]))
    queues = [[job for group in rounds for job in group] for rounds in groups.values()]
    spread = [((n + 0.5) / len(queue), k, job) for k, queue in enumerate(queues) for n, job in enumerate(queue)]
    return [job for *_, job in sorted(spread, key=lambda s: s[:2])]


def write_jobs(path: Path, jobs: Sequence[dict[str, Any]]) -> None:
    """Write a queue, one job per line, gzipped if the name ends in ``.gz``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        replacing(path) as beside,
        (gzip.open if path.suffix == ".gz" else open)(beside, "wt", encoding="utf-8") as f,
    ):
        f.writelines(json.dumps(job) + "\n" for job in jobs)


def _job(d: Disordered, absorber: str, index: int, split: str) -> dict[str, Any]:
    s = d.structure
    return {
        "id": row_id(d.name, absorber, index),
        "absorber": absorber,
        "site": index,
        "kind": d.kind,
        "split": split,
        "lattice": s.lattice.matrix.round(6).tolist(),
        "species": [site.specie.symbol for site in s],
        "abc": s.frac_coords.round(6).tolist(),
    }


def _distances(structure: Structure) -> Array:
    """Return the distances of atoms (N, N), Å, infinite on the diagonal."""
    apart = structure.distance_matrix.copy()
    np.fill_diagonal(apart, np.inf)
    return apart
