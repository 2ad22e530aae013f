"""A folder of FEFF runs, one folder per site: writes inputs, runs FEFF, and collects spectra.

The folder is a queue. It may be killed at any time and continues from its files: ``xmu.dat`` of finished sites, and
``attempts.json`` with settings, duration and reason of failure of each attempt.

Needs the ``[train]`` extra.
"""

import fcntl
import hashlib
import json
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pymatgen.core import Element, Structure

from ...agent.types import Array, InputError
from ..progress import Progress
from .batch import DIED, each, replacing
from .feff import (
    INPUT,
    OUTPUT,
    WORK,
    FeffEnded,
    FeffFailed,
    FeffSettings,
    feff_input,
    read_xmu,
    run_feff,
    site_of_input,
)
from .structure_files import SITE, Site, row_id
from .structures import digest

ATTEMPTS = "attempts.json"
LOCK = ".lock"
_MAX_MU, _MAX_MU_FROM_Z = 3.2, 21  # largest μ of valid spectra from Sc on; white lines of O, P and Li are higher


@dataclass(frozen=True)
class FeffSpectrum:
    """FEFF's spectrum of a site: energy (M,), absolute eV on FEFF's scale, and μ (M,) over the atomic background."""

    site: Site
    energy: Array
    mu: Array


@dataclass
class RunCounts:
    """Numbers of sites of one absorber by state."""

    done: int = 0
    retried: int = 0
    """Number of finished sites that needed another attempt."""
    failed: int = 0
    waiting: int = 0
    seconds: float = 0.0
    """Duration of all attempts of finished and failed sites."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Reasons of the last attempts of failed sites."""


def highest_mu(element: str) -> float:
    """Return the largest μ of a valid spectrum of an absorber; infinite for light ones."""
    return _MAX_MU if Element(element).Z >= _MAX_MU_FROM_Z else math.inf


