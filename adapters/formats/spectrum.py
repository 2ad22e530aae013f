"""One spectrum of a file, and the check whether it can be used."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ...agent.types import Array, Formula, InputError, Reason, Refusal

MIN_POINTS = 10
"""Smallest number of points of a spectrum; fewer do not show an edge."""
INTENSITIES = ("i0", "it", "fluorescence", "iref")
"""Roles of the intensities in ``FileSpectrum.channels``."""


class SpectrumFileError(InputError):
    """A file contains no readable spectra; the message states the file, what was found and what is expected."""


@dataclass(frozen=True, slots=True)
class FileSpectrum:
    """One spectrum of a file, not yet checked: see :func:`flaw`."""

    id: str
    """``id`` of the row in an npz, otherwise ``file:row`` or ``file:scan``; then ``#1``, … if the energy turns."""
    source: str
    """Path of the file, as the caller gives it."""
    row: int
    """Index among the spectra of the file, from 0."""
    energy: Array
    """(M,) energies, eV; the points of one sweep are sorted."""
    mu: Array
    """(M,) absorption, dimensionless; NaN where an intensity is not positive."""
    reference: Array | None = None
    """(M,) absorption of the reference foil, dimensionless."""
    normalised: bool | None = None
    """True if the file states that ``mu`` is normalised, False if ``mu`` is computed from intensities, None if
    unknown."""
    element: str | None = None
    edge: str | None = None
    title: str | None = None
    """Label of the scan, such as SPEC's command or the name of an Athena group."""
    sample: str | None = None
    time: float | None = None
    """Start of the scan, Unix s; read as local time if the file names no time zone."""
    formula: Formula = "mu"
    """Origin of ``mu``: ln(I0/It), If/I0, or μ or normalised μ in the file."""
    channels: Mapping[str, Array] = field(default_factory=dict)
    """Intensities by role (``INTENSITIES``), (M,) each, in the order of ``energy``. Empty if points at one energy
    were averaged, since no intensity gives their mean μ."""
    parameters: Mapping[str, float] = field(default_factory=dict)
    """Parameters of the analysis stored in the file: ``e0`` (eV), ``pre1``, ``pre2``, ``norm1``, ``norm2`` (eV from
    E0), ``nnorm``, ``edge_step``, ``eshift`` (eV, already in ``energy``)."""
    notes: tuple[str, ...] = ()
    """Guesses, repairs and omissions of the reader, in words."""
    complete: bool = True
    """False if the file ends within this spectrum or before its announced end; ``notes`` describe this."""

    @property
    def sample_or_title(self) -> str:
        """The sample's name or, if the file does not state it, the title of the scan; otherwise empty."""
        return " ".join((self.sample or self.title or "").split())


def flaw(spectrum: FileSpectrum) -> Refusal | None:
    """Return the reason why a spectrum is unusable, or None.

    The energies must be finite and strictly increasing, the absorption finite, and the number of points at least
    ``MIN_POINTS``. The reference is optional and not checked.
    """
    energy, mu = spectrum.energy, spectrum.mu
    if len(energy) < MIN_POINTS:
        return Refusal(Reason.TOO_FEW_POINTS, f"{len(energy)} points, at least {MIN_POINTS} needed")
    if bad := np.count_nonzero(~np.isfinite(energy)):
        return Refusal(Reason.ENERGY_NOT_FINITE, f"{bad} of {len(energy)} values")
    back = np.flatnonzero(energy[1:] <= energy[:-1])
    if back.size:
        before, after = energy[back[0] : back[0] + 2]
        detail = f"{after:.2f} eV after {before:.2f} eV, {back.size} of {len(energy)} points"
        return Refusal(Reason.ENERGY_NOT_MONOTONIC, detail)
    if bad := np.count_nonzero(~np.isfinite(mu)):
        detail = f"{bad} of {len(mu)} values; an intensity is missing or not positive"
        return Refusal(Reason.NAN_IN_DATA, detail)
    return None
