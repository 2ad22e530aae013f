"""The lines of a file that another process writes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_BLOCK_BYTES = 1 << 20
_HEAD_BYTES = 1024
"""What is compared of the beginning of a file: its first document has a uid."""


class Line(NamedTuple):
    """A complete line, without its end."""

    offset: int
    """Byte at which it begins."""
    text: bytes


class Replaced(Exception):  # noqa: N818  named after the event
    """Another file has taken the place of the one that was read, or its beginning has changed."""


class Tail:
    """Reads the complete lines that come to a file; what follows the last line end waits.

    Parameters
    ----------
    path : Path
        The file need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        self._torn = 0
        """Size of what follows the last line end, bytes."""
        self._inode: int | None = None
        self._head = b""
        """The beginning of what was read."""

    @property
    def behind(self) -> bool:
        """Whether there is more than was read."""
        try:
            return self.path.stat().st_size > self._read + self._torn
        except OSError:
            return False

    def lines(self) -> Iterator[Line]:
        """Yield the lines since the last call.

        Raises
        ------
        Replaced
            The file is another one, shorter than what was read of it, or begins otherwise. The next call begins with
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
                self._head = head[: self._read]  # what is torn may be written again

    def _forget(self) -> None:
        self._read, self._torn, self._inode, self._head = 0, 0, None, b""
