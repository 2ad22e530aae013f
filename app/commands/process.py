"""What a command sets for its whole process, and the library never does: standard streams, the log, torch."""

import io
import logging
import os
import sys
from typing import Any

from .shared import USAGE, fail


class _Unbroken(io.FileIO):
    """A standard stream that drops what it cannot write."""

    def __init__(self, fd: int, dropped: type[OSError]) -> None:
        super().__init__(fd, "w", closefd=False)
        self._dropped = dropped

    def write(self, data: Any, /) -> int | None:
        try:
            return super().write(data)
        except self._dropped:
            return len(data)


def keep_streams() -> None:
    """Let neither a reader that ends (``xas-agent replay ... | head -1``) nor a closed stream end the command.

    What can no longer be read is dropped, and the exit code stays that of the work. A full disk under stdout remains
    an error.
    """
    # The next file opened would take the number of a closed standard stream, and get its messages.
    while (fd := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(fd, True)
    os.close(fd)
    for fd, name, dropped in ((1, "stdout", BrokenPipeError), (2, "stderr", OSError)):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            continue  # whoever replaced it answers for it
        encoding, errors = (stream.encoding, stream.errors) if stream else ("utf-8", "backslashreplace")
        buffered = io.BufferedWriter(_Unbroken(fd, dropped))
        by_line = name == "stderr" or (stream is not None and stream.line_buffering)
        setattr(sys, name, io.TextIOWrapper(buffered, encoding, errors, line_buffering=by_line))


class _CurrentStderr:
    """stderr at the time of writing: a live table replaces it, so that lines appear above the table."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


class _Lines(logging.Formatter):
    """Time, level, event and context of a record on one line, then its traceback."""

    def __init__(self) -> None:
        from structlog.dev import ConsoleRenderer

        super().__init__(datefmt="%Y-%m-%d %H:%M:%S")
        self._render = ConsoleRenderer(colors=sys.stderr.isatty() and not os.environ.get("NO_COLOR"))

    def format(self, record: logging.LogRecord) -> str:
        line = {
            **getattr(record, "context", {}),
            "timestamp": self.formatTime(record, self.datefmt),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", record.getMessage()),
        }
        if record.exc_info:
            line["exc_info"] = record.exc_info
        return self._render(None, record.levelname.lower(), line)


def log_from(level: str) -> None:
    """Write the package's log from ``level`` on to stderr."""
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        fail(f"--log-level {level}: expected debug, info, warning or error", USAGE)
    handler = logging.StreamHandler(_CurrentStderr())
    handler.setFormatter(_Lines())
    logger = logging.getLogger("xas_agent")
    logger.handlers = [handler]
    logger.setLevel(number)


def set_up_torch(threads: int | None) -> None:
    """Give torch ``threads`` CPU threads, by default half the cores and at most 4, and full precision on a GPU."""
    from ...models.runtime import configure_torch, default_threads

    configure_torch(threads or default_threads())
