"""FEFF for one absorbing site: its input written, the program run, its ``xmu.dat`` read back.

FEFF itself is the user's to install (FEFF10, doi 10.1107/S1600577521008614). Needs the ``[train]`` extra.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
from pydantic import Field
from pymatgen.core import Structure

from ...agent.types import Array, InputError, Settings
from .structures import bare, quiet

PROGRAMS = ("feff", "feff10", "feff9")
"""Names looked for on the PATH. Not feff85l and feff8l: among their modules is no full multiple scattering."""
INPUT, OUTPUT, WORK, LOG = "feff.inp", "xmu.dat", "work", "feff.log"
LEAST_POINTS = 20
HEADER_A = 2e-3  # what a header's digits leave open of a distance
SIGNALLED = 128  # from here on a shell's exit code is that of a program ended by a signal


class FeffFailed(RuntimeError):  # noqa: N818 - says what happened
    """A run gave no spectrum; the message says why and where its log is."""


class FeffSettings(Settings):
    """What is computed. Radii of SCF and FMS, core hole, self-energy and energies are by default those of the Co and
    Ni sets that the shipped models were trained on; the other cards are pymatgen's and usual ones."""

    edge: str = "K"
    """Edge of the absorber (card EDGE)."""
    scf_a: float = Field(default=4.0, gt=0)
    """Radius of the self-consistent cluster, Å (card SCF)."""
    fms_a: float = Field(default=5.0, gt=0)
    """Radius of full multiple scattering, Å (card FMS)."""
    cluster_a: float = Field(default=10.0, gt=0)
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
    """A longer run is ended and counts as failed, s."""

    def tags(self) -> dict[str, str | list[str]]:
        """The cards that differ from pymatgen's, with LDOS, which no spectrum needs, left out."""
        return {
            "COREHOLE": self.core_hole,
            "S02": "0",  # from the atomic overlap
            "EXCHANGE": f"{self.exchange} 0.0 0.0 2",
            "SCF": f"{self.scf_a:g} 0 100 0.2 3",
            "FMS": f"{self.fms_a:g} 0",
            "XANES": f"{self.k_max:g} {self.k_step:g} {self.fermi_step_ev:g}",
            "RPATH": "-1",  # no path expansion on top of full multiple scattering
            **self.cards,
            "_del": [] if "LDOS" in self.cards else ["LDOS"],
        }


def feff_input(structure: Structure, site: int, settings: FeffSettings) -> str:
    """The ``feff.inp`` of one site, as pymatgen writes it (FEFF9's and FEFF10's cards).

    Raises
    ------
    ValueError
        The structure has partial occupancies.
    """
    from pymatgen.io.feff.sets import MPXANESSet  # takes seconds, and a process that runs FEFF does not need it

    with quiet():
        made = MPXANESSet(
            site, bare(structure), settings.edge, radius=settings.cluster_a, user_tag_settings=settings.tags()
        ).all_input()
    return "\n\n".join(str(made[part]).rstrip() for part in ("HEADER", "PARAMETERS", "POTENTIALS", "ATOMS")) + "\n"


def site_of_input(path: Path) -> tuple[Structure, int]:
    """The structure and the absorbing site of a ``feff.inp`` that pymatgen wrote: its header holds the cell.

    Raises
    ------
    ValueError
        Another program wrote it, or its cluster is around no site of its header.
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
    shells = structure.get_all_neighbors(reach + 2 * HEADER_A, sites=[structure[i] for i in absorbers])
    for i, shell in zip(absorbers, shells, strict=True):
        if _alike(around, [(n.specie.symbol, n.nn_distance) for n in shell], reach):
            return structure, i
    raise ValueError(f"{path}: its atoms are around no site of the cell in its header")


def _alike(some: list[tuple[str, float]], others: list[tuple[str, float]], reach: float) -> bool:
    """The same elements at the same distances, to a header's digits; a shell at ``reach`` may be in one alone."""
    for element in {e for e, _ in (*some, *others)}:
        one, other = (np.sort([d for e, d in atoms if e == element]) for atoms in (some, others))
        within = max(np.searchsorted(d, reach - 2 * HEADER_A) for d in (one, other))
        if min(len(one), len(other)) < within or not np.allclose(one[:within], other[:within], atol=HEADER_A):
            return False
    return True


def read_xmu(path: Path) -> tuple[Array, Array]:
    """Energy (M,), absolute eV on FEFF's scale, and μ (M,) of an ``xmu.dat``.

    Columns 1 and 4. FEFF has divided μ by its atomic background at 50 eV above the edge, so that it oscillates
    about 1.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        Not a spectrum: no table of six columns, or as :func:`checked` says.
    """
    # Fortran drops the E before an exponent of three digits.
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
    """Both (M,), as they are.

    Raises
    ------
    ValueError
        Fewer than 20 energies, values that are not finite, energies that do not rise, or μ that does not end near 1.
    """
    if len(energy) < LEAST_POINTS or energy.shape != mu.shape:
        raise ValueError(f"energies {energy.shape}, μ {mu.shape}; expected as many, and {LEAST_POINTS} or more")
    if not (np.isfinite(energy).all() and np.isfinite(mu).all() and (np.diff(energy) > 0).all()):
        raise ValueError("values that are not finite, or energies that do not rise")
    if not 0.3 < (level := mu[-(len(mu) // 4) :].mean()) < 3:
        raise ValueError(f"μ ends near {level:.3g}, not 1: not divided by the atomic background (card ABSOLUTE?)")
    return energy, mu


def find_feff(program: str | None = None) -> str:
    """The FEFF program: the one named, a file or a name on the PATH, or the first of :data:`PROGRAMS` there.

    Raises
    ------
    InputError
        There is none; the message says what to do.
    """
    for name in (program,) if program else PROGRAMS:
        if found := shutil.which(name):
            return str(Path(found).absolute())
    raise InputError(
        f"no {program or ' or '.join(PROGRAMS)} on the PATH: install FEFF10 (it is not part of this package) or name"
        " its program; or run FEFF in each folder where it is installed, and collect them afterwards"
    )


def run_feff(folder: Path, program: str, timeout_s: float) -> None:
    """Run FEFF on ``folder/feff.inp``; ``folder/xmu.dat`` appears when it is complete, and only then.

    FEFF runs in ``folder/work``, which is removed after success and stays, with what the program said in
    ``feff.log``, after a failure.

    Raises
    ------
    FeffFailed
        The program failed, took longer than ``timeout_s``, or left no readable spectrum.
    """
    work = folder / WORK
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    shutil.copy(folder / INPUT, work)
    with (work / LOG).open("wb") as log:
        # A session of its own: FEFF's program is a script, and ending it must end what it started.
        running = subprocess.Popen(
            [program], cwd=work, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
        try:
            code = running.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise FeffFailed(f"not done after {timeout_s:g} s (see {work / LOG})") from None
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()
    why = None if 0 <= code < SIGNALLED else "ended by a signal"
    try:
        read_xmu(work / OUTPUT)
    except FileNotFoundError:
        why = why or "no xmu.dat"
    except (OSError, ValueError) as e:
        why = why or str(e)
    if why:
        said = [line for line in (work / LOG).read_text(errors="replace").splitlines() if line.strip()]
        last = said[-1].strip() if said else "nothing"
        raise FeffFailed(f"{why}; exit code {code}, last said: {last} (see {work / LOG})")
    os.replace(work / OUTPUT, folder / OUTPUT)
    shutil.rmtree(work)
