"""A file that only grows, by whole records."""

import os
from contextlib import suppress
from pathlib import Path


class AppendedFile:
    """Appends each record completely and at once, or not at all.

    What is written survives the end of the process, whatever ends it.

    Parameters
    ----------
    path : Path
        It is created unless it exists.
    replace : bool
        Whether an existing file is emptied.
    fsync : bool
        Whether each record is on the disk when ``write`` returns, so that it survives a power failure, too.

    Raises
    ------
    OSError
        The file cannot be opened.
    """

    def __init__(self, path: Path, *, replace: bool = False, fsync: bool = False) -> None:
        self.path = path
        self._fsync = fsync
        self._file = path.open("wb" if replace else "ab", buffering=0)
        self._size = self._file.seek(0, 2)
        self._torn = False

    def write(self, record: bytes) -> None:
        """Append a record.

        Raises
        ------
        OSError
            The disk is full or not available; nothing of the record is in the file.
        ValueError
            The file is closed.
        """
        if self._torn:
            self._cut()
        rest = memoryview(record)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
            if self._fsync:
                os.fsync(self._file.fileno())
        except OSError:
            self._torn = True
            with suppress(OSError):
                self._cut()
            raise
        self._size += len(record)

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def _cut(self) -> None:
        """Remove what is left of a record that could not be written."""
        self._file.truncate(self._size)
        self._file.seek(self._size)
        self._torn = False
