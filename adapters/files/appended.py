"""A file that grows only by complete records."""

import os
from contextlib import suppress
from pathlib import Path

_BLOCK_BYTES = 2**20


class AppendedFile:
    """Appends each record completely and at once, or not at all.

    Written data survive the end of the process, whatever its cause.

    Parameters
    ----------
    path : Path
        The file; it is created if missing.
    replace : bool
        Whether the first record replaces what an existing file contains.
    fsync : bool
        Whether each record is on the disk when ``write`` returns, so that it also survives a power failure.

    Raises
    ------
    OSError
        The file cannot be opened.
    """

    def __init__(self, path: Path, *, replace: bool = False, fsync: bool = False) -> None:
        self.path = path
        self._fsync = fsync
        self._file = path.open("a+b", buffering=0)
        end = self._file.seek(0, 2)
        self._size = 0 if replace else end
        self._torn = self._size < end  # the first record cuts it off; without one it stays

    def write(self, record: bytes) -> None:
        """Append a record.

        Raises
        ------
        OSError
            The disk is full or unavailable; the file contains nothing of the record.
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

    def mend_cut(self) -> int:
        """Return by how many bytes somebody has shortened the file; the next record then begins on a new line."""
        size = os.fstat(self._file.fileno()).st_size
        if (lost := self._size - size) <= 0:
            return 0
        self._size, self._torn = size, False
        if size:
            self._file.seek(size - 1)
            if self._file.read(1) != b"\n":
                self.write(b"\n")
        return lost

    def restore(self) -> bool:
        """Write the file again if it, or its folder, was removed; return whether that was necessary.

        If another file has taken its place, that file is kept beside it, with the suffix ``.other``.

        Raises
        ------
        OSError
            The file no longer has a name, and cannot be written again.
        """
        # Checked by the number of names: file numbers, which distinguish files, change on some network disks.
        has_name = os.fstat(self._file.fileno()).st_nlink > 0
        try:
            self.path.stat()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError:
            return False
        else:
            if has_name:
                return False
            os.replace(self.path, self.path.with_name(f"{self.path.name}.other"))
        try:
            self._copy_back()
        except OSError:
            if has_name:  # it was moved, and grows at its new place
                return False
            raise
        return True

    def _copy_back(self) -> None:
        """Copy the contents of the open file to a new one at the path, and continue there."""
        if self._torn:
            self._cut()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(f".{self.path.name}.new")
        new.unlink(missing_ok=True)
        copy = AppendedFile(new, fsync=self._fsync)
        try:
            self._file.seek(0)
            while block := self._file.read(_BLOCK_BYTES):
                copy.write(block)
            os.replace(new, self.path)
        except BaseException:
            copy.close()
            new.unlink(missing_ok=True)
            raise
        self._file.close()
        self._file, self._size, self._torn = copy._file, copy._size, False

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._file.close()

    def _cut(self) -> None:
        """Remove the remains of a record that could not be written."""
        self._file.truncate(self._size)
        self._file.seek(self._size)
        self._torn = False
