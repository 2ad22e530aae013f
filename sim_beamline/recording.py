"""Recorded experiments in the form in which a replay measures them again.

A recording is a sequence of :class:`OpenRun`, :class:`OpenStream`, :class:`Reading` and :class:`CloseRun` in the
order of time. :mod:`.recorded_folder` and :mod:`.recorded_documents` read it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..agent.types import InputError
from .devices import RecordedDevice


class ReplayError(InputError):
    """A recording cannot be replayed; the message states the file, what was found and what is expected."""


@dataclass(frozen=True, slots=True)
class OpenRun:
    """The beginning of a run; ``run`` is its key within the recording."""

    run: str
    metadata: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OpenStream:
    """The descriptor of a stream, which may have no Events."""

    run: str
    stream: str
    devices: tuple[RecordedDevice, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """One Event that the replay measures again."""

    run: str
    stream: str
    devices: tuple[RecordedDevice, ...]
    data: Mapping[str, Any]
    timestamps: Mapping[str, float]
    time: float
    """Time of the recorded Event, Unix s."""
    seq_num: int | None = None
    """Number of the recorded Event, which reveals losses and repetitions; None numbers the Events anew."""


@dataclass(frozen=True, slots=True)
class CloseRun:
    """The end of a run with its recorded exit status and reason."""

    run: str
    exit_status: str
    reason: str
    num_events: Mapping[str, int] | None = None
    """Number of Events that the recorded RunStop announces, by stream; None announces those of the replay."""


Step = OpenRun | OpenStream | Reading | CloseRun


def is_frame(reading: Reading) -> bool:
    """Return whether an Event holds a whole spectrum."""
    return any(np.ndim(value) for value in reading.data.values())
