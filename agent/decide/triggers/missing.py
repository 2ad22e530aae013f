"""Frames that were set aside, and frames that do not arrive."""

from collections import deque
from typing import Any, Literal

from pydantic import Field

from ...types import Reason, SetAside, Settings
from ..observed import Observed
from .base import Compared, Evidence, Watch, apart


class FramesSetAside(Settings):
    """The agent set aside several frames, or data of frames."""

    kind: Literal["set_aside"] = "set_aside"
    """Name of this trigger."""
    frames: int = Field(default=3, ge=1, le=10_000)
    """Number of frames set aside, or missing, within ``within_s``."""
    within_s: float = Field(default=600.0, gt=0)
    """Time within which they are counted, s, by the frames' own times."""
    reasons: tuple[Reason, ...] = ()
    """Reasons that count, named as in ``quality`` Events; by default all."""


class Quiet(Settings):
    """No frame has come for a time, while the run has not stopped."""

    kind: Literal["quiet"] = "quiet"
    """Name of this trigger."""
    seconds: float = Field(gt=0)
    """Time without a frame, s: by the clock, or by the frames' own times in a recording. A pause that the agent
    requested does not count."""


class SetAsideWatch(Watch):
    """Counts notes for :class:`FramesSetAside`; the condition ends when the notes are too old."""

    def __init__(self, settings: FramesSetAside) -> None:
        self._settings = settings
        self._notes: deque[tuple[str, float, int, str]] = deque(maxlen=10_000)
        """Uid, time, number of frames and reason of each note."""

    def frame(self, observed: Observed) -> None:
        """Forget notes that are too old."""
        self._count(observed.frame.time)

    def note(self, note: SetAside) -> None:
        """Count a note."""
        if not self._settings.reasons or note.reason in self._settings.reasons:
            self._notes.append((note.uid, note.time, note.count, str(note.reason)))
            self._count(note.time)

    @property
    def reason(self) -> str:
        """The number of frames, the reasons and the time."""
        texts = ", ".join(sorted({reason for *_, reason in self._notes}))
        within = self._settings.within_s
        listed = f" ({texts})" if texts else ""
        return f"{self._total} frames set aside within {within:g} s{listed}, bar {self._settings.frames}"

    @property
    def compared(self) -> Compared:
        """The number of frames, and the bar."""
        return Compared(self._total, (self._settings.frames,))

    @property
    def evidence(self) -> Evidence:
        """Uids of the newest notes, and the number of frames of each."""
        return tuple((uid, float(count)) for uid, _, count, _ in list(self._notes)[-50:])

    def _kept(self) -> list[Any]:
        return [*self._notes]

    def _keep_again(self, kept: list[Any]) -> None:
        self._notes.clear()
        self._notes.extend((n[0], n[1], n[2], n[3]) for n in kept)

    @property
    def _total(self) -> int:
        return sum(count for _, _, count, _ in self._notes)

    def _count(self, now: float) -> None:
        while self._notes and self._notes[0][1] < now - self._settings.within_s:
            self._notes.popleft()
        self.holds = self._total >= self._settings.frames
        self.confidence = float(self.holds)  # a count is certain


class QuietWatch(Watch):
    """Measures the silence for :class:`Quiet`; the condition ends with the next frame."""

    def __init__(self, settings: Quiet) -> None:
        self._settings = settings
        self._seconds = 0.0
        self.judged = False

    def frame(self, observed: Observed) -> None:
        """End the condition."""
        self.holds, self.confidence, self.judged, self._seconds = False, 0.0, True, 0.0

    def quiet(self, seconds: float, time: float) -> None:
        """Compare the time without a frame with the bar."""
        self._seconds = seconds
        self.holds, self.judged = seconds >= self._settings.seconds, True
        self.confidence = float(self.holds)

    @property
    def reason(self) -> str:
        """The time without a frame, and the bar."""
        bar = self._settings.seconds
        return f"no frame for {apart(self._seconds, bar)} s, bar {bar:g} s"

    @property
    def compared(self) -> Compared:
        """The time without a frame, and the bar, s."""
        return Compared(self._seconds, (self._settings.seconds,))

    def _kept(self) -> list[Any]:
        return [self._seconds]

    def _keep_again(self, kept: list[Any]) -> None:
        [self._seconds] = kept
