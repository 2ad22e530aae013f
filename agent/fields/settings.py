"""The settings for the fields of a spectrum."""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field, field_validator, model_validator

from ..types import ELEMENTS, Formula, Settings, is_edge
from .monochromator import Relation
from .names import match_keys
from .run_start import parse_absorber

ADAPTIVE_POINTS = "adaptive_points"
"""Stream with the points of an adaptive scan, in no order of energy; another stream holds its spectra."""


class FieldSettings(Settings):
    """The data keys of a spectrum in the documents. The agent detects keys that are not set, for each descriptor.

    Names match in any case and punctuation. A name between slashes is a regular expression for the whole key; the
    absorber replaces ``{element}`` in it, as in ``/{element}[1-7]/``.
    """

    energy: str | None = None
    """Data key of the energy, eV, or keV if the descriptor states that unit."""
    position: str | None = None
    """Data key of the monochromator's position, if no energy is recorded; ``relation`` converts it to energy."""
    relation: Relation | None = None
    """Conversion of ``position`` to energy; without it, a stream with a position is set aside with a message."""
    time: str | None = None
    """Data key of the time at which a point was measured, Unix s; unset: the Event's own time."""
    i0: str | None = None
    """Data key of the incident intensity, any unit, positive."""
    it: str | None = None
    """Data key of the transmitted intensity, in the unit of I0."""
    iref: str | None = None
    """Data key of the intensity behind the reference foil, in the unit of It."""
    fluorescence: tuple[str, ...] = ()
    """Data keys of the fluorescence channels; their values are summed."""
    mu: str | None = None
    """Data key of an absorption that is already computed; ``formula`` tells whether it is also normalised."""
    reference: str | None = None
    """Data key of the reference foil's absorption, if that is already computed."""
    formula: Formula | None = None
    """``transmission``: μ = ln(I0/It); ``fluorescence``: If/I0; ``mu``, ``normalised``: the field ``mu`` unchanged.
    Unset: the first of transmission, fluorescence, mu and normalised whose fields exist, so that all frames are
    normalised alike; fluorescence comes first if the RunStart names it as its mode."""
    element: str | None = None
    """Symbol of the absorber, in any case; unset: from the RunStart."""
    edge: str | None = None
    """K, L3, … in any case, alone or with the absorber, as in ``Ni_K``; unset: from the RunStart."""
    streams: tuple[str, ...] | None = None
    """Streams to read; unset: all that have an energy, except ``baseline``, ``adaptive_points`` and monitors
    (``*_monitor``)."""
    skip_plans: tuple[str, ...] = ("align", "dark", "time_scan", "rocking", "sead", "333")
    """Words that mark runs other than absorption scans, if the plan name or scan kind contains one of them."""
    only_plans: tuple[str, ...] = ()
    """If given, only a run whose plan name or scan kind contains one of these words is an absorption scan."""
    kind_keys: tuple[str, ...] = ("plan_name", "XDI._kind", "scan_kind", "kind")
    """RunStart keys with the plan name or scan kind, in which these words are sought."""
    bin_ev: float | None = Field(default=None, gt=0)
    """Width, eV, of the bins in which the intensities of a sweep are averaged, for axes sampled far more finely than
    the spectrum varies. Unset: every point is used as measured."""
    min_points: int = Field(default=10, ge=3)
    """Smallest number of distinct energies in a frame."""
    max_missing_fraction: float = Field(default=0.02, ge=0, lt=1)
    """A sweep that lost a larger fraction of its points, or 3 successive points, is set aside."""

    @model_validator(mode="before")
    @classmethod
    def _normalise_absorber(cls, content: Any) -> Any:
        if not isinstance(content, Mapping):
            return content
        parsed = zip(("element", "edge"), parse_absorber(content.get("element"), content.get("edge")), strict=True)
        return {**content, **{key: value for key, value in parsed if value is not None}}

    @field_validator("energy", "position", "time", "i0", "it", "iref", "fluorescence", "mu", "reference")
    @classmethod
    def _check_patterns(cls, names: Any) -> Any:
        for name in (names,) if isinstance(names, str) else names or ():
            try:
                match_keys(name, ())
            except re.error as error:
                raise ValueError(f"a regular expression between the slashes ({error})") from None
        return names

    @field_validator("element")
    @classmethod
    def _check_element(cls, element: str | None) -> str | None:
        if element is not None and element not in ELEMENTS:
            raise ValueError(f"the symbol of the absorber, such as Ni; {element} is not an element")
        return element

    @field_validator("edge")
    @classmethod
    def _check_edge(cls, edge: str | None) -> str | None:
        if edge is not None and not is_edge(edge):
            raise ValueError(f"an absorption edge, such as K or L3; {edge} is not an edge")
        return edge

    def reads(self, stream: str) -> bool:
        """Return whether a stream with this name may hold spectra."""
        if self.streams is not None:
            return stream in self.streams
        return stream not in ("baseline", ADAPTIVE_POINTS) and not stream.endswith("_monitor")
