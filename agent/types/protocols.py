"""The interfaces that sources, stages, controls and models implement."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from .array import Array
from .edge import Edge
from .estimate import Estimate, Reach
from .frame import Document, SetAside
from .grid import Grid
from .run import RunDocument

RobotAction = Literal["load", "unload", "dose", "heat"]
Action = Literal["pause", "resume", "stop", "abort", "set", "repeat_frame", "queue_plan", "notify", RobotAction]
ROBOT_ACTIONS: tuple[str, ...] = get_args(RobotAction)
"""Actions of a robot that synthesises, prepares or changes samples; they may take minutes."""
RobotOrder = Literal["halt", "release"]
ROBOT_ORDERS: tuple[str, ...] = get_args(RobotOrder)
"""A person's orders to a robot that no rule can give: an emergency stop, and its end."""
URGENT_ACTIONS = ("stop", "abort")
COURSE_OF_A_RUN = {"stop": 0, "abort": 0, "pause": 1, "resume": 2}
"""Actions that contradict each other on one frame, with their ranks; the safest one is carried out."""
"""Actions that take precedence over all others."""
Status = Literal["proposed", "approved", "sent", "acknowledged", "rejected", "expired"]


@dataclass(frozen=True, slots=True)
class Reply:
    """A control's answer to a request."""

    status: Literal["acknowledged", "rejected", "expired"]
    reason: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Requested data, JSON values by key."""


class Source(Protocol):
    """A sequence of documents from a file or a transport."""

    def __iter__(self) -> Iterator[Document]:
        """Yield documents as they arrive, until the file ends or ``close`` is called."""
        ...

    def close(self) -> None:
        """End the iteration, from any thread."""
        ...


@runtime_checkable
class DurableSource(Source, Protocol):
    """A source that continues at its own position after a restart."""

    @property
    def position(self) -> Mapping[str, Any]:
        """Change that the latest document made to the source's position: JSON values by key."""
        ...

    def resume(self, position: Mapping[str, Any]) -> None:
        """Continue after the document with this position; an empty position belongs to a new source."""
        ...


@runtime_checkable
class AgedSource(Source, Protocol):
    """A source that knows the age of its documents; documents of other sources count as new."""

    @property
    def age_s(self) -> float:
        """Time that the latest document waited before it was yielded, s, plus ``REPLAYED_S`` if another agent had
        acknowledged it or its run was already over."""
        ...


@runtime_checkable
class SharedSource(DurableSource, AgedSource, Protocol):
    """A source that several agents share: it keeps documents until they are acknowledged, and hands runs to others.

    ``close`` ends the iteration; acknowledgements are accepted until ``release``.
    """

    @property
    def takeovers(self) -> int:
        """Number of occasions on which runs may have come from another agent."""
        ...

    handing_over: Callable[[], None]
    """Called before another agent receives runs, once :meth:`holds` denies them; it returns when the broker has all
    documents published for them."""

    def holds(self, run: str) -> bool:
        """Return whether this agent answers a run; may be called from any thread."""
        ...

    def is_current(self, position: Mapping[str, Any]) -> bool:
        """Return whether the agent still owns what it read at a position."""
        ...

    def take_given_up(self) -> list[str]:
        """Return the runs, since the last call, that another agent may read from their starts."""
        ...

    def acknowledge(self, position: Mapping[str, Any], ended: Collection[str]) -> None:
        """Release documents that are no longer needed, from any thread.

        Parameters
        ----------
        position : merged :attr:`position` of documents that are in the journal and whose results are all delivered
        ended : uids of runs whose documents are no longer needed
        """
        ...

    def release(self) -> None:
        """Let other agents take the runs at once."""
        ...


class Stage(Protocol):
    """A step between the book and the assembler that changes the documents of a run: it reads files or joins streams.

    A stage receives documents in the order of :class:`RunDocument` and keeps that order. It may hold documents back,
    but those of one run must not delay those of another. Its methods never raise and are called from one thread.
    """

    @property
    def waiting(self) -> bool:
        """Whether the stage holds documents that it may release later."""
        ...

    def passes(self, run: str, descriptor: str) -> bool:
        """Return whether the next Events of a descriptor (both given by uid) pass the stage unchanged."""
        ...

    def __call__(self, document: RunDocument) -> Iterable[RunDocument | SetAside]:
        """Process one document; return the documents that are ready now."""
        ...

    def poll(self, now: float) -> Iterable[RunDocument | SetAside]:
        """Return documents that are ready or given up at ``now`` (``time.monotonic()``)."""
        ...

    def finish(self) -> Iterable[RunDocument | SetAside]:
        """Stop waiting; return all held documents, as far as they can be read."""
        ...


class Control(Protocol):
    """A device or program that can act on the experiment."""

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        """Request an action and wait for the answer; never raises.

        Several threads may call it at once: stop, abort and halt wait for no other request, and actions of a robot
        wait only for each other.

        Parameters
        ----------
        id : id of the decision; a repeated id does not repeat the action
        timeout : longest time to wait for the answer, s; after it the reply is ``expired``. A control with longer
            actions has its own limit for the time after the first answer.
        """
        ...

    def close(self) -> None: ...


@runtime_checkable
class SelectiveControl(Control, Protocol):
    """A control that lists the actions that it takes; it receives no others."""

    @property
    def actions(self) -> Collection[str]: ...


class Estimator(Protocol):
    """A model that turns aligned spectra into estimates."""

    name: str
    sha256: str
    absorber: str
    edge_name: str
    """Name of the edge: ``K``, ``L3``, …"""
    edge: Edge
    grid: Grid
    units: dict[str, str]
    """Units of the descriptors, by name."""
    reach: dict[str, Reach]
    """Limits of the estimates, by descriptor."""
    single_site: frozenset[str]
    """Descriptors that have no meaning for a mixture of sites."""
    hardly_known: frozenset[str]
    """Descriptors whose values the model hardly explains, according to its validation."""

    def estimate(
        self, spectra: NDArray[np.float32], extra_sd: Mapping[str, Array] | None = None
    ) -> Sequence[Estimate]:
        """Estimate the descriptors of a batch of aligned spectra.

        Parameters
        ----------
        spectra : (N, G) spectra on the footing of ``grid``; NaN beyond the end of a short spectrum, which a grid with
            ``short_stop_ev`` allows. The estimate of one spectrum does not depend on the others
        extra_sd : standard deviations, (N,) by descriptor, to include in the intervals besides the model's own
        """
        ...
