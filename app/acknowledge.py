"""Tells a shared source which documents and runs no agent needs to read again."""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..agent.types import Received, SharedSource, get_logger
from .journal import Journal
from .subscribers import Subscribers

_log = get_logger()


class Acknowledgements:
    """Acknowledges documents that are safe: the journal has them, and all subscribers and brokers have their results.

    A run is over for the source once none of its documents is needed; if the process is killed earlier, another agent
    reads the run from its start. After a subscriber has lost a document nothing is acknowledged, so that the next
    agent publishes it.

    Parameters
    ----------
    source : SharedSource
    journal : Journal
    subscribers : Subscribers
    """

    def __init__(
        self,
        source: SharedSource,
        journal: Journal,
        subscribers: Subscribers,
    ) -> None:
        self._source, self._journal, self._subscribers = source, journal, subscribers
        self._waiting: deque[tuple[int, Mapping[str, Any], list[str]]] = deque()
        """Number of documents sent by then, position, and ended runs."""
        self._broken = self._failing = False

    def add(self, batch: Sequence[Received], new: Sequence[Received]) -> None:
        """Record that documents were processed.

        Parameters
        ----------
        batch, new : documents that arrived, and those among them that do not belong to runs that the journal knows as
            over
        """
        position: dict[str, Any] = {}
        for received in batch:
            position |= received.position or {}
        over: list[str] = []
        if len(new) < len(batch):
            kept = {id(received) for received in new}
            stops = (r.doc for r in batch if r.name == "stop" and id(r) not in kept)
            over += [str(stop.get("run_start")) for stop in stops]
        if position or over:
            self._waiting.append((self._subscribers.sent, position, over))

    def take_given_up(self) -> list[str]:
        """Return the runs, since the last call, that another agent reads from their starts; none of them is over."""
        given_up = self._source.take_given_up()
        for _, _, over in self._waiting if given_up else ():
            over[:] = [run for run in over if run not in given_up]
        return given_up

    def is_current(self, received: Received) -> bool:
        """Return whether this agent still has to answer a document."""
        return received.position is None or self._source.is_current(received.position)

    def send(self, ended: Collection[str] = ()) -> None:
        """Acknowledge everything that has become safe; nothing of the runs in ``ended`` is needed any more."""
        if ended:
            self._waiting.append((self._subscribers.sent, {}, [*ended]))
        if not self._waiting or self._broken or not self._journal.safe:
            return
        delivered = self._subscribers.delivered
        position: dict[str, Any] = {}
        over: list[str] = []
        safe = 0
        for sent, further, runs in self._waiting:
            if sent > delivered:
                break
            position |= further
            over += runs
            safe += 1
        if position or over:
            if self._subscribers.lost or self._journal.unkept:
                self.stop("delivered" if self._subscribers.lost else "kept in the journal")
                return
            if not self._told(position, over):
                return
        for _ in range(safe):
            self._waiting.popleft()

    def stop(self, undone: str) -> None:
        """Stop acknowledging for good, since documents were not served, stored or delivered."""
        if not self._broken:
            detail = "another agent, or this one once it is started again, reads and answers their runs again"
            _log.error(f"documents not {undone}: nothing is acknowledged any more", detail=detail)
        self._broken = True

    def _told(self, position: Mapping[str, Any], over: Collection[str]) -> bool:
        """Tell the source; return whether it succeeded. Otherwise the source is told again."""
        try:
            self._source.acknowledge(position, over)
        except Exception as error:
            if not self._failing:
                _log.error("documents not acknowledged; it is tried again", error=f"{type(error).__name__}: {error}")
            self._failing = True
            return False
        self._failing = False
        return True
