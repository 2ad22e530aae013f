"""What the core asks of the rooms around it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from .array import Array
from .edge import Edge
from .estimate import Estimate
from .frame import Document, SetAside
from .grid import Grid
from .run import RunDocument

Action = Literal["pause", "resume", "stop", "notify"]
Status = Literal["proposed", "sent", "acknowledged", "rejected", "expired"]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a control answered to a request."""

    status: Literal["acknowledged", "rejected", "expired"]
    reason: str = ""


class Source(Protocol):
    """Where documents come from."""

    def __iter__(self) -> Iterator[Document]:
        """Yield documents as they come; ends at the end of a file, or after ``close``."""
        ...

    def close(self) -> None:
        """End the iteration, from any thread."""
        ...


class Sink(Protocol):
    """Where documents go."""

    def __call__(self, name: str, doc: dict[str, Any]) -> None: ...

    def close(self) -> None: ...


class Stage(Protocol):
    """Changes the documents of a run before the assembler reads them: reads files, joins streams.

    A stage receives documents in the order of :class:`RunDocument` and keeps that order. It may hold documents back;
    those of one run do not delay another's. Never raises. Used from one thread.
    """

    @property
    def waiting(self) -> bool:
        """Whether the stage holds documents back that it may release later."""
        ...

    def __call__(self, document: RunDocument) -> Iterable[RunDocument | SetAside]:
        """Take one document; return what can be passed on now."""
        ...

    def poll(self, now: float) -> Iterable[RunDocument | SetAside]:
        """Return what has become ready, or is given up, by ``now`` (``time.monotonic()``)."""
        ...

    def finish(self) -> Iterable[RunDocument | SetAside]:
        """Wait no longer: return all that is held, as far as it can be read."""
        ...


class Control(Protocol):
    """Something that can act on the experiment."""

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        """Ask for ``action``; blocks for at most ``timeout`` s and answers ``expired`` then. Never raises."""
        ...

    def close(self) -> None: ...


class Estimator(Protocol):
    """A model: aligned spectra in, estimates out."""

    name: str
    sha256: str
    absorber: str
    edge_name: str
    """``K``, ``L3``, …"""
    edge: Edge
    grid: Grid
    units: dict[str, str]
    """Of the descriptors, by name."""
    single_site: frozenset[str]
    """Descriptors that mean nothing for a mixture of sites."""

    def estimate(self, spectra: NDArray[np.float32], beside: Mapping[str, Array] | None = None) -> Sequence[Estimate]:
        """Estimate a batch of aligned spectra, (N, G); a row's result does not depend on the others.

        ``beside`` are standard deviations (N,) by descriptor that the intervals must hold beside the model's own.
        """
        ...
