"""Reads the lines of a file that another process writes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_BLOCK_BYTES = 1 << 20
_HEAD_BYTES = 1024
"""Size of a file's beginning to compare, bytes; its first document has a uid."""


class Line(NamedTuple):
    """A complete line, without its line end."""

    offset: int
    """Byte offset of its beginning."""
    text: bytes


class Replaced(Exception):  # noqa: N818  named after the event
    """The file was replaced by another one, or its beginning has changed."""


class Tail:
    """Reads the complete lines added to a file; text after the last line end waits.

    Parameters
    ----------
    path : Path
        The file; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        self._torn = 0
        """Size of the text after the last line end, bytes."""
        self._inode: int | None = None
        self._head = b""
        """Beginning of the text that was read."""

    @property
    def behind(self) -> bool:
        """Whether the file holds more than was read."""
        try:
            return self.path.stat().st_size > self._read + self._torn
        except OSError:
            return False

    def lines(self) -> Iterator[Line]:
        """Yield the lines since the last call.

        Raises
        ------
        Replaced
            The file is another one, is shorter than what was read, or begins differently. The next call starts with
            its first line.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            if self._read:
                self._forget()
                raise Replaced from None
            return
        with file:
            found = os.fstat(file.fileno())
            head = file.read(_HEAD_BYTES)
            if (
                self._inode not in (None, found.st_ino)
                or found.st_size < self._read
                or not head.startswith(self._head)
            ):
                self._forget()
                raise Replaced
            self._inode = found.st_ino
            if found.st_size == self._read + self._torn:
                return
            file.seek(self._read)
            torn, self._torn = b"", 0
            try:
                while block := file.read(_BLOCK_BYTES):
                    *whole, torn = (torn + block).split(b"\n")
                    for text in whole:
                        line = Line(self._read, text)
                        self._read += len(text) + 1
                        yield line
                self._torn = len(torn)
            finally:
                self._head = head[: self._read]  # an incomplete line may be written again

    def _forget(self) -> None:
        self._read, self._torn, self._inode, self._head = 0, 0, None, b""
