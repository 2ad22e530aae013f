"""Documents in files: JSON lines as suitcase-jsonl writes them, msgpack as suitcase-msgpack does.

A ``.jsonl`` contains one JSON array ``[name, doc]`` per line, a ``.msgpack`` a sequence of packed ``[name, doc]``
arrays. suitcase writes one run per file; these files may contain several runs, also interleaved.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import msgpack

from ...agent.types import DOCUMENT_NAMES, Document, InputError, get_logger
from ..codecs import numpy_from_msgpack, to_json_line, to_msgpack
from .appended import AppendedFile

log = get_logger()

_FORMATS = {".jsonl": "json", ".json": "json", ".msgpack": "msgpack"}
DOCUMENT_SUFFIXES = tuple(_FORMATS)
_EXPECTED = "expected a documents file: .jsonl (a line [name, doc] each) or .msgpack"


class DocumentFileError(InputError):
    """A file does not contain documents; the message states the file, what was found and what is expected."""


class FileSource:
    """The documents of a file, in their order.

    A line or record that is not a document, such as an incomplete last one, is skipped and counted in ``malformed``.
    After damage within a ``.msgpack``, the rest of the file cannot be separated into records and counts as one.

    Parameters
    ----------
    path : str or Path
        A .jsonl or .msgpack file.

    Raises
    ------
    DocumentFileError
        The file is missing, empty, a folder, or in another format; or, at the end of the iteration, it contained no
        document.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.malformed = 0
        self.position: dict[str, Any] = {}
        """Offset of the byte after the latest document, as ``offset``."""
        self._closed = False
        if self.path.is_dir():
            raise DocumentFileError(f"{self.path}: found a folder, {_EXPECTED}")
        try:
            size = self.path.stat().st_size
        except OSError as error:
            raise DocumentFileError(f"{self.path}: {error.strerror}, {_EXPECTED}") from error
        self._format = _format(self.path)
        if size == 0:
            raise DocumentFileError(f"{self.path}: found an empty file, {_EXPECTED}")
        self._size = size

    def __iter__(self) -> Iterator[Document]:
        records = self._lines if self._format == "json" else self._packed
        offset = int(self.position.get("offset", 0))
        count = 1 if offset else 0
        with self.path.open("rb") as file:
            file.seek(offset)
            for where, record in records(file):
                if self._closed:
                    return
                document = _document(record)
                if document is None:
                    self._skip(where, "not a [name, doc] pair")
                else:
                    count += 1
                    yield document
        if self.malformed > 1:
            log.warning("records skipped", file=str(self.path), number=self.malformed)
        if count == 0:
            raise DocumentFileError(f"{self.path}: found no document, {_EXPECTED}")

    def resume(self, position: Mapping[str, Any]) -> None:
        """Continue after the document with this position; malformed lines are then numbered from there.

        Raises
        ------
        DocumentFileError
            The file is shorter, and thus another one.
        """
        if (offset := int(position.get("offset", 0))) > self._size:
            detail = (
                f"expected the file of before, of which {offset} bytes were read; name another --out for another file"
            )
            raise DocumentFileError(f"{self.path}: found {self._size} bytes, {detail}")
        self.position = dict(position)

    def close(self) -> None:
        """End the iteration before the next document."""
        self._closed = True

    def _lines(self, file: IO[bytes]) -> Iterator[tuple[str, Any]]:
        offset = file.tell()
        for number, line in enumerate(file, 1):
            offset += len(line)
            self.position = {"offset": offset}
            text = line.lstrip(b"\0")
            if len(text) < len(line):  # text written at a file's old end leaves zeros before it
                detail = f"{len(line) - len(text)} zero bytes: the file was cut while it was written"
                self._skip(f"line {number}", detail)
            if not text.strip():
                continue
            try:
                record = json.loads(text)
            except (ValueError, RecursionError) as error:
                self._skip(f"line {number}", str(error))
            else:
                yield f"line {number}", record

    def _packed(self, file: IO[bytes]) -> Iterator[tuple[str, Any]]:
        problems: list[str] = []

        def numpy_or_problem(obj: dict[Any, Any]) -> Any:
            # An exception in the hook would leave the unpacker in the middle of a record.
            try:
                return numpy_from_msgpack(obj)
            except Exception as error:  # numpy raises many types of exception on a damaged dtype
                problems.append(str(error))
                return None

        unpacker = msgpack.Unpacker(
            file, raw=False, strict_map_key=False, object_hook=numpy_or_problem, max_buffer_size=0
        )
        begin = file.tell()
        while True:
            start = begin + unpacker.tell()
            try:
                record = unpacker.unpack()
            except msgpack.OutOfData:
                if start < self._size:
                    self._skip(f"byte {start}", "the last record is incomplete")
                return
            except (ValueError, TypeError) as error:
                self._skip(f"byte {start}", f"{error}; the rest of the file is lost")
                return
            if problems:
                self._skip(f"byte {start}", problems[0])
                problems.clear()
            else:
                self.position = {"offset": begin + unpacker.tell()}
                yield f"byte {start}", record

    def _skip(self, where: str, detail: str) -> None:
        self.malformed += 1
        # In a file of another format every line is malformed.
        write = log.warning if self.malformed == 1 else log.debug
        write("record skipped", file=str(self.path), where=where, detail=detail)


class FileSink:
    """Writes each document completely and at once, so that the file is readable while it grows and after a crash.

    Missing folders are created. In JSON, arrays become lists and float64 values are exact; NaN and infinities are
    written as ``NaN`` and ``Infinity``, as Python and suitcase-jsonl write them.

    Parameters
    ----------
    path : str or Path
        A .jsonl or .msgpack file.
    append : bool
        Whether to append to an existing file instead of replacing it.
    fsync : bool
        Whether each document is on the disk when the call returns.

    Raises
    ------
    DocumentFileError
        The suffix is another one, or the file cannot be written.
    """

    def __init__(self, path: str | Path, *, append: bool = False, fsync: bool = False) -> None:
        self.path = Path(path)
        self._format = _format(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = AppendedFile(self.path, replace=not append, fsync=fsync)
        except OSError as error:
            raise DocumentFileError(f"{self.path}: {error.strerror}, expected a file to write") from error

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Append one document.

        Raises
        ------
        TypeError
            The format cannot represent a value of the document; nothing is written.
        ValueError
            The sink is closed.
        OSError
            The disk is full or unavailable; the file contains nothing of the document.
        """
        self.write(self.encode(name, doc))

    def encode(self, name: str, doc: dict[str, Any]) -> bytes:
        """Return the record of a document; raise TypeError if the format cannot represent it."""
        pair = (name, doc)
        return to_msgpack(pair) if self._format == "msgpack" else to_json_line(pair)

    def write(self, record: bytes) -> None:
        """Append a record from :meth:`encode`; raises the same errors as a call of the sink."""
        self._file.write(record)

    def restore(self) -> bool:
        """Write the file again if it was removed, as :meth:`AppendedFile.restore` does."""
        return self._file.restore()

    def mend_cut(self) -> int:
        """Return by how many bytes somebody has shortened the file, as :meth:`AppendedFile.mend_cut` does."""
        return self._file.mend_cut()

    def close(self) -> None:
        self._file.close()


def _format(path: Path) -> str:
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        raise DocumentFileError(f"{path}: found the suffix {path.suffix!r}, {_EXPECTED}") from None


def _document(record: Any) -> Document | None:
    match record:
        case [str(name), dict(doc)] if name in DOCUMENT_NAMES:
            return name, doc
    return None
