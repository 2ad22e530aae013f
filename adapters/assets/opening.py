"""Opens files that documents name: only regular ones, and none that was replaced after it was checked."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_BYTES = 128 * 2**20
"""Largest array that is read at once, bytes: an hour of ten 32-bit columns at 1 kHz."""


class NotYet(OSError):  # noqa: N818  named after the event
    """A file, dataset or row that does not exist yet or is incomplete."""

    def __init__(self, reason: str, rows: int = 0) -> None:
        super().__init__(reason)
        self.rows = rows
        """Number of rows that the dataset has so far."""


class AssetRefused(Exception):  # noqa: N818  named after the event
    """A file that cannot become readable by waiting."""


@contextmanager
def regular_file(path: Path) -> Iterator[int]:
    """Open a resolved path and yield its descriptor; a pipe or device cannot block the call.

    Raises
    ------
    NotYet
        The file does not exist, or cannot be opened yet.
    AssetRefused
        It is not a regular file, or a link replaced it.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise AssetRefused(f"{path}: not a regular file") from None
        raise NotYet(f"{path}: {error.strerror}") from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise AssetRefused(f"{path}: not a regular file")
        if path.resolve() != path or not os.path.samestat(found, path.stat()):
            raise AssetRefused(f"{path}: exchanged while it was opened")
        yield fd
    finally:
        os.close(fd)


def content(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Return at most ``limit`` bytes of a regular file, given its resolved path."""
    with regular_file(path) as fd:
        size = os.fstat(fd).st_size
        if size > limit:
            raise AssetRefused(f"{path}: {size / 2**20:.0f} MiB, at most {limit / 2**20:.0f} MiB are read")
        with os.fdopen(fd, "rb", closefd=False) as file:
            return file.read(size)
