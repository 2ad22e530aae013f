"""The streams and descriptors of a run that may hold spectra, and the progress of reading them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cachetools import FIFOCache

from ..fields import StreamFields
from .sequence import PointBuffer, SequenceNumbers

Doc = Mapping[str, Any]

MAX_WAITING_SPECTRA = 1000
"""Largest number of whole spectra of one stream that wait for their energies."""
MAX_WAITING_BYTES = 32 * 2**20
"""Largest size in memory, bytes, of one stream's Events that wait for their energies."""
MAX_ANSWERED = 10_000
"""Number of Events of one stream whose uids are remembered, so that none is answered twice."""


@dataclass(slots=True)
class SpectrumStream:
    """A stream of spectra; its descriptors may change within the run, while its numbering continues."""

    name: str
    fields: StreamFields
    order: SequenceNumbers
    points: PointBuffer | None
    """The points of a step scan; None for whole spectra."""
    keys: tuple[str, ...] = ()
    """The data keys that a frame needs."""
    waiting: list[tuple["StreamDescriptor", Doc, float]] = field(default_factory=list)
    waiting_bytes: int = 0
    """Size of ``waiting`` in memory, bytes."""
    answered: FIFOCache[str, None] = field(default_factory=lambda: FIFOCache(MAX_ANSWERED))
    """Uids of the latest whole-spectrum Events that were read."""
    read_before: int = 0
    """Number up to which an earlier process read the Events."""
    measured_again: int = 0
    """Number of Events that repeat the number of another Event that was read."""
    reported: int = 0
    """Number of missing Events already reported."""
    report_from: float = -np.inf
    """Arrival time after which further missing Events are reported, monotonic seconds."""

    def position(self) -> list[int] | None:
        """Return the number up to which Events are no longer needed, and the rest of the state for :meth:`restore`.

        It is empty if all Events are needed, and None while spectra wait for energies or missing numbers.
        """
        if self.points is not None:
            return self.points.state()
        if self.fields.formula is None:
            return []
        return None if self.waiting or self.order.ahead else [self.order.ready, self.order.count, self.reported]

    def restore(self, position: list[int]) -> None:
        """Continue after the Events of this position."""
        if self.points is not None:
            self.points.restore(position)
        else:
            ready, count, self.reported = position
            self.read_before = ready
            self.order.restore(ready, count)


@dataclass(slots=True)
class StreamDescriptor:
    """A descriptor with its stream of spectra; ``stream`` is None if its Events hold no part of a spectrum."""

    name: str
    doc: Doc
    fields: StreamFields | None = None
    stream: SpectrumStream | None = None
    candidates: Mapping[str, StreamFields] = field(default_factory=dict)
    """The fields for each data key that may be the energy, as long as the energy is unknown."""
    unread_bytes: int = 0
    unread: list[tuple[Doc, float]] = field(default_factory=list)
    """The Events of a step scan that wait until the energy is known, with their arrival times."""
    events: int = 0
    """Number of Events that no spectrum uses."""
