"""What a journal stores of a pipeline, and what a pipeline in another process needs to continue."""

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
    """Results of the documents fed since the last progress."""

    outcomes: list[tuple[str, str]] = field(default_factory=list)
    """Run and uid of each frame that was answered or set aside."""
    ended: list[str] = field(default_factory=list)
    """Runs whose data are no longer needed."""
    unwatched: list[str] = field(default_factory=list)
    """Runs whose Events are not needed."""
    memory: Memory = field(default_factory=dict)
    """States that changed."""
    given_up: list[str] = field(default_factory=list)
    """Runs that may be read again from their starts; their earlier results no longer count."""


@dataclass(frozen=True, slots=True)
class Past:
    """Results of an earlier process for the runs that are not over."""

    runs: Sequence[PastRun] = ()
    answered: Iterable[str] = ()
    """Uids of the frames that were answered or set aside."""
    decisions: Sequence[tuple[Decision, float]] = ()
    """Decisions with their latest status, and the time since their approval or, without one, their proposal, s."""
    memory: Memory = field(default_factory=dict)


class Published:
    """Recognises frames and notes that an earlier process published, when documents are read again."""

    def __init__(self, past: Past) -> None:
        self._frames = set(past.answered)
        self._said: dict[str, deque[_Key]] = {}
        """Notes on each open run that do not stand for a frame."""
        for (run, owner, *_), state in past.memory.items():
            if owner == "notes":
                self._said[run or ""] = deque(map(tuple, state), _MAX_NOTES)
        self._notes = Counter(key for said in self._said.values() for key in said)

    def __contains__(self, item: Frame | SetAside) -> bool:
        """Return whether a frame or a note was published; of equal notes, each counts once."""
        if isinstance(item, Frame):
            return item.uid in self._frames
        if item.seq_num and item.uid in self._frames:
            return True
        if not self._notes[key := _key(item)]:
            return False
        self._notes[key] -= 1
        return True

    def add(self, note: SetAside) -> Memory:
        """Remember a published note that does not stand for a frame; return the notes on its run."""
        said = self._said.setdefault(note.run_uid, deque(maxlen=_MAX_NOTES))
        said.append(_key(note))
        return {(note.run_uid, "notes"): list(said)}

    def forget(self, run_uid: str) -> None:
        """Forget the notes on a run that is over or given up."""
        self._said.pop(run_uid, None)


def _key(note: SetAside) -> _Key:
    return note.uid, str(note.reason), note.detail, note.seq_num or 0
