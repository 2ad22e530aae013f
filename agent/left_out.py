"""Counts and reports the frames that are left out under overload."""

import math
import time
from collections.abc import Callable
from dataclasses import replace

from .types import SetAside, get_logger

_log = get_logger()

_NOTE_S = 1.0
"""Shortest time between two reports on frames left out, s."""
_OVER_S = 2.0
"""Time after the last frame left out at which an overload is over, s."""


class LeftOut:
    """Counts the frames left out, and reports those of each run in one note.

    Parameters
    ----------
    report : receives the notes
    """

    def __init__(self, report: Callable[[SetAside], None]) -> None:
        self._report = report
        self.notes: dict[str, SetAside] = {}
        """Frames not reported yet, by watched run."""
        self._newest_at = self._reported_at = -math.inf
        """``time.monotonic()`` of the newest frame left out, and of the newest report."""
        self.now = 0
        """Number of frames left out in the present overload."""

    def add(self, note: SetAside, every: int) -> None:
        """Count a frame for the next report; it is left out because only each ``every``-th frame is answered."""
        if not self.now:
            _log.warning("overload: some frames are left out", answered_every=every)
        self.now += note.count
        self._newest_at = time.monotonic()
        earlier = self.notes.get(note.run_uid)
        self.notes[note.run_uid] = replace(note, count=note.count + (0 if earlier is None else earlier.count))

    def report(self, *, idle: bool) -> None:
        """Report the frames left out, at most once a second unless ``idle``, and the end of an overload."""
        now = time.monotonic()
        if self.notes and (idle or now - self._reported_at > _NOTE_S):
            self._reported_at = now
            for uid in list(self.notes):
                self.report_run(uid)
        if self.now and now - self._newest_at > _OVER_S:
            _log.warning("overload is over: every frame is answered", frames_left_out=self.now)
            self.now = 0

    def report_run(self, uid: str) -> None:
        """Report the frames of one run."""
        note = self.notes.pop(uid, None)
        if note is not None:
            detail = f"{note.count} {'frame' if note.count == 1 else 'frames'} up to number {note.seq_num}"
            self._report(replace(note, detail=detail))
