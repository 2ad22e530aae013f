"""Spectra of files as the frames that the agent would make of them, had they been streamed."""

from pathlib import Path

import numpy as np

from ...agent.fields import FieldSettings
from ...agent.stream import UnusableError, strip_padding
from ...agent.stream import spectrum as swept
from ...agent.types import Frame, Reason, Refusal
from ..formats import FileSpectrum, flaw
from .conversion import columns_of

_ROLES = {"itrans": "it", "ifluor": "if", "irefer": "iref", "norm": "mu"}
"""Roles of the data keys that documents made of files have; the other keys are named as their roles."""


def frame_of(spectrum: FileSpectrum, number: int, fields: FieldSettings) -> Frame | Refusal:
    """The measured spectrum as frame ``number``, or why it cannot be one.

    Its detectors are checked as those of a stream are. A series is the spectra of one sample, measured in one way,
    that lie in one folder.

    Parameters
    ----------
    fields : only ``min_points``, ``bin_ev``, ``element`` and ``edge`` apply
    """
    keys = columns_of(spectrum)
    columns = {_ROLES.get(key, key): column for key, column in keys.items()}
    formula = "normalised" if "norm" in keys else "mu" if "mu" in keys else spectrum.formula
    try:
        with np.errstate(all="ignore"):  # numbers that no detector has are refused below, each with its reason
            found = swept(strip_padding(columns), formula, fields.min_points, fields.bin_ev)
    except UnusableError as error:
        return Refusal(Reason(error.reason), error.detail)
    if refusal := flaw(spectrum):
        return refusal
    series = (str(Path(spectrum.source).parent), spectrum.sample, spectrum.element, spectrum.edge, *keys)
    return Frame(
        uid=spectrum.id,
        run_uid=" ".join(map(str, series)),
        seq_num=number,
        time=np.nan if spectrum.time is None else spectrum.time,
        energy=found.energy,
        mu=found.mu,
        reference=found.reference,
        normalised=formula == "normalised",
        formula=spectrum.formula,
        element=fields.element or spectrum.element,
        edge=fields.edge or spectrum.edge,
        direction=found.direction,
    )


def computed_frame_of(spectrum: FileSpectrum, number: int, fields: FieldSettings) -> Frame | Refusal:
    """The computed spectrum as frame ``number``, its points as they are in the file, or why it cannot be one.

    Parameters
    ----------
    fields : only ``element`` and ``edge`` apply
    """
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
    )
