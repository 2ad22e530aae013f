"""Files of a session that survive a full disk: unwritten data wait in memory, up to a limit."""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...adapters.files import FileSink
from ...agent.types import get_logger

_log = get_logger()

BACKLOG_MB = 64
"""Largest size of the documents that wait for space on the disk, MB."""
_BLOCK_BYTES = 65_536
_RETRY_S = 1.0
"""Interval between attempts to write, s."""


class Alarm:
    """Logs once if files of a folder cannot be written, and once when they can be written again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._broken: set[str] = set()
        self._lock = threading.Lock()

    @property
    def broken(self) -> set[str]:
        """Names of the files that could not be written in the last attempt."""
        with self._lock:
            return set(self._broken)

    def failed(self, name: str, error: OSError) -> None:
        """Report that a file cannot be written."""
        with self._lock:
            first = not self._broken
            self._broken.add(name)
        if first:
            found = error.strerror or error
            detail = f"found {found}, expected a writable folder with space; mend it, and writing goes on"
            _log.error("output not written", folder=str(self._folder), file=name, detail=detail)

    def written(self, name: str) -> None:
        """Report that a file was written."""
        if name not in self._broken:
            return
        with self._lock:
            self._broken.discard(name)
            last = not self._broken
        if last:
            _log.info("output written again", folder=str(self._folder))


class DocumentFile:
    """The file of a session's documents: a subscriber that never raises if the disk is full.

    A document that cannot be written waits, and so do all later ones. Beyond ``BACKLOG_MB`` the oldest waiting Events
    are dropped and counted; starts, Descriptors and stops wait on, because later Events are useless without them.

    Parameters
    ----------
    path : Path
    alarm : Alarm
    known : callable
        Returns whether the file has a document already.
    fsync : bool
        Whether each document is on the disk when the call returns.
    """

    def __init__(
        self,
        path: Path,
        alarm: Alarm,
        known: Callable[[str, dict[str, Any]], bool] = lambda name, doc: False,
        *,
        fsync: bool = False,
    ) -> None:
        self._sink = FileSink(path, append=True, fsync=fsync)
        self._known = known
        self._alarm = alarm
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._waiting_bytes = 0
        self._tried_at = 0.0
        self._closed = self._gone = False
        self.cut = False
        """Whether somebody has shortened the file, so that it lacks documents."""
        self._heads: dict[str, list[tuple[str, bytes]]] = {}
        """Start and Descriptors of each open run, without which its later Events are useless."""
        self._written = 0
        self._lock = threading.Lock()
        self.dropped = 0
        """Number of documents dropped because too many waited."""
        self._told = 0
        """Number of those that the log has reported."""

    @property
    def lost(self) -> int:
        """Number of documents that the file lacks."""
        return self.dropped + len(self._waiting) + (self._written if self._gone else 0)

    @property
    def waiting(self) -> bool:
        """Whether documents wait for space on the disk."""
        return bool(self._waiting)

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        """Append one document, or let it wait."""
        if self._known(name, doc):
            return
        record = self._sink.encode(name, doc)
        with self._lock:
            self._keep_head(name, doc, record)
            self._waiting.append((name, record))
            self._waiting_bytes += len(record)
            if len(self._waiting) == 1 or time.monotonic() - self._tried_at > _RETRY_S:
                self._write()
            if self._waiting_bytes > BACKLOG_MB * 1_000_000:
                self._drop()

    def flush(self) -> None:
        """Try to write the waiting documents, and the whole file if somebody has removed it."""
        with self._lock:
            self._gone = True  # as far as this process knows
            self._write()

    def close(self) -> None:
        """Write the waiting documents if possible, and close the file; later documents are only counted."""
        self.flush()
        with self._lock:
            self._closed = True
            self._sink.close()

    def _write(self) -> None:
        if self._closed:
            return
        self._tried_at = time.monotonic()
        try:
            if self._gone and self._sink.restore():
                _log.error("file was removed, and is written again", file=str(self._sink.path))
            self._gone = False
            self._mend_cut()
            while self._waiting:
                self._sink.write(self._waiting[0][1])
                self._waiting_bytes -= len(self._waiting.popleft()[1])
                self._written += 1
        except OSError as error:
            self._alarm.failed(self._sink.path.name, error)
        else:
            self._alarm.written(self._sink.path.name)
            self._tell()

    def _keep_head(self, name: str, doc: Mapping[str, Any], record: bytes) -> None:
        if name == "start":
            self._heads[doc["uid"]] = [(name, record)]
        elif name == "descriptor" and doc.get("run_start") in self._heads:
            self._heads[doc["run_start"]].append((name, record))
        elif name == "stop":
            self._heads.pop(doc.get("run_start", ""), None)

    def _mend_cut(self) -> None:
        """Report that somebody has shortened the file; write again what later Events need."""
        if not (lost := self._sink.mend_cut()):
            return
        self.cut = True
        heads = [head for of_run in self._heads.values() for head in of_run]
        self._waiting.extendleft(reversed(heads))
        self._waiting_bytes += sum(len(record) for _, record in heads)
        detail = "the documents in them are lost; later ones are written on"
        _log.error("file was shortened", file=str(self._sink.path), lost_bytes=lost, detail=detail)

    def _tell(self) -> None:
        """Log the number of documents dropped since the last report."""
        if given_up := self.dropped - self._told:
            detail = f"more than {BACKLOG_MB} MB waited for space on the disk; subscribers received them"
            _log.error("documents not in the file", file=str(self._sink.path), given_up=given_up, detail=detail)
            self._told = self.dropped

    def _drop(self) -> None:
        """Drop the older half of the waiting Events, or of all documents if none of them is an Event."""
        events = sum(name == "event" for name, _ in self._waiting)
        drop = ((events or len(self._waiting)) + 1) // 2  # half of them, so that this happens rarely
        self.dropped += drop
        if not self._told:  # reported at once; further ones once the disk has space
            self._tell()
        kept: deque[tuple[str, bytes]] = deque()
        for name, record in self._waiting:
            if drop and (name == "event" or not events):
                drop -= 1
                self._waiting_bytes -= len(record)
            else:
                kept.append((name, record))
        self._waiting = kept


def cut_torn_line(path: Path) -> int:
    """Remove everything after the last complete line of a file; return its size, bytes."""
    with path.open("r+b") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end:
            start = max(0, end - _BLOCK_BYTES)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        file.truncate(end)
    return size - end


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` create a file beside ``path``, then replace ``path`` by it in one step.

    Raises
    ------
    OSError
        The file cannot be written; the file at ``path`` is unchanged.
    """
    new = path.with_name(f".{path.name}.new{path.suffix}")
    try:
        write(new)
        os.replace(new, path)
    except BaseException:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise
