"""Tells a shared source which documents, and which runs, nobody needs to read again."""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..agent.types import Received, SharedSource, get_logger
from .journal import Journal
from .subscribers import Subscribers

_log = get_logger()


class Acknowledgements:
    """What is safe: documents in the journal of which every answer so far is with all subscribers and brokers.

    So a document is acknowledged after the journal, the subscribers and the brokers have what it led to. A run is
    over for the source once nothing of it is needed any more; if the process is killed before, another agent reads
    the run from its start. After a subscriber lost a document nothing is acknowledged, so that the next agent
    publishes it.

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
        """Number of documents that were sent by then, position and ended runs."""
        self._broken = self._failing = False

    def add(self, batch: Sequence[Received], new: Sequence[Received]) -> None:
        """Note that documents were processed.

        Parameters
        ----------
        batch, new : documents that came, and those of them that the journal had not known as of runs that are over
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
        """Return the runs that another agent reads from their starts, since the last call; none of them is over."""
        given_up = self._source.take_given_up()
        for _, _, over in self._waiting if given_up else ():
            over[:] = [run for run in over if run not in given_up]
        return given_up

    def is_current(self, received: Received) -> bool:
        """Whether a document is still this agent's to answer."""
        return received.position is None or self._source.is_current(received.position)

    def send(self, ended: Collection[str] = ()) -> None:
        """Acknowledge what has become safe; of the runs in ``ended``, from now on nothing is needed."""
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
        """Acknowledge nothing any more, since documents were not served, kept or delivered."""
        if not self._broken:
            detail = "another agent, or this one once it is started again, reads and answers their runs again"
            _log.error(f"documents not {undone}: nothing is acknowledged any more", detail=detail)
        self._broken = True

    def _told(self, position: Mapping[str, Any], over: Collection[str]) -> bool:
        """Tell the source; return whether it took it. Else it is told again."""
        try:
            self._source.acknowledge(position, over)
        except Exception as error:
            if not self._failing:
                _log.error("documents not acknowledged; it is tried again", error=f"{type(error).__name__}: {error}")
            self._failing = True
            return False
        self._failing = False
        return True
