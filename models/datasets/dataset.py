"""Makes ``NAME.npz`` and ``NAME.csv`` from structures and FEFF runs.

This is the form that :mod:`xas_agent.models.training.data` reads.

Labels take long to compute; they are stored one by one and reused by later calls. Needs the ``[train]`` extra.
"""

import csv
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import Field
from pymatgen.core import Structure

from ...agent.types import InputError, Settings
from ..lengthen import lengthen
from ..progress import Progress
from .batch import DIED, each, replacing
from .feff_runs import FeffSpectrum
from .structure_files import Site, read_sites, structure_files
from .structures import DESCRIPTORS, INTEGER, describe, digest

Labels = dict[str, float]
Known = dict[tuple[str, int], Labels]
"""Labels by (digest of the structure, site)."""
COLUMNS = ("id", "material", "formula", "kind", "site", "natoms", "split", *DESCRIPTORS)
DECIMALS = {**dict.fromkeys(DESCRIPTORS, 5), "OS_mean": 4, **dict.fromkeys(INTEGER, 0)}


class SplitSettings(Settings):
    """Choice of the validation materials."""

    val_fraction: float = Field(default=0.15, ge=0, lt=1)
    """Share of the materials; unless it is 0, at least one of two or more materials is chosen."""
    seed: int = Field(default=0, ge=0)
    """Seed of the choice."""


def find_sites(path: Path, absorber: str | None, jobs: int, progress: Progress) -> tuple[list[Site], list[str]]:
    """Find the distinct sites of the absorber in a folder of structures.

    The sites are in the order of the files, and of their contents, so that a queue keeps its order.

    Parameters
    ----------
    absorber : symbol; None for a queue, whose jobs name their absorbers

    Returns
    -------
    The sites, and messages about unreadable structures.

    Raises
    ------
    InputError
        There are no structures, or no readable one has the absorber.
    """
    files = structure_files(path) if path.exists() else []
    if not files:
        raise InputError(f"{path}: no structures; expected CIF, POSCAR or pymatgen's JSON (.json, .jsonl, also .gz)")
    found: dict[str, Site] = {}
    failed: list[str] = []
    read = partial(read_sites, absorber=absorber)
    for k, (sites, why) in sorted(each("structures", read, files, jobs, progress, ([], [DIED])), key=lambda r: r[0]):
        failed += [f"{files[k].name}: {reason}" for reason in why]
        for site in sites:
            if found.setdefault(site.id, site) is not site:
                failed.append(f"{site.id}: found twice, one is used")
    if not found:
        raise InputError(
            f"{path}: no {absorber or 'absorbing'} site in {len(files)} files" + (f"; {failed[0]}" if failed else "")
        )
    return list(found.values()), failed


def label(sites: Sequence[Site], kept: Path, jobs: int, progress: Progress) -> tuple[Known, list[str]]:
    """Compute the descriptors of sites.

    Parameters
    ----------
    kept : ``.jsonl`` file with the labels of earlier calls, one line per site; new ones are appended

    Returns
    -------
    Labels by (digest of the structure, site), and messages about failures.
    """
    known = _read_kept(kept)
    todo: dict[str, tuple[Structure, list[int]]] = {}
    for site in sites:
        key = digest(site.structure)
        indices = todo.setdefault(key, (site.structure, []))[1]
        if (key, site.index) not in known and site.index not in indices:
            indices.append(site.index)
    work = [(key, *task) for key, task in todo.items() if task[1]]
    failed: list[str] = []
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.open("a", encoding="utf-8") as f:
        for k, labels in each("labels", _labels, work, jobs, progress, DIED):
            key, structure, indices = work[k]
            if isinstance(labels, str):
                failed.append(f"{structure.reduced_formula}: {labels}")
                continue
            for i, found in zip(indices, labels, strict=True):
                known[key, i] = found
                values = {d: None if math.isnan(v) else float(v) for d, v in found.items()}
                f.write(json.dumps({"structure": key, "site": i, **values}) + "\n")
            f.flush()
    return known, failed


def labels_of(site: Site, known: Known) -> Labels | None:
    """Return the labels of a site; None if :func:`label` failed."""
    return known.get((digest(site.structure), site.index))


def split_materials(materials: Sequence[str], split: SplitSettings) -> dict[str, str]:
    """Return ``train`` or ``val`` by material, drawn by name, so that a larger set keeps most assignments."""

    def draw(material: str) -> bytes:
        return hashlib.sha256(f"{split.seed}:{material}".encode()).digest()

    drawn = sorted(set(materials), key=draw)
    several = len(drawn) > 1 and split.val_fraction > 0
    count = max(round(split.val_fraction * len(drawn)), int(several))
    return {m: "val" if k < count else "train" for k, m in enumerate(drawn)}


def write_table(path: Path, sites: Sequence[Site], labels: Sequence[Labels], sides: Mapping[str, str]) -> None:
    """Write the CSV of a data set, a row per site; cells of missing descriptors are empty."""
    with replacing(path) as beside, beside.open("w", newline="", encoding="utf-8") as f:
        table = csv.writer(f)
        table.writerow(COLUMNS)
        for site, values in zip(sites, labels, strict=True):
            table.writerow(table_cells(site, values, site.split or sides[site.material]))


def table_cells(site: Site, values: Labels, split: str) -> tuple[str | int, ...]:
    """Return the cells of a site in the order of :data:`COLUMNS`; those of missing descriptors are empty."""
    s = site.structure
    cells = ["" if math.isnan(values[d]) else _number(values[d], DECIMALS[d]) for d in DESCRIPTORS]
    return site.id, site.material, s.reduced_formula, site.kind, site.index, len(s), split, *cells


def write_pair(
    out: Path, name: str, spectra: Sequence[FeffSpectrum], labels: Sequence[Labels], sides: Mapping[str, str]
) -> None:
    """Write ``out/NAME.npz`` and ``out/NAME.csv``; after an error each file is complete or unchanged.

    Parameters
    ----------
    spectra, labels : one per row; points are added to shorter spectra (:func:`lengthen`)
    sides : split by material, for sites without one
    """
    points = max(len(s.energy) for s in spectra)
    longer = [lengthen(s.energy, s.mu, points) for s in spectra]
    # The table first: additional ids in it do no harm, missing ones do.
    write_table(out / f"{name}.csv", [s.site for s in spectra], labels, sides)
    energy, mu = (np.array(a) for a in zip(*longer, strict=True))
    with replacing(out / f"{name}.npz") as beside, beside.open("wb") as f:
        np.savez_compressed(f, id=np.array([s.site.id for s in spectra]), energy=energy, mu=mu)


def _labels(task: tuple[str, Structure, list[int]]) -> list[Labels] | str:
    """Return the labels of some sites of one structure, or the reason for a failure."""
    try:
        return describe(task[1], task[2])
    except Exception as e:  # pymatgen raises many types of exceptions for unusual structures
        return str(e) or type(e).__name__


def _read_kept(path: Path) -> Known:
    """Read the labels of earlier calls; an incomplete last line is removed."""
    if not path.exists():
        return {}
    whole, _, torn = path.read_text(encoding="utf-8").rpartition("\n")
    if torn:
        with replacing(path) as beside:
            beside.write_text(whole + "\n" * bool(whole), encoding="utf-8")
    known: Known = {}
    for line in whole.splitlines():
        kept = json.loads(line)
        found = {d: math.nan if kept[d] is None else kept[d] for d in DESCRIPTORS}
        known[kept["structure"], kept["site"]] = found
    return known


def _number(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}" if decimals == 0 else str(round(float(value), decimals))
