"""Joins pieces of an archive to parts of the result, and counts the work."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from .work import LEAD_ROWS, Part, Piece


@dataclass(slots=True)
class Plan:
    """The work of a backfill."""

    tables: int = 0
    """Number of Parquet tables."""
    files: int = 0
    """Number of other files, of spectra or documents."""
    runs: int = 0
    spectra: int = 0
    """Number of spectra in the tables; other sources do not state theirs."""
    parts: int = 0
    """Number of parts to compute."""
    done: int = 0
    """Number of pieces that an earlier call completed."""
    changed: int = 0
    """Number of those whose file has changed since."""

    def add(self, piece: Piece) -> None:
        """Add a piece to the counts."""
        if piece.kind == "rows":
            self.tables += piece.first == 0
            self.spectra += piece.stop - piece.first
        elif piece.kind == "run":
            self.runs += 1
        else:
            self.files += 1


def plan(pieces: Iterable[Piece], state_of: Callable[[Piece], bool | None], part_rows: int) -> Plan:
    """Count the pieces, and those that an earlier call completed.

    Parameters
    ----------
    pieces : iterable of Piece
    state_of : callable
        Returns None for a piece still to do, otherwise whether its source is unchanged.
    part_rows : int
        As for :func:`parts_of`.
    """
    counts = Plan()

    def counted() -> Iterator[Piece]:
        for piece in pieces:
            counts.add(piece)
            state = state_of(piece)
            counts.done += state is not None
            counts.changed += state is False
            yield piece

    for _ in parts_of(counted(), lambda piece: state_of(piece) is not None, part_rows):
        counts.parts += 1
    return counts


def parts_of(pieces: Iterable[Piece], is_done: Callable[[Piece], bool], part_rows: int) -> Iterator[Part]:
    """Join neighbouring pieces that are still to do, in their order.

    The parts do not depend on the progress of an earlier call, since it completed whole parts.

    Parameters
    ----------
    pieces : iterable of Piece
    is_done : callable
    part_rows : int
        Largest expected number of spectra in a part of several pieces.
    """
    before: deque[Piece] = deque()
    joined: list[Piece] = []
    lead: tuple[Piece, ...] = ()
    spectra = spectra_before = 0
    for piece in pieces:
        done = is_done(piece)
        if joined and (done or spectra + piece.weight > part_rows):
            yield Part(tuple(joined), lead)
            joined = []
        if not done:
            if not joined:
                lead, spectra = lead_of(before), 0
            joined.append(piece)
            spectra += piece.weight
        before.append(piece)
        spectra_before += piece.weight
        while spectra_before - before[0].weight >= LEAD_ROWS:
            spectra_before -= before.popleft().weight
    if joined:
        yield Part(tuple(joined), lead)


def lead_of(before: Sequence[Piece]) -> tuple[Piece, ...]:
    """Return the last pieces with at most ``LEAD_ROWS`` spectra in total; of a table, only the last rows.

    >>> lead_of([Piece("file", "/a"), Piece("rows", "/b", first=0, stop=4000, weight=4000)])
    (Piece(kind='rows', source='/b', state='', first=3872, stop=4000, weight=128),)
    """
    lead: list[Piece] = []
    left = LEAD_ROWS
    for piece in reversed(before):
        if piece.kind == "rows" and piece.weight > left:
            piece = replace(piece, first=piece.stop - left, weight=left)
        if piece.weight > left:
            break
        lead.append(piece)
        left -= piece.weight
        if not left:
            break
    return tuple(reversed(lead))
