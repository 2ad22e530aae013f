"""The open runs of a book, and the finished ones that it remembers."""

from typing import Any

from cachetools import FIFOCache

from ..types import get_logger, size_of
from .records import RunRecord, least_needed

MAX_OPEN_RUNS = 256
"""Largest number of open runs, of some 10 kB each; beyond it, the book ends the least needed run."""
MAX_OPEN_BYTES = 64 * 2**20
"""Largest size of the RunStarts and Descriptors of all open runs, bytes; beyond it, the least needed run ends."""
MAX_FINISHED_RUNS = 1000
"""Number of finished runs to remember, so that their documents are not answered twice."""
MAX_UID_LENGTH = 256
"""Largest length of a uid, since the uids of finished runs are remembered."""

_log = get_logger()


class Runs:
    """Opens, limits and remembers runs."""

    def __init__(self) -> None:
        self.open: dict[str, RunRecord] = {}
        """Open runs by uid, the oldest first."""
        self._bytes = 0
        self._crowded = False
        """Whether the log has reported that too many runs are open."""
        self._finished: FIFOCache[str, RunRecord] = FIFOCache(MAX_FINISHED_RUNS)

    def find(self, uid: Any) -> RunRecord | None:
        """Return the run ``uid``, opened if it is new; None if the run is finished."""
        if not isinstance(uid, str) or len(uid) > MAX_UID_LENGTH:
            raise TypeError(f"run uid is {str(uid)[:80]!r}")
        if uid in self._finished:
            return None
        return self.open.get(uid) or self.open.setdefault(uid, RunRecord(uid))

    def count_bytes(self, run: RunRecord, doc: dict[str, Any]) -> None:
        """Count the memory of a RunStart or Descriptor, which is kept until its run ends."""
        size = size_of(doc)
        if size > MAX_OPEN_BYTES // 4:
            raise ValueError(f"{size / 2**20:.0f} MiB, at most {MAX_OPEN_BYTES // 4 / 2**20:.0f} MiB")
        run.bytes += size
        self._bytes += size

    def surplus(self, now: float) -> RunRecord | None:
        """Return a run to end, never the newest, if the open runs are too many or too large."""
        if len(self.open) <= MAX_OPEN_RUNS and (self._bytes <= MAX_OPEN_BYTES or len(self.open) == 1):
            return None
        *others, _ = self.open.values()
        if len(self.open) <= MAX_OPEN_RUNS:  # to end a small run would free almost nothing
            others = [run for run in others if run.bytes > MAX_OPEN_BYTES // MAX_OPEN_RUNS] or others
        run = least_needed(others, now)
        write = _log.debug if self._crowded else _log.warning
        self._crowded = True
        write(
            "run ended: too many are open; does the publisher send RunStops?",
            run=run.uid, open=len(self.open), mib=self._bytes // 2**20, events=run.events,
        )  # fmt: skip
        return run

    def forget(self, uid: str) -> RunRecord | None:
        """Forget and return a finished run, so that it may begin anew."""
        return self._finished.pop(uid, None)

    def finish(self, run: RunRecord) -> RunRecord | None:
        """Move a run to the finished ones; return the finished run that is forgotten instead."""
        del self.open[run.uid]
        self._bytes -= run.bytes
        forgotten = self._finished.popitem()[1] if len(self._finished) == MAX_FINISHED_RUNS else None
        self._finished[run.uid] = run
        return forgotten
