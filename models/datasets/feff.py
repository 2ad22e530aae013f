"""FEFF for one absorbing site: writes the input, runs the program, and reads ``xmu.dat``.

Users install FEFF themselves (FEFF10, doi 10.1107/S1600577521008614). Needs the ``[train]`` extra.
"""

import contextlib
import math
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field
from pymatgen.core import Element, Structure

from ...agent.types import Array, InputError, Settings
from .structures import bare, quiet

PROGRAMS = ("feff", "feff10", "feff9")
"""Names on the PATH; feff85l and feff8l are excluded, since they have no full multiple scattering."""
INPUT, OUTPUT, WORK, LOG = "feff.inp", "xmu.dat", "work", "feff.log"
_MIN_POINTS = 20
_HEADER_ROUNDING_A = 2e-3  # rounding of distances in a header
_SIGNAL_EXIT_CODE = 128  # a shell adds it to the number of the signal that ended a program
_EXTERNAL_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM)
_ERROR_LINE = re.compile(r"Convergence not reached|Bad counts|Cannot|quitting|[Ee]rror|ERROR")
"""Messages of failure in FEFF's output. Later lines come from modules that lack the output of the failed one."""


class FeffFailed(RuntimeError):  # noqa: N818  a past participle states the event
    """A run gave no spectrum; the message states the reason and the log."""


class FeffEnded(FeffFailed):
    """Another process ended the run; the site may still succeed."""


class FeffSettings(Settings):
    """Settings of FEFF. The default radii of SCF and FMS, core hole, self-energy and energies are those of the Co and
    Ni sets of the shipped models; the other cards are pymatgen's defaults."""

    edge: str = "K"
    """Edge of the absorber (card EDGE)."""
    scf_a: float = Field(default=4.0, gt=0)
    """Radius of the self-consistent cluster, Å (card SCF)."""
    scf_mixing: float = Field(default=0.2, gt=0, le=0.5)
    """Share of the new density in each self-consistency iteration (card SCF)."""
    fms_a: float = Field(default=5.0, gt=0)
    """Radius of full multiple scattering, Å (card FMS)."""
    cluster_a: float = Field(default=6.5, gt=0)
    """Radius of the listed atoms, Å; larger than ``fms_a``, so that the outermost potentials overlap their
    neighbours' (ATOMS)."""
    k_max: float = Field(default=5.0, gt=0)
    """Largest photoelectron wave number, 1/Å; 5 is 95 eV above the Fermi level (card XANES)."""
    k_step: float = Field(default=0.05, gt=0)
    """Step in wave number, 1/Å (card XANES)."""
    fermi_step_ev: float = Field(default=0.1, gt=0)
    """Energy step at the Fermi level, eV (card XANES)."""
    core_hole: str = "RPA"
    """Screening of the core hole: RPA, FSR or NONE (card COREHOLE)."""
    exchange: int = 0
    """Self-energy; 0 is Hedin-Lundqvist (card EXCHANGE)."""
    cards: dict[str, str] = Field(default_factory=dict)
    """Further cards, or other values for pymatgen’s, as in feff.inp: ``{"S02": "1.0"}``."""
    timeout_s: float = Field(default=14400.0, gt=0)
    """Longest duration of a run, s; a longer run is ended and counts as failed."""
    retries: tuple[dict[Literal["scf_a", "scf_mixing", "cluster_a"], float], ...] = (
        {"scf_mixing": 0.05},
        {"scf_mixing": 0.05, "cluster_a": 8.5},
    )
    """Changes to these settings, tried in order when FEFF fails, usually in SCF."""

    def ladder(self) -> list[Self]:
        """Return these settings and those of each retry."""
        return [self, *(self.model_copy(update={**changed}) for changed in self.retries)]

    def tags(self) -> dict[str, str | list[str]]:
        """Return the cards that differ from pymatgen's, without LDOS, which spectra do not need."""
        return {
            "COREHOLE": self.core_hole,
            "S02": "1",
            "EXCHANGE": f"{self.exchange} 0.0 0.0 2",
            "SCF": f"{self.scf_a:g} 0 100 {self.scf_mixing:g} 3",
            "FMS": f"{self.fms_a:g} 0",
            "XANES": f"{self.k_max:g} {self.k_step:g} {self.fermi_step_ev:g}",
            "RPATH": "-1",  # no path expansion on top of full multiple scattering
            **self.cards,
            "_del": [] if "LDOS" in self.cards else ["LDOS"],
        }


