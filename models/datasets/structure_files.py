"""Reads absorbing sites from files of structures: CIF, POSCAR, pymatgen's JSON. Needs the ``[train]`` extra."""

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymatgen.core import Structure

from .structures import bare, distinct_sites, quiet

SITE = "site.json"
_ROW = re.compile(r"(?P<material>.+)_(?P<element>[A-Z][a-z]?)(?P<index>\d{3,})$")
_UNSAFE = re.compile(r"[^\w.()+-]")


@dataclass(frozen=True)
class Site:
    """One absorbing site, a row of a data set."""

    id: str
    material: str
    """Name of the material; all sites of a material are on one side of a split."""
    structure: Structure
    index: int
    """Index of the site in ``structure``."""
    kind: str = ""
    split: str = ""
    """Split from a queue of jobs; empty otherwise."""

    @property
    def element(self) -> str:
        """Symbol of the absorber."""
        return self.structure[self.index].specie.symbol


def row_id(material: str, element: str, index: int) -> str:
    """Return the id of a row, ``Co3O4_Co008``, which is also valid as the name of a folder."""
    return f"{_UNSAFE.sub('_', material)}_{element}{index:03d}"


def element_of(name: str) -> str:
    """Return the absorber of a row by its id.

    Raises
    ------
    ValueError
        The id has another form.

    >>> element_of("Co3O4_Co008")
    'Co'
    """
    meant = _ROW.match(name)
    if not meant:
        raise ValueError(f"id {name!r}: expected MATERIAL_Co000")
    return meant["element"]


def material_of(name: str) -> str:
    """Return the material in the id of a row, equal for sites of all absorbers in one structure.

    >>> material_of("Co3O4_Co008"), material_of("Co3O4_Co008_O012"), material_of("Co3O4")
    ('Co3O4', 'Co3O4', 'Co3O4')
    """
    while meant := _ROW.match(name):
        name = meant["material"]
    return name


def structure_files(path: Path) -> list[Path]:
    """Return the files of structures in a folder and its subfolders, or the file itself."""
    if not path.is_dir():
        return [path]
    kept = [p for p in path.rglob("*") if p.is_file() and p.name != SITE and not p.name.startswith(".")]
    return sorted(p for p in kept if _is_json(p) or p.suffix in (".cif", ".vasp") or _poscar(p))


def read_sites(path: Path, absorber: str | None) -> tuple[list[Site], list[str]]:
    """Read the symmetrically distinct sites of the absorber in one file.

    A JSON file holds one structure, a list, or one per line, each as pymatgen writes it or under ``structure`` beside
    its ``id`` (or ``material_id``). An id such as ``Co3O4_Co008`` selects a single site. Or the file is a queue of
    jobs, each with its ``absorber`` and ``site`` (:func:`_job`).

    Parameters
    ----------
    absorber : symbol; None for the absorber of each job

    Returns
    -------
    The sites, and messages about unreadable structures.
    """
    sites: list[Site] = []
    failed: list[str] = []
    try:
        for name, document, read in structures_in(path):
            try:
                sites += _job(document, absorber) if "abc" in document else _sites(name, bare(read()), absorber)
            except Exception as e:  # pymatgen raises many types of exceptions for unusual structures
                failed.append(f"{name}: {e}")
    except (OSError, EOFError, ValueError) as e:
        failed.append(str(e))
    return sites, failed


def read_json(path: Path) -> Iterator[Any]:
    """Yield the documents of a JSON file, gzipped or not: one, a list, or (``.jsonl``) one per line."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as f:
        if ".jsonl" in path.suffixes:
            yield from (json.loads(line) for line in f if line.strip())
        else:
            found = json.load(f)
            yield from found if isinstance(found, list) else [found]


def structures_in(path: Path) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Yield name, JSON document (if any) and reader of each structure of a file."""
    if not _is_json(path):
        name = (
            path.resolve().parent.name if path.name in ("POSCAR", "CONTCAR") else path.name.removesuffix(path.suffix)
        )
        yield name, {}, lambda: _from_file(path)
        return
    stem = path.name.split(".json")[0]
    for k, document in enumerate(read_json(path)):
        if not isinstance(document, dict):
            raise ValueError("expected structures as pymatgen writes them")
        name = document.get("id") or document.get("material_id") or (f"{stem}_{k}" if k else stem)
        yield str(name), document, lambda d=document: Structure.from_dict(d.get("structure", d))


def _from_file(path: Path) -> Structure:
    with quiet():
        return Structure.from_file(path)


def _job(document: dict[str, Any], absorber: str | None) -> list[Site]:
    """Return the site of a job, a line of a queue with ``id``, ``absorber``, ``site``, ``lattice`` (rows in Å),
    ``species`` and ``abc`` (fractional coordinates), and with ``kind`` and ``split`` if known."""
    if absorber not in (None, document["absorber"]):
        return []
    structure = bare(Structure(document["lattice"], document["species"], document["abc"]))
    name, index = document["id"], document["site"]
    if structure[index].specie.symbol != document["absorber"]:
        raise ValueError(f"site {index} is {structure[index].specie}, not {document['absorber']}")
    about = {k: document.get(k, "") for k in ("kind", "split")}
    return [Site(_UNSAFE.sub("_", name), material_of(name), structure, index, **about)]


def _sites(name: str, structure: Structure, absorber: str | None) -> list[Site]:
    if absorber is None:
        raise ValueError("no job: name the absorber")
    meant = _ROW.match(name)
    if meant and int(meant["index"]) < len(structure):
        index = int(meant["index"])
        if structure[index].specie.symbol == meant["element"]:
            asked = meant["element"] == absorber
            return [Site(row_id(meant["material"], absorber, index), meant["material"], structure, index)] * asked
    return [Site(row_id(name, absorber, i), name, structure, i) for i in distinct_sites(structure, absorber)]


def _is_json(path: Path) -> bool:
    return path.name.endswith((".json", ".jsonl", ".json.gz", ".jsonl.gz"))


def _poscar(path: Path) -> bool:
    return "POSCAR" in path.name or "CONTCAR" in path.name
