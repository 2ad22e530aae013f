"""Converts spectra of files to frames, equal to those that the agent assembles from their documents."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from ...agent.fields import FieldSettings
from ...agent.stream import UnusableError, strip_padding
from ...agent.stream import form_spectrum as measured_spectrum
from ...agent.types import Formula, Frame, Reason, Refusal, Scan
from ..formats import FileSpectrum, flaw
from .conversion import columns_of

_FOIL = ("iref", "reference")
"""Roles of the reference foil."""


def frame_of(spectrum: FileSpectrum, number: int, fields: FieldSettings) -> Frame | Refusal:
    """Return the measured spectrum as frame ``number``, or the reason why it cannot be a frame.

    The detectors are checked like those of a stream. A series holds the spectra of one sample in one folder that were
    measured in the same way.

    Parameters
    ----------
    spectrum : FileSpectrum
    number : int
        ``seq_num`` of the frame.
    fields : FieldSettings
        Only ``min_points``, ``bin_ev``, ``element`` and ``edge`` apply.

    Returns
    -------
    Frame or Refusal
    """
    columns = columns_of(spectrum)
    roles = tuple(columns)
    formula: Formula = "normalised" if "normalised" in columns else "mu" if "mu" in columns else spectrum.formula
    if formula == "normalised":
        columns["mu"] = columns.pop("normalised")
    try:
        with np.errstate(all="ignore"):  # values out of range are refused below, each with its reason
            measured = measured_spectrum(strip_padding(columns), formula, fields.min_points, fields.bin_ev)
    except UnusableError as error:
        return Refusal(Reason(error.reason), error.detail)
    if refusal := flaw(spectrum):
        return refusal
    # A sample stays itself when its foil is taken out; other columns tell spectra of unnamed samples apart.
    way = [role for role in roles if role not in _FOIL] if spectrum.sample else roles
    key = (str(Path(spectrum.source).parent), spectrum.sample, spectrum.element, spectrum.edge, *way)
    series = " ".join(map(str, key))
    return Frame(
        uid=spectrum.id,
        run_uid=series,
        seq_num=number,
        time=np.nan if spectrum.time is None else spectrum.time,
        energy=measured.energy,
        mu=measured.mu,
        reference=measured.reference,
        normalised=formula == "normalised",
        formula=spectrum.formula,
        element=fields.element or spectrum.element,
        edge=fields.edge or spectrum.edge,
        direction=measured.direction,
        scan=replace(_scan(spectrum), series=series),
    )


def computed_frame_of(spectrum: FileSpectrum, number: int, fields: FieldSettings) -> Frame | Refusal:
    """Return the computed spectrum as frame ``number`` on the file's points, or the reason why it cannot be one.

    Parameters
    ----------
    spectrum : FileSpectrum
    number : int
        ``seq_num`` of the frame.
    fields : FieldSettings
        Only ``element`` and ``edge`` apply.

    Returns
    -------
    Frame or Refusal
    """
    known = np.flatnonzero(~np.isnan(spectrum.mu))
    if len(known):  # an aligned spectrum may end before others in its file
        end = int(known[-1]) + 1
        spectrum = replace(spectrum, energy=spectrum.energy[:end], mu=spectrum.mu[:end])
    if refusal := flaw(spectrum):
        return refusal
    return Frame(
        uid=spectrum.id,
        run_uid=spectrum.source,
        seq_num=number,
        time=np.nan,
        energy=spectrum.energy,
        mu=spectrum.mu,
        formula="mu",
        element=fields.element or spectrum.element,
        edge=fields.edge or spectrum.edge,
        scan=_scan(spectrum),
    )


def _scan(spectrum: FileSpectrum) -> Scan:
    return Scan(sample=spectrum.sample_or_title, file=Path(spectrum.source).name)