def feff_input(structure: Structure, site: int, settings: FeffSettings) -> str:
    """Return the ``feff.inp`` of one site as pymatgen writes it, with the cards of FEFF9 and FEFF10.

    Raises
    ------
    ValueError
        The structure has partial occupancies.
    """
    from pymatgen.io.feff.sets import MPXANESSet  # takes seconds

    with quiet():
        made = MPXANESSet(
            site, bare(structure), settings.edge, radius=settings.cluster_a, user_tag_settings=settings.tags()
        )
        atoms = made.atoms
        parts = (made.header(), made.tags, _potentials(atoms.pot_dict, structure, site), atoms)
    return "\n\n".join(str(part).rstrip() for part in parts) + "\n"


def _potentials(numbers: dict[str, int], structure: Structure, site: int) -> str:
    """Return the POTENTIALS card, with the amounts of the elements in the cell.

    FEFF chooses the Fermi level for which these amounts are neutral. pymatgen writes the amounts of the cluster,
    whose composition differs from the crystal's; in LaNiO3 this shifts the spectrum by 0.9 eV.

    Parameters
    ----------
    numbers : number of each element's potential; an element whose only atom is the absorber has none
    """
    amounts = structure.composition.get_el_amt_dict()
    absorber = structure[site].specie.symbol
    own = 0.0001 if absorber in numbers else amounts[absorber]  # otherwise the absorber counts with its element
    rows = [(0, absorber, own), *((k, e, amounts[e]) for e, k in sorted(numbers.items(), key=lambda n: n[1]))]
    lines = [f"{k:7d} {Element(e).Z:4d}  {e:4s} -1 -1 {amount:10g}" for k, e, amount in rows]
    return "\n".join(["POTENTIALS", "*  ipot    Z  tag lmax1 lmax2 amount", *lines])


def site_of_input(path: Path) -> tuple[Structure, int]:
    """Read structure and absorbing site from a ``feff.inp`` by pymatgen, whose header contains the cell.

    Raises
    ------
    ValueError
        Another program wrote it, or its cluster surrounds no site of the cell.
    """
    from pymatgen.io.feff.inputs import Atoms, Header

    with quiet():
        structure = Header.from_file(str(path)).struct
        cluster = Atoms.cluster_from_file(str(path))
    if not isinstance(structure, Structure):
        raise ValueError(f"{path}: a molecule; expected a crystal")
    around = [(a.specie.symbol, a.distance(cluster[0])) for a in cluster[1:]]
    reach = max((d for _, d in around), default=0.0)
    absorbers = structure.indices_from_symbol(cluster[0].specie.symbol)
    shells = structure.get_all_neighbors(reach + 2 * _HEADER_ROUNDING_A, sites=[structure[i] for i in absorbers])
    for i, shell in zip(absorbers, shells, strict=True):
        if _alike(around, [(n.specie.symbol, n.nn_distance) for n in shell], reach):
            return structure, i
    raise ValueError(f"{path}: its cluster surrounds no site of the cell in its header")


def _alike(some: list[tuple[str, float]], others: list[tuple[str, float]], reach: float) -> bool:
    """Return whether elements and distances agree to the header's digits; a shell at ``reach`` may be in one only."""
    for element in {e for e, _ in (*some, *others)}:
        one, other = (np.sort([d for e, d in atoms if e == element]) for atoms in (some, others))
        within = max(np.searchsorted(d, reach - 2 * _HEADER_ROUNDING_A) for d in (one, other))
        if min(len(one), len(other)) < within or not np.allclose(
            one[:within], other[:within], atol=_HEADER_ROUNDING_A
        ):
            return False
    return True


