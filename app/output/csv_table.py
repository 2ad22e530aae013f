"""A CSV table that grows during a session."""

import csv
import io
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...adapters.files import AppendedFile
from .cells import TableWriter
from .kept import Alarm, replace_file

MAX_WAITING = 5000
"""Largest number of rows that wait for space on the disk."""


class CsvTable:
    """Appends rows to a table; a new column makes it write the whole table again.

    Any thread may call :meth:`append`; only one thread at a time writes.

    Parameters
    ----------
    path : Path
    columns : callable
        Returns the header, which may gain names.
    alarm : Alarm
        Receives reports of a full disk.
    """

    def __init__(self, path: Path, columns: Callable[[], Sequence[str]], alarm: Alarm) -> None:
        self.path, self._columns, self._alarm = path, columns, alarm
        self._waiting: deque[Mapping[str, Any]] = deque()
        self.dropped = 0
        """Number of rows dropped because too many waited."""
        self._header: Sequence[str] = ()
        self._file: AppendedFile | None = None
        self._lock = threading.Lock()

    @property
    def lost(self) -> int:
        """Number of rows that the file lacks."""
        return self.dropped + len(self._waiting)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row for the next :meth:`write`; if too many wait, drop and count the oldest."""
        with self._lock:
            self._waiting.append(row)
            if len(self._waiting) > MAX_WAITING:
                self._waiting.popleft()
                self.dropped += 1

    def write(self) -> None:
        """Write the waiting rows; after a failure, they wait on."""
        with self._lock:
            rows, self._waiting = self._waiting, deque()
        try:
            self._write(rows)
        except OSError as error:
            with self._lock:
                rows.extend(self._waiting)
                self._waiting = rows
                while len(rows) > MAX_WAITING:
                    rows.popleft()
                    self.dropped += 1
            self._alarm.failed(self.path.name, error)
        else:
            self._alarm.written(self.path.name)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        header = self._columns()
        if self._file is not None:
            self._file.restore()
        if self._file is None or header != self._header:
            replace_file(self.path, lambda new: self._copy(new, header))
            self.close()
            self._file, self._header = AppendedFile(self.path), header
        if rows:
            text = io.StringIO(newline="")
            TableWriter(text, self._header).writerows(rows)
            self._file.write(text.getvalue().encode())

    def _copy(self, new: Path, header: Sequence[str]) -> None:
        """Write the header and the rows so far to a new file."""
        with new.open("w", newline="", encoding="utf-8") as target:
            writer = TableWriter(target, header)
            writer.writeheader()
            if self._file is not None:
                with self.path.open(newline="", encoding="utf-8") as source:
                    rows = csv.DictReader(source, self._header)
                    next(rows)  # skips the names of the columns
                    writer.writerows(rows)
