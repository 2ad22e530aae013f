"""Yields the spectra of pieces, with their places in the sources, as frames or as reasons for their absence."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
"""Number of frames from documents held at a time."""


@dataclass(frozen=True, slots=True)
class Item:
    """One row of the result: the origin of a spectrum, and its frame."""

    source: str
    index: int
    """Index of the table's row, of the file's spectrum, or of the run's frame or note, from 0."""
    id: str
    frame: Frame | Refusal
    sweep: int = 0
    """Number of the sweep, from 0, in a table row whose energy turns."""
    time: float | None = None
    """Time of the frame, Unix s."""
    sample: str = ""
    element: str = ""
    edge: str = ""
    notes: tuple[str, ...] = ()


def items_of(pieces: Sequence[Piece], work: Work) -> Iterator[tuple[list[Item], bool]]:
    """Yield the items of pieces in lists to be served together.

    Spectra of neighbouring files and tables form one list; those of documents come in shorter lists.

    Parameters
    ----------
    pieces : sequence of Piece
    work : Work

    Yields
    ------
    items : list of Item
    by_time : bool
        Whether to serve them in the order of time, as those of files, or in the given order.
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
    """Yield the spectra of a file; if it cannot be read, yield an item with the reason."""
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
    except (ValueError, TypeError, LookupError, ArithmeticError) as error:  # one odd file must not end every call
        _log.exception("file not read", file=piece.source)
        yield _unreadable(piece, index + 1, InputError(f"{type(error).__name__}: {error}"))


def _spectra(piece: Piece, work: Work) -> Iterable[FileSpectrum]:
    path = Path(piece.source)
    if piece.kind == "rows":
        return iterate_parquet(path, work.columns, piece.first, piece.stop)
    return read_spectra(path, columns=work.columns)


def _of_documents(piece: Piece, work: Work) -> Iterator[list[Item]]:
    """Yield the frames and notes that the agent's reader makes of documents."""
    reader, held = frame_reader(work.config, piece.source), list[Item]()
    count = 0
    try:
        for outcome in _outcomes(_documents(piece, work), reader):
            if isinstance(outcome, Frame):
                known = (outcome.time, outcome.scan.sample, outcome.element or "", outcome.edge or "")
                # Runs of an archive that name no sample are not the scans of one session.
                outcome = replace(outcome, scan=replace(outcome.scan, series=outcome.series))
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