def read_xmu(path: Path) -> tuple[Array, Array]:
    """Read energy (M,), absolute eV on FEFF's scale, and μ (M,) from columns 1 and 4 of an ``xmu.dat``.

    FEFF has divided μ by its atomic background at 50 eV above the edge, so that μ oscillates about 1.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        The file has no table of six columns, or :func:`checked` refuses the spectrum.
    """
    # Fortran omits the E before an exponent of three digits.
    text = re.sub(r"(?<=\d)([+-]\d{3})(?=\s)", r"E\1", path.read_text(encoding="utf-8", errors="replace"))
    rows = [line.split() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    try:
        table = np.array([[float(word) for word in row] for row in rows])
    except ValueError as e:
        raise ValueError(f"not FEFF's table: {e}") from None
    if table.ndim != 2 or table.shape[1] != 6:
        raise ValueError("not FEFF's table of six columns")
    return checked(table[:, 0], table[:, 3])


def checked(energy: Array, mu: Array) -> tuple[Array, Array]:
    """Return energy, eV, and μ, (M,) each, after checks.

    Raises
    ------
    ValueError
        There are fewer than 20 energies, values are not finite, energies do not rise, or μ does not end near 1.
    """
    if len(energy) < _MIN_POINTS or energy.shape != mu.shape:
        raise ValueError(f"energies {energy.shape}, μ {mu.shape}; expected as many, and {_MIN_POINTS} or more")
    if not (np.isfinite(energy).all() and np.isfinite(mu).all() and (np.diff(energy) > 0).all()):
        raise ValueError("values that are not finite, or energies that do not rise")
    if not 0.3 < (level := mu[-(len(mu) // 4) :].mean()) < 3:
        raise ValueError(f"μ ends near {level:.3g}, not 1: not divided by the atomic background (card ABSOLUTE?)")
    return energy, mu


def find_feff(program: str | None = None) -> str:
    """Find the FEFF program: a file or name on the PATH, or the first of :data:`PROGRAMS`.

    Raises
    ------
    InputError
        It is not found.
    """
    for name in (program,) if program else PROGRAMS:
        if found := shutil.which(name):
            return str(Path(found).absolute())
    raise InputError(
        f"no {program or ' or '.join(PROGRAMS)} on the PATH: install FEFF10 (it is not part of this package) or name"
        " its program; or run FEFF in each folder where it is installed, and collect them afterwards"
    )


@contextlib.contextmanager
def _deferred_interrupts() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM: an exception within Popen would leave a program that nobody ends."""
    if threading.current_thread() is not threading.main_thread():  # other threads are never interrupted
        yield
        return
    caught: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    before = [(number, signal.signal(number, lambda number, _: caught.append(number))) for number in signals]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
        for number in caught:
            signal.raise_signal(number)


def run_feff(folder: Path, program: str, timeout_s: float, highest: float = math.inf) -> None:
    """Run FEFF on ``folder/feff.inp``; ``folder/xmu.dat`` appears only when it is complete.

    FEFF runs in ``folder/work``. The folder is removed after success; after a failure it remains, with FEFF's output
    in ``feff.log``.

    Parameters
    ----------
    highest : largest μ of a valid spectrum

    Raises
    ------
    FeffEnded
        Another process ended the program.
    FeffFailed
        It failed, its SCF did not converge, it took longer than ``timeout_s``, or it left no readable spectrum.
    """
    work = folder / WORK
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    shutil.copy(folder / INPUT, work)
    running = None
    with (work / LOG).open("wb") as log:
        try:
            # A separate session, so that all programs that the FEFF script started can be ended.
            with _deferred_interrupts():
                running = subprocess.Popen(
                    [program], cwd=work, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            code = running.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise FeffFailed(f"not done after {timeout_s:g} s (see {work / LOG})") from None
        finally:
            if running is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(running.pid, signal.SIGKILL)
                running.wait()
    lines = [line.strip() for line in (work / LOG).read_text(errors="replace").splitlines() if line.strip()]
    complaint = next(filter(_ERROR_LINE.search, lines), None)
    why = None if 0 <= code < _SIGNAL_EXIT_CODE else "ended by a signal"
    if complaint and "Convergence" in complaint:  # FEFF continues with potentials that are not self-consistent
        why = why or "no self-consistency"
    try:
        top = read_xmu(work / OUTPUT)[1].max()
        why = why or (f"a spike of μ above {highest:g}" if top > highest else None)
    except FileNotFoundError:
        why = why or "no xmu.dat"
    except (OSError, ValueError) as e:
        why = why or str(e)
    if why:
        output = f"output: {complaint}" if complaint else f"last output: {lines[-1] if lines else 'none'}"
        kind = (
            FeffEnded if code in {c for s in _EXTERNAL_SIGNALS for c in (-s, _SIGNAL_EXIT_CODE + s)} else FeffFailed
        )
        raise kind(f"{why}; exit code {code}, {output} (see {work / LOG})")
    os.replace(work / OUTPUT, folder / OUTPUT)
    shutil.rmtree(work)
