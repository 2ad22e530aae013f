"""What a journal keeps of a pipeline, and what a pipeline needs of it to go on in another process."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .publish import PastRun
from .types import Decision, Frame, Memory, SetAside


@dataclass(slots=True)
class Progress:
    """What became of the documents that were fed since the progress before."""

    outcomes: list[tuple[str, str]] = field(default_factory=list)
    """Run and uid of each frame that was answered or set aside."""
    ended: list[str] = field(default_factory=list)
    """Runs of which nothing is needed any more."""
    unwatched: list[str] = field(default_factory=list)
    """Runs whose Events are not needed."""
    memory: Memory = field(default_factory=dict)
    """States that changed."""


@dataclass(frozen=True, slots=True)
class Past:
    """What an earlier process has done for the runs that are not over."""

    runs: Sequence[PastRun] = ()
    answered: Iterable[str] = ()
    """Uids of the frames that were answered or set aside."""
    notes: Iterable[Mapping[str, Any]] = ()
    """Data of the ``quality`` Events."""
    decisions: Sequence[tuple[Decision, float]] = ()
    """Decisions with their latest status, and the time since they were made, s."""
    memory: Memory = field(default_factory=dict)


class Published:
    """Recognises the frames and notes that an earlier process has published, when its documents are read again."""

    def __init__(self, past: Past) -> None:
        self._frames = set(past.answered)
        self._notes = Counter(
            (str(d["uid"]), str(d["reason"]), str(d["detail"]), int(d["frame_seq_num"])) for d in past.notes
        )

    def __contains__(self, item: Frame | SetAside) -> bool:
        """Whether a frame, or a note, was published; of equal notes, each counts once."""
        if isinstance(item, Frame):
            return item.uid in self._frames
        if item.seq_num and item.uid in self._frames:
            return True
        key = (item.uid, str(item.reason), item.detail, item.seq_num or 0)
        if not self._notes[key]:
            return False
        self._notes[key] -= 1
        return True