@contextmanager
def held(runs: Path) -> Iterator[None]:
    """Lock the folder for this process; the lock of a killed process is released.

    Raises
    ------
    InputError
        Another process has locked it.
    """
    runs.mkdir(parents=True, exist_ok=True)
    with (runs / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(
                f"{runs}: another process runs FEFF there; wait for it, or take another folder"
            ) from None
        yield


def write_inputs(
    sites: Sequence[Site], runs: Path, settings: FeffSettings, jobs: int, progress: Progress
) -> tuple[list[Path], list[str]]:
    """Write a folder ``runs/ID`` with ``feff.inp`` and ``site.json`` for each site.

    A folder whose ``xmu.dat`` was computed with other settings is not changed, and counts as failed.

    Returns
    -------
    The folders without a spectrum, in the order of the sites, and messages about failures.
    """
    runs.mkdir(parents=True, exist_ok=True)
    failed: dict[int, str] = {}
    for k, why in each("inputs", partial(_write, runs=runs, settings=settings), sites, jobs, progress, DIED):
        if why:
            failed[k] = f"{sites[k].id}: {why}"
    folders = [runs / site.id for k, site in enumerate(sites) if k not in failed]
    return [folder for folder in folders if not (folder / OUTPUT).exists()], list(failed.values())


def given_up(folder: Path, settings: FeffSettings) -> bool:
    """Return whether all attempts for a site have failed."""
    return len(_failures(folder)) >= len(settings.ladder())


def try_again(folder: Path) -> None:
    """Delete the record of the attempts."""
    (folder / ATTEMPTS).unlink(missing_ok=True)


def run(
    folders: Sequence[Path], program: str, settings: FeffSettings, jobs: int, progress: Progress
) -> Iterator[tuple[Path, str]]:
    """Run FEFF in each folder, ``jobs`` at a time, with the settings and then those of retries until one succeeds.

    Returns
    -------
    Each folder when it is done, and the reason of a failure or an empty text.
    """
    for k, why in each("FEFF", partial(_run, program=program, settings=settings), folders, jobs, progress, DIED):
        yield folders[k], why


def states(runs: Path, settings: FeffSettings) -> dict[str, RunCounts]:
    """Return the numbers of sites by state for each absorber."""
    found: dict[str, RunCounts] = {}
    for about in sorted(runs.glob(f"*/{SITE}")):
        folder, state = about.parent, found.setdefault(_absorber(about.parent), RunCounts())
        failures = _failures(folder)
        if (folder / OUTPUT).exists():
            state.done += 1
            state.retried += bool(failures)
        elif given_up(folder, settings):
            state.failed += 1
            state.reasons[failures[-1]["why"].split(" (see ")[0]] += 1
        else:
            state.waiting += 1
            continue
        state.seconds += sum(a["seconds"] for a in _attempts(folder))
    return dict(sorted(found.items()))


def collect(runs: Path, absorber: str | None, jobs: int, progress: Progress) -> tuple[list[FeffSpectrum], list[str]]:
    """Collect the spectra of a folder of FEFF runs, each a folder with ``xmu.dat``, and messages about unreadable
    ones.

    The site of a run is read from ``site.json``, or from the header of a ``feff.inp`` by pymatgen.

    Parameters
    ----------
    absorber : symbol; None for all

    Raises
    ------
    InputError
        There are no runs.
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
            failed.append(f"{folders[k].relative_to(runs)}: {spectrum.site.id} is there twice, one is used")
        else:
            found[spectrum.site.id] = spectrum
    if not found:
        why = f"; {failed[0]}" if failed else f"; expected folders with {OUTPUT}"
        raise InputError(f"{runs}: no FEFF run of {absorber or 'any absorber'} that can be used{why}")
    return [found[i] for i in sorted(found)], failed


def _write(site: Site, runs: Path, settings: FeffSettings) -> str:
    """Write the folder of a site; return the reason of a failure or an empty text."""
    folder = runs / site.id
    made = _made_of(site, settings)
    try:
        if (folder / INPUT).exists() and _about(folder).get("made_of") == made:
            return ""
        there = (folder / INPUT).read_text(encoding="utf-8") if (folder / INPUT).exists() else None
        # After a failure, the input is that of a retry.
        known = there and any(feff_input(site.structure, site.index, s) == there for s in settings.ladder())
        if not known and (folder / OUTPUT).exists():
            return f"{OUTPUT} is of another input; take another folder for other settings or structures"
        folder.mkdir(exist_ok=True)
        if not known:
            try_again(folder)
            _write_input(folder, site, settings)
        about = {
            "id": site.id,
            "material": site.material,
            "kind": site.kind,
            "split": site.split,
            "site": site.index,
            "structure": site.structure.as_dict(),
            "made_of": made,
        }
        with replacing(folder / SITE) as path:
            path.write_text(json.dumps(about), encoding="utf-8")
    except Exception as e:  # pymatgen raises many types of exceptions for unusual structures
        return str(e) or type(e).__name__
    return ""


def _made_of(site: Site, settings: FeffSettings) -> str:
    """Return a digest of structure, site and settings, which compares a hundred times faster than the inputs."""
    given = settings.model_dump_json(exclude={"timeout_s"})
    return hashlib.sha256(f"{digest(site.structure)} {site.index} {given}".encode()).hexdigest()[:24]


def _write_input(folder: Path, site: Site, settings: FeffSettings) -> None:
    with replacing(folder / INPUT) as path:
        path.write_text(feff_input(site.structure, site.index, settings), encoding="utf-8")


def _run(folder: Path, program: str, settings: FeffSettings) -> str:
    """Run FEFF; return the reasons of all failures or an empty text."""
    ladder = settings.ladder()
    attempts = _failures(folder)
    try:
        for k in range(len(attempts), len(ladder)):
            _write_input(folder, _site(folder, folder.parent), ladder[k])
            start = time.monotonic()
            why = ""
            try:
                run_feff(folder, program, ladder[k].timeout_s, highest_mu(_absorber(folder)))
            except FeffEnded:
                raise
            except FeffFailed as e:
                why = str(e)
            changed = dict(settings.retries[k - 1]) if k else {}
            attempts.append({"changed": changed, "seconds": round(time.monotonic() - start, 1), "why": why})
            with replacing(folder / ATTEMPTS) as path:
                path.write_text(json.dumps(attempts, indent=1), encoding="utf-8")
            if not why:
                return ""
    except (FeffEnded, OSError) as e:  # not caused by the site, so that this is not an attempt
        return str(e)
    return "; ".join(dict.fromkeys(a["why"] for a in attempts))


def _attempts(folder: Path) -> list[dict[str, Any]]:
    path = folder / ATTEMPTS
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def _failures(folder: Path) -> list[dict[str, Any]]:
    return [a for a in _attempts(folder) if a["why"]]


def _about(folder: Path) -> dict[str, Any]:
    path = folder / SITE
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _absorber(folder: Path) -> str:
    about = _about(folder)
    return about["structure"]["sites"][about["site"]]["species"][0]["element"]


def _read(folder: Path, runs: Path) -> FeffSpectrum | str:
    """Return the spectrum, or the reason of a failure."""
    try:
        energy, mu = read_xmu(folder / OUTPUT)
        return FeffSpectrum(_site(folder, runs), energy, mu)
    except Exception as e:  # as in _write
        return str(e) or type(e).__name__


def _site(folder: Path, runs: Path) -> Site:
    if about := _about(folder):
        structure = Structure.from_dict(about["structure"])
        known = {k: about.get(k, "") for k in ("kind", "split")}
        return Site(about["id"], about["material"], structure, about["site"], **known)
    structure, index = site_of_input(folder / INPUT)
    # Runs of one structure without a name belong to one material.
    material = f"{structure.reduced_formula}-{digest(structure)[:8]}"
    name = "_".join(folder.relative_to(runs).parts) or folder.resolve().name
    return Site(row_id(name, structure[index].specie.symbol, index), material, structure, index)
