"""Documents in files: JSON lines as suitcase-jsonl writes them, msgpack as suitcase-msgpack does.

A ``.jsonl`` has one JSON array ``[name, doc]`` a line, a ``.msgpack`` is a stream of packed ``[name, doc]``
arrays. suitcase keeps one run per file; here several runs may follow one another or interleave.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import event_model
import msgpack

from ...agent.types import Document, InputError, get_logger
from ..codecs import numpy_from_msgpack, to_json, to_msgpack

log = get_logger()

_FORMATS = {".jsonl": "json", ".json": "json", ".msgpack": "msgpack"}
_EXPECTED = "expected a documents file: .jsonl (a line [name, doc] each) or .msgpack"


class DocumentFileError(InputError):
    """A file that holds no documents; the message names it, what was found and what was expected."""


class FileSource:
    """The documents of a file, in its order.

    A line or record that is not a document, such as one cut off when its writer died, is skipped and counted
    in ``malformed``. After damage within a ``.msgpack`` the rest cannot be told apart and counts as one.

    Raises:
        DocumentFileError: no such file, a folder, empty, of another kind; or, at the end of the iteration,
            not one document in it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.malformed = 0
        self._format = _format(self.path)
        self._closed = False
        if self.path.is_dir():
            raise DocumentFileError(f"{self.path}: found a folder, {_EXPECTED}")
        try:
            size = self.path.stat().st_size
        except OSError as error:
            raise DocumentFileError(f"{self.path}: {error.strerror}, {_EXPECTED}") from error
        if size == 0:
            raise DocumentFileError(f"{self.path}: found an empty file, {_EXPECTED}")
        self._size = size

    def __iter__(self) -> Iterator[Document]:
        records = self._lines if self._format == "json" else self._packed
        found = 0
        with self.path.open("rb") as file:
            for where, record in records(file):
                if self._closed:
                    return
                document = _document(record)
                if document is None:
                    self._skip(where, "not a [name, doc] pair")
                else:
                    found += 1
                    yield document
        if found == 0:
            raise DocumentFileError(f"{self.path}: found no document in it, {_EXPECTED}")

    def close(self) -> None:
        """End the iteration before its next document."""
        self._closed = True

    def _lines(self, file: IO[bytes]) -> Iterator[tuple[str, Any]]:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                self._skip(f"line {number}", str(error))
            else:
                yield f"line {number}", record

    def _packed(self, file: IO[bytes]) -> Iterator[tuple[str, Any]]:
        problems: list[str] = []

        def numpy_or_problem(obj: dict[Any, Any]) -> Any:
            # An exception inside the hook would leave the unpacker in the middle of the record.
            try:
                return numpy_from_msgpack(obj)
            except Exception as error:  # numpy raises anything at all on a damaged dtype
                problems.append(str(error))
                return None

        unpacker = msgpack.Unpacker(
            file, raw=False, strict_map_key=False, object_hook=numpy_or_problem, max_buffer_size=0
        )
        while True:
            start = unpacker.tell()
            try:
                record = unpacker.unpack()
            except msgpack.OutOfData:
                if start < self._size:
                    self._skip(f"byte {start}", "the last record is cut off")
                return
            except (ValueError, TypeError) as error:
                self._skip(f"byte {start}", f"{error}; the rest of the file is lost")
                return
            if problems:
                self._skip(f"byte {start}", problems[0])
                problems.clear()
            else:
                yield f"byte {start}", record

    def _skip(self, where: str, detail: str) -> None:
        self.malformed += 1
        # A file of another kind is wrong in every line.
        say = log.warning if self.malformed == 1 else log.debug
        say("record skipped", file=str(self.path), where=where, detail=detail)


class FileSink:
    """Writes each document whole and at once, so that the file can be read while it grows and after a crash.

    An existing file is replaced; missing folders are made. In JSON, arrays become lists and float64 survives
    exactly; NaN and infinities are written as Python and suitcase-jsonl write them (``NaN``, ``Infinity``).

    Raises:
        DocumentFileError: the file is of another kind, or cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._format = _format(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("wb")
        except OSError as error:
            raise DocumentFileError(f"{self.path}: {error.strerror}, expected a file to write") from error

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Append one document.

        Raises:
            TypeError: something in it has no form in this format; nothing is written then.
            ValueError: the sink is closed.
            OSError: the disk is full, or away.
        """
        pair = (name, doc)
        self._file.write(to_msgpack(pair) if self._format == "msgpack" else to_json(pair).encode() + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _format(path: Path) -> str:
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        raise DocumentFileError(f"{path}: found the suffix {path.suffix!r}, {_EXPECTED}") from None


def _document(record: Any) -> Document | None:
    match record:
        case [str(name), dict(doc)] if name in event_model.DocumentNames.__members__:
            return name, doc
    return None
