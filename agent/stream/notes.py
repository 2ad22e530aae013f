"""Joins the notes of one document, so that a document never costs more than a few."""

from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from ..types import Reason, SetAside

T = TypeVar("T")


MAX_NOTES = 100
"""Number of notes of one run for one reason that are found at once, from several documents."""


def join_notes(outcomes: Iterable[T], most: int = 1) -> list[T]:
    """Join the notes of one run with the same reason beyond ``most`` to the last of these, and count them.

    One Event of a million points may hold half a million sweeps that are too short. The log and the ``quality``
    stream would take minutes for as many notes, and would say the same in each.

    >>> notes = [SetAside("run", str(k), 0.0, Reason.TOO_FEW_POINTS, "2 points", k) for k in (1, 2, 3)]
    >>> [(note.uid, note.count, note.detail) for note in join_notes(notes)]
    [('1', 3, '2 points; and 2 more, the last is number 3')]
    """
    joined: list[T] = []
    places: dict[tuple[str, Reason], list[int]] = {}
    more: dict[int, list[SetAside]] = {}
    for outcome in outcomes:
        if isinstance(outcome, SetAside):
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
