"""The spectra of pieces, each with its place in its source, as frames or the reasons why they are none."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ....adapters.files import FileSource, computed_frame_of, frame_of
from ....adapters.formats import FileSpectrum, iterate_parquet, read_spectra
from ....adapters.tiled import documents_of
from ....agent.stream import FrameReader, Outcome
from ....agent.types import Document, Frame, InputError, Reason, Received, Refusal, SetAside, get_logger
from ...wiring import frame_reader
from .sources import endpoint_of, open_catalogue
from .work import Piece, Work

_log = get_logger()

_CHUNK = 1000
"""Number of frames of documents that are held at a time."""


@dataclass(frozen=True, slots=True)
class Item:
    """One row of the result: where it comes from, and its frame."""

    source: str
    index: int
    """Row of the table, spectrum of the file, or frame or note of the run, from 0."""
    id: str
    frame: Frame | Refusal
    sweep: int = 0
    """Number of the sweep in a row of a table whose energy turns, from 0."""
    time: float | None = None
    """Unix s."""
    sample: str = ""
    element: str = ""
    edge: str = ""
    notes: tuple[str, ...] = ()


def items_of(pieces: Sequence[Piece], work: Work) -> Iterator[tuple[list[Item], bool]]:
    """Yield the items of pieces in lists that are served together.

    Spectra of neighbouring files and tables are one list; those of documents come in shorter ones.

    Parameters
    ----------
    pieces : sequence of Piece
    work : Work

    Yields
    ------
    items : list of Item
    by_time : bool
        Whether they are to be served in the order of time, as those of files, and not in their own.
    """
    held: list[Item] = []
    for piece in pieces:
        if piece.kind in ("rows", "file"):
            held += _of_spectra(piece, len(held), work)
            continue
        if held:
            yield held, True
            held = []
        for items in _of_documents(piece, work):
            yield items, False
    if held:
        yield held, True


def _of_spectra(piece: Piece, before: int, work: Work) -> Iterator[Item]:
    """Yield the spectra of a file; where it cannot be read, an item with the reason."""
    make = computed_frame_of if work.theory else frame_of
    count, index, sweep = 0, piece.first - 1, 0
    try:
        for s in _spectra(piece, work):
            index, sweep = s.row, sweep + 1 if s.row == index else 0
            count += 1
            frame = make(s, before + count, work.config.fields)
            known = (s.time, s.sample_or_title, s.element or "", s.edge or "", s.notes)
            yield Item(piece.source, index, s.id, frame, sweep, *known)
    except InputError as error:
        yield _unreadable(piece, index + 1, error)
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:  # else one odd file would end every call
        _log.exception("file not read", file=piece.source)
        yield _unreadable(piece, index + 1, InputError(f"{type(error).__name__}: {error}"))


def _spectra(piece: Piece, work: Work) -> Iterable[FileSpectrum]:
    path = Path(piece.source)
    if piece.kind == "rows":
        return iterate_parquet(path, work.columns, piece.first, piece.stop)
    return read_spectra(path, columns=work.columns)


def _of_documents(piece: Piece, work: Work) -> Iterator[list[Item]]:
    """Yield what the agent's reader makes of documents."""
    reader, held = frame_reader(work.config, piece.source), list[Item]()
    count = 0
    try:
        for outcome in _outcomes(_documents(piece, work), reader):
            if isinstance(outcome, Frame):
                known = (outcome.time, outcome.scan.sample, outcome.element or "", outcome.edge or "")
                held.append(Item(piece.source, count, outcome.uid, outcome, 0, *known))
            elif isinstance(outcome, SetAside):
                many = f" ({outcome.count} times)" if outcome.count > 1 else ""
                refusal = Refusal(outcome.reason, outcome.detail + many)
                held.append(Item(piece.source, count, outcome.uid, refusal, 0, outcome.time))
            else:
                continue
            count += 1
            if len(held) >= _CHUNK:
                yield held
                held = []
    except InputError as error:
        held.append(_unreadable(piece, count, error))
    if held:
        yield held


def _documents(piece: Piece, work: Work) -> Iterator[Document]:
    if piece.kind == "documents":
        yield from FileSource(piece.source)
        return
    uri, _, key = piece.source.rpartition("/")
    catalogue = open_catalogue(endpoint_of(uri, work.config.tiled))
    try:
        for name, doc in documents_of(catalogue[key], {}):
            yield name, dict(doc)
    finally:
        catalogue.context.http_client.close()


def _outcomes(documents: Iterable[Document], reader: FrameReader) -> Iterator[Outcome]:
    for name, doc in documents:
        yield from reader(Received(name, doc, time.monotonic()))
    yield from reader.settle()
    yield from reader.finish()


def _unreadable(piece: Piece, index: int, error: InputError) -> Item:
    reason = str(error).removeprefix(f"{piece.source}: ")
    return Item(piece.source, index, Path(piece.source).name, Refusal(Reason.FILE_NOT_READABLE, reason))
