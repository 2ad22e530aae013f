"""What a journal keeps of a pipeline, and what a pipeline needs of it to go on in another process."""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .publish import PastRun
from .types import Decision, Frame, Memory, SetAside

_MAX_NOTES = 1000
"""Number of the latest notes on a run that are remembered."""
_Key = tuple[str, str, str, int]
"""Uid, reason, detail and number of a note."""


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
    given_up: list[str] = field(default_factory=list)
    """Runs that may be read again from their starts, so that nothing that was done for them counts."""


@dataclass(frozen=True, slots=True)
class Past:
    """What an earlier process has done for the runs that are not over."""

    runs: Sequence[PastRun] = ()
    answered: Iterable[str] = ()
    """Uids of the frames that were answered or set aside."""
    decisions: Sequence[tuple[Decision, float]] = ()
    """Decisions with their latest status, and the time since they were approved or, without that, made, s."""
    memory: Memory = field(default_factory=dict)


class Published:
    """Recognises the frames and notes that an earlier process has published, when its documents are read again."""

    def __init__(self, past: Past) -> None:
        self._frames = set(past.answered)
        self._said: dict[str, deque[_Key]] = {}
        """Notes on each open run that are no outcome of a frame."""
        for (run, owner, *_), state in past.memory.items():
            if owner == "notes":
                self._said[run or ""] = deque(map(tuple, state), _MAX_NOTES)
        self._notes = Counter(key for said in self._said.values() for key in said)

    def __contains__(self, item: Frame | SetAside) -> bool:
        """Whether a frame, or a note, was published; of equal notes, each counts once."""
        if isinstance(item, Frame):
            return item.uid in self._frames
        if item.seq_num and item.uid in self._frames:
            return True
        if not self._notes[key := _key(item)]:
            return False
        self._notes[key] -= 1
        return True

    def add(self, note: SetAside) -> Memory:
        """Remember a note that is published, and is no outcome of a frame; return the notes on its run."""
        said = self._said.setdefault(note.run_uid, deque(maxlen=_MAX_NOTES))
        said.append(_key(note))
        return {(note.run_uid, "notes"): list(said)}

    def forget(self, run_uid: str) -> None:
        """Forget the notes on a run that is over or given up."""
        self._said.pop(run_uid, None)


def _key(note: SetAside) -> _Key:
    return note.uid, str(note.reason), note.detail, note.seq_num or 0
