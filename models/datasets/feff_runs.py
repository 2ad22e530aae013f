"""A folder of FEFF runs, one folder a site: inputs written, FEFF run where it has not yet, spectra collected.

Needs the ``[train]`` extra.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pymatgen.core import Structure

from ...agent.types import Array, InputError
from .batch import DIED, Progress, each, replacing
from .feff import INPUT, OUTPUT, WORK, FeffFailed, FeffSettings, feff_input, read_xmu, run_feff, site_of_input
from .structure_files import SITE, Site, row_id
from .structures import digest


@dataclass(frozen=True)
class FeffSpectrum:
    """What FEFF gave for a site: energy (M,) absolute eV on its own scale, μ (M,) over its atomic background."""

    site: Site
    energy: Array
    mu: Array


def write_inputs(
    sites: Sequence[Site], runs: Path, settings: FeffSettings, jobs: int, progress: Progress
) -> tuple[list[Path], list[str]]:
    """A folder ``runs/ID`` with ``feff.inp`` and ``site.json`` for each site.

    A folder whose ``xmu.dat`` was computed with other settings is left alone, and said.

    Returns
    -------
    The folders that FEFF has yet to run in, and what failed, in words.
    """
    runs.mkdir(parents=True, exist_ok=True)
    waiting: list[Path] = []
    failed: list[str] = []
    for k, why in each("inputs", partial(_write, runs=runs, settings=settings), sites, jobs, progress, DIED):
        folder = runs / sites[k].id
        if why:
            failed.append(f"{sites[k].id}: {why}")
        elif not (folder / OUTPUT).exists():
            waiting.append(folder)
    return sorted(waiting), failed


def run(folders: Sequence[Path], program: str, timeout_s: float, jobs: int, progress: Progress) -> list[str]:
    """Run FEFF in each folder, ``jobs`` at a time; what failed, in words."""
    done = each("FEFF", partial(_run, program=program, timeout_s=timeout_s), folders, jobs, progress, DIED)
    return [f"{folders[k].name}: {why}" for k, why in done if why]


def collect(runs: Path, absorber: str | None, jobs: int, progress: Progress) -> tuple[list[FeffSpectrum], list[str]]:
    """The spectra of a folder of FEFF runs, each a folder with ``xmu.dat``, and what could not be read, in words.

    A run's site is what ``site.json`` says, or the header that pymatgen writes into ``feff.inp``.

    Raises
    ------
    InputError
        No run is there, or runs of several absorbers and none was named.
    """
    folders = sorted(p.parent for p in runs.rglob(OUTPUT) if WORK not in p.relative_to(runs).parts)
    found: dict[str, FeffSpectrum] = {}
    failed: list[str] = []
    for k, spectrum in each("spectra", partial(_read, runs=runs), folders, jobs, progress, DIED):
        if isinstance(spectrum, str):
            failed.append(f"{folders[k].relative_to(runs)}: {spectrum}")
        elif absorber not in (None, spectrum.site.element):
            continue
        elif spectrum.site.id in found:
            failed.append(f"{folders[k].relative_to(runs)}: {spectrum.site.id} is there twice, one is taken")
        else:
            found[spectrum.site.id] = spectrum
    elements = sorted({s.site.element for s in found.values()})
    if len(elements) > 1:
        raise InputError(f"{runs}: runs of {', '.join(elements)}; name the absorber that is meant")
    if not found:
        why = f"; {failed[0]}" if failed else f"; expected folders with {OUTPUT}"
        raise InputError(f"{runs}: no FEFF run of {absorber or 'any absorber'} that can be used{why}")
    return [found[i] for i in sorted(found)], failed


def _write(site: Site, runs: Path, settings: FeffSettings) -> str:
    """Nothing, or why not."""
    folder = runs / site.id
    try:
        text = feff_input(site.structure, site.index, settings)
        if (folder / INPUT).exists() and (folder / INPUT).read_text(encoding="utf-8") == text:
            return ""
        if (folder / OUTPUT).exists():
            return f"{OUTPUT} is of another input; take another folder for other settings or structures"
        folder.mkdir(exist_ok=True)
        about = {"id": site.id, "material": site.material, "site": site.index, "structure": site.structure.as_dict()}
        with replacing(folder / SITE) as path:
            path.write_text(json.dumps(about), encoding="utf-8")
        with replacing(folder / INPUT) as path:
            path.write_text(text, encoding="utf-8")
    except Exception as e:  # pymatgen raises whatever an odd structure makes it stumble over
        return str(e) or type(e).__name__
    return ""


def _run(folder: Path, program: str, timeout_s: float) -> str:
    """Nothing, or why not."""
    try:
        run_feff(folder, program, timeout_s)
    except (FeffFailed, OSError) as e:
        return str(e)
    return ""


def _read(folder: Path, runs: Path) -> FeffSpectrum | str:
    """The spectrum, or why not."""
    try:
        energy, mu = read_xmu(folder / OUTPUT)
        return FeffSpectrum(_site(folder, runs), energy, mu)
    except Exception as e:  # as in _write
        return str(e) or type(e).__name__


def _site(folder: Path, runs: Path) -> Site:
    if (folder / SITE).exists():
        about = json.loads((folder / SITE).read_text(encoding="utf-8"))
        return Site(about["id"], about["material"], Structure.from_dict(about["structure"]), about["site"])
    structure, index = site_of_input(folder / INPUT)
    # Nothing names the material: runs of one structure are of one.
    material = f"{structure.reduced_formula}-{digest(structure)[:8]}"
    name = "_".join(folder.relative_to(runs).parts) or folder.resolve().name
    return Site(row_id(name, structure[index].specie.symbol, index), material, structure, index)
