"""The spectra of pieces, each with its place in its source, as frames or the reasons why they are none."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ....adapters.files import FileSource, computed_frame_of, frame_of
from ....adapters.formats import FileSpectrum, iterate_parquet, read_spectra
from ....agent.stream import FrameReader, Outcome
from ....agent.types import Document, Frame, InputError, Reason, Received, Refusal, SetAside
from ...wiring import frame_reader
from .sources import endpoint_of, open_catalogue
from .work import Piece, Work

_CHUNK = 1000
"""Number of frames of documents that are held at a time."""


@dataclass(frozen=True, slots=True)
class Item:
    """One row of the result: where it comes from, and its frame."""

    source: str
    index: int
    """Row or spectrum of the file, or number of the frame or note of the run, from 0."""
    id: str
    frame: Frame | Refusal
    time: float | None = None
    """Unix s."""
    sample: str = ""
    element: str = ""
    edge: str = ""
    notes: tuple[str, ...] = ()


def items_of(pieces: Sequence[Piece], work: Work) -> Iterator[list[Item]]:
    """Yield the items of pieces in lists that are served together.

    Spectra of files and tables are one list, since they are served in the order of time; documents come in the order
    in which they were recorded, and in shorter lists.

    Parameters
    ----------
    pieces : sequence of Piece
    work : Work
    """
    held: list[Item] = []
    for piece in pieces:
        if piece.kind in ("rows", "file"):
            held += _of_spectra(piece, len(held), work)
            continue
        if held:
            yield held
            held = []
        yield from _of_documents(piece, work)
    if held:
        yield held


def _of_spectra(piece: Piece, before: int, work: Work) -> Iterator[Item]:
    """Yield the spectra of a file, or one item with the reason why it cannot be read."""
    path = Path(piece.source)
    frame = computed_frame_of if work.theory else frame_of
    count = 0
    try:
        for s in _spectra(piece, path, work):
            index = s.row if piece.kind == "file" else _index_in_table(s)
            made = frame(s, before + count + 1, work.config.fields)
            element, edge = s.element or "", s.edge or ""
            yield Item(piece.source, index, s.id, made, s.time, s.sample_or_title, element, edge, s.notes)
            count += 1
    except InputError as error:
        if count:  # a table that breaks off: its rows until there are whole
            raise
        yield _unreadable(piece, error)


def _spectra(piece: Piece, path: Path, work: Work) -> Iterable[FileSpectrum]:
    if piece.kind == "rows":
        return iterate_parquet(path, work.columns, piece.first, piece.stop)
    return read_spectra(path, columns=work.columns)


def _of_documents(piece: Piece, work: Work) -> Iterator[list[Item]]:
    """Yield what the agent's reader makes of documents."""
    reader, count, held = frame_reader(work.config, piece.source), 0, list[Item]()
    try:
        for outcome in _outcomes(_documents(piece, work), reader):
            if isinstance(outcome, Frame):
                scan = outcome.scan
                element, edge = outcome.element or "", outcome.edge or ""
                held.append(
                    Item(piece.source, count, outcome.uid, outcome, outcome.time, scan.sample, element, edge)
                )
            elif isinstance(outcome, SetAside):
                many = f" ({outcome.count} times)" if outcome.count > 1 else ""
                refusal = Refusal(outcome.reason, outcome.detail + many)
                held.append(Item(piece.source, count, outcome.uid, refusal, outcome.time))
            else:
                continue
            count += 1
            if len(held) >= _CHUNK:
                yield held
                held = []
    except InputError as error:
        if count:
            raise
        held.append(_unreadable(piece, error))
    if held:
        yield held


def _documents(piece: Piece, work: Work) -> Iterator[Document]:
    if piece.kind == "documents":
        yield from FileSource(piece.source)
        return
    from ....adapters.tiled import documents_of  # which needs the extra

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


def _unreadable(piece: Piece, error: InputError) -> Item:
    reason = str(error).removeprefix(f"{piece.source}: ")
    return Item(
        piece.source, piece.first, Path(piece.source).name, Refusal(Reason.FILE_NOT_READABLE, reason)
    )
