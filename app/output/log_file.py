"""Writes the log of a session as JSON lines in its folder, besides the lines on stderr."""

import json
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

import numpy as np

from ...agent.types import LOGGER_NAME, get_logger, line_of
from .kept import Alarm

_log = get_logger()

LOG = "log.jsonl"
_FILE_BYTES, _FILES = 10_000_000, 5
"""Size of a file, bytes, and number of older files: at most 60 MB, a line every three seconds for a week."""
_MAX_LINE = 100_000
"""Length of a line above which its context is left out, since a file must hold many lines."""


class _JSONLines(logging.Formatter):
    """Formats a record as one line of JSON: timestamp (UTC), level, event, context, and any traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            **line_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        text = _object(line)
        if len(text) <= _MAX_LINE:
            return text
        cut = {name: line[name] for name in ("timestamp", "level", "event")}
        return _object({**cut, "left_out": f"a context of {len(text)} characters"})


def _object(line: Mapping[str, Any]) -> str:
    """Return an object as JSON that any parser can read."""
    return "{" + ", ".join(f"{_value(str(name))}: {_value(value)}" for name, value in line.items()) + "}"


def _value(value: Any) -> str:
    """Return a value as JSON; values that JSON cannot express, such as NaN, become text."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except (TypeError, ValueError, RecursionError):
        return json.dumps(str(value), ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Return a NumPy value as a Python value; anything else as text."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


class LogFile(RotatingFileHandler):
    """Writes the package's log to a folder until ``close``; it continues the log of an earlier session.

    A line that cannot be written is lost without an exception, since logging must never cost a frame; the alarm
    reports it.
    """

    def __init__(self, folder: Path, alarm: Alarm) -> None:
        # A file name that is not Unicode contains surrogates, which UTF-8 cannot encode: they are escaped.
        super().__init__(
            folder / LOG, maxBytes=_FILE_BYTES, backupCount=_FILES, encoding="utf-8", errors="backslashreplace",
            delay=True,
        )  # fmt: skip
        self.mode = "a+"  # so that the contents of a removed file can be read
        self.setFormatter(_JSONLines())
        self._alarm = alarm
        self._failed = False
        self._logger = logging.getLogger(LOGGER_NAME)
        self._logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._failed = False
        super().emit(record)
        if not self._failed:
            self._alarm.written(LOG)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the name of logging
        """Report a full disk once, instead of printing a traceback for each line."""
        self._failed = True
        if self.stream is not None and self.stream.closed:  # by a rotation that could not flush
            self.stream = None
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            self._alarm.failed(LOG, error)

    def restore(self) -> None:
        """Restore the file if somebody has removed it; another file in its place is kept as ``.other``."""
        with suppress(OSError), self.lock or nullcontext():
            if (removed := self.stream) is None or os.fstat(removed.fileno()).st_nlink:
                return
            path = Path(self.baseFilename)
            if path.exists():
                os.replace(path, path.with_name(f"{path.name}.other"))
            path.parent.mkdir(parents=True, exist_ok=True)
            self.stream = self._open()
            removed.seek(0)
            self.stream.write(removed.read())
            removed.close()
            _log.error("file was removed, and is written again", file=self.baseFilename)

    def retry(self) -> None:
        """Try to write the lines that wait since one could not be written."""
        if self._failed:
            with suppress(OSError):
                self.flush()
                self._failed = False
                self._alarm.written(LOG)

    def close(self) -> None:
        """Accept no more lines, and close the file."""
        self.restore()
        self._logger.removeHandler(self)
        with suppress(OSError):
            super().close()
