"""Spectra of files as the frames that the agent would make of them, had they been streamed."""

from pathlib import Path

import numpy as np

from ...agent.fields import FieldMap
from ...agent.stream import UnusableError, strip_padding
from ...agent.stream import spectrum as swept
from ...agent.types import Frame
from ..formats import FileSpectrum, flaw
from .conversion import columns_of

_ROLES = {"itrans": "it", "ifluor": "if", "irefer": "iref", "norm": "mu"}
"""Of the data keys that documents made of files have; the others are called as their roles."""


def frame_of(spectrum: FileSpectrum, number: int, fields: FieldMap) -> Frame | str:
    """The spectrum as frame ``number``, or why it can be none, as ``reason: detail``.

    Its detectors are looked at as those of a stream are. A series is what was measured of one sample in one way and
    lies in one folder.

    Parameters
    ----------
    fields : of which only ``min_points``, ``bin_ev``, ``element`` and ``edge`` are heeded
    """
    keys = columns_of(spectrum)
    columns = {_ROLES.get(key, key): column for key, column in keys.items()}
    formula = "normalised" if "norm" in keys else "mu" if "mu" in keys else spectrum.formula
    try:
        with np.errstate(all="ignore"):  # numbers that no detector has are refused below, each with its reason
            found = swept(strip_padding(columns), formula, fields.min_points, fields.bin_ev)
    except UnusableError as error:
        return f"{error.reason}: {error.detail}" if error.detail else error.reason
    if why := flaw(spectrum):
        return why
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
