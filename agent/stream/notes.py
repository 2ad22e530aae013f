"""Joins notes with the same content, so that one document gives few of them."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from ..types import Reason, SetAside

T = TypeVar("T")

MAX_NOTES = 100
"""Number of notes for one run and reason above which notes from several documents are joined."""


class RepeatedNotes:
    """Reports the notes of a kind that come with its first document, and counts later ones.

    >>> notes = RepeatedNotes()
    >>> for seq_num in (3, 4):
    ...     notes.add("late", SetAside("run", "", 0.0, Reason.LATE, f"seq_num {seq_num}"))
    >>> [(note.count, note.detail) for note in notes.take()]
    [(2, 'seq_num 3; and 1 more')]
    >>> notes.add("late", SetAside("run", "", 0.0, Reason.LATE, "seq_num 5"))
    >>> notes.take()
    []
    >>> [(note.count, note.detail) for note in notes.further("late")]
    [(1, '1 further; the last: seq_num 5')]
    """

    def __init__(self) -> None:
        self._new: dict[str, SetAside] = {}
        self._further: dict[str, SetAside | None] = {}

    def add(self, kind: str, note: SetAside) -> None:
        """Take one note."""
        notes = self._further if kind in self._further else self._new
        earlier = notes.get(kind)
        if earlier is None:
            notes[kind] = note
        else:
            notes[kind] = replace(earlier if notes is self._new else note, count=earlier.count + note.count)

    def take(self) -> list[SetAside]:
        """Return one note on each new kind; to be called at the end of a document."""
        new, self._new = self._new, {}
        self._further |= dict.fromkeys(new)
        return [_with_more(note) for note in new.values()]

    def further(self, kind: str) -> list[SetAside]:
        """Return one note on the later notes of a kind, and forget the kind."""
        note = self._further.pop(kind, None)
        return [] if note is None else [replace(note, detail=f"{note.count} further; the last: {note.detail}")]


def _with_more(note: SetAside) -> SetAside:
    return replace(note, detail=f"{note.detail}; and {note.count - 1} more") if note.count > 1 else note


def join_notes(outcomes: Iterable[T], most: int = 1) -> list[T]:
    """Keep the first ``most`` notes of a run with one reason; join the others to the last of these, and count them.

    One Event of a million points may hold half a million sweeps that are too short. As many notes would occupy the
    log and the ``quality`` stream for minutes, and would all say the same.

    >>> notes = [SetAside("run", str(k), 0.0, Reason.TOO_FEW_POINTS, "2 points", k) for k in (1, 2, 3)]
    >>> [(note.uid, note.count, note.detail) for note in join_notes(notes)]
    [('1', 3, '2 points; and 2 more, the last is number 3')]
    """
    joined: list[T] = []
    places: dict[tuple[str, Reason], list[int]] = {}
    more: dict[int, list[SetAside]] = {}
    for outcome in outcomes:
        if isinstance(outcome, SetAside) and outcome.reason is not Reason.OVERLOAD:  # the pipeline counts those
            alike = places.setdefault((outcome.run_uid, outcome.reason), [])
            if len(alike) >= most:
                more.setdefault(alike[-1], []).append(outcome)
                continue
            alike.append(len(joined))
        joined.append(outcome)
    for place, others in more.items():
        joined[place] = _join(joined[place], others)  # type: ignore[assignment, arg-type]
    return joined


def _join(note: SetAside, more: list[SetAside]) -> SetAside:
    count = sum(other.count for other in more)
    last = more[-1].seq_num
    numbered = "" if last is None else f", the last is number {last}"
    return replace(note, count=note.count + count, detail=f"{note.detail}; and {count} more{numbered}")
