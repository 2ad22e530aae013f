"""One spectrum of a file, and what is wrong with it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ...agent.types import Array, Formula, InputError, Reason, Refusal

MIN_POINTS = 10
"""A spectrum of fewer points shows no edge."""


class SpectrumFileError(InputError):
    """A file without spectra; the message names it, what was found and what was expected."""


@dataclass(frozen=True, slots=True)
class FileSpectrum:
    """One spectrum of a file, as it stands there."""

    id: str
    """The npz's own ``id``, else ``file:row`` or ``file:scan``."""
    source: str
    """Path of the file, as given."""
    row: int
    """Place among the spectra of the file, from 0; in an npz its row."""
    energy: Array
    """(M,) eV; rising where the file has it falling. As it stands there otherwise: see ``flaw``."""
    mu: Array
    """(M,) absorption; NaN where an intensity is not positive."""
    reference: Array | None = None
    """(M,) absorption of the reference foil."""
    normalised: bool | None = None
    """Whether the file says that ``mu`` is normalised (True), computes it from intensities (False), or does
    not tell (None)."""
    element: str | None = None
    edge: str | None = None
    title: str | None = None
    """The label of the scan, such as SPEC's command line or the name of an Athena group."""
    sample: str | None = None
    time: float | None = None
    """Unix seconds of the start of the scan; local time where the file names no zone."""
    formula: Formula = "mu"
    """What ``mu`` was made of: ``transmission`` ln(I0/It), ``fluorescence`` If/I0, or as it stands in the file."""
    channels: Mapping[str, Array] = field(default_factory=dict)
    """The intensities of the file by role (``i0``, ``it``, ``if``, ``ir``), each (M,), in the order of ``energy``.
    Empty where points at one energy were averaged: their μ is a mean, which no intensity gives."""
    parameters: Mapping[str, float] = field(default_factory=dict)
    """What the file says of its evaluation: ``e0`` (eV), ``pre1``, ``pre2``, ``norm1``, ``norm2`` (eV from E0),
    ``nnorm``, ``edge_step``, ``eshift`` (eV, already in ``energy``)."""
    notes: tuple[str, ...] = ()
    """What was guessed, repaired or left out in reading, in words."""
    complete: bool = True
    """False where the file breaks off within this spectrum or before its announced end; ``notes`` say how."""


def flaw(spectrum: FileSpectrum) -> Refusal | None:
    """Why a spectrum cannot be used; None when it can.

    Its energies must be finite and rise strictly, its absorption be finite, its points be ``MIN_POINTS`` or more.
    A spectrum can do without its reference, which is not checked.
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
