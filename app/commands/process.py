"""Process-wide settings of a command, which the library never changes: standard streams, log and torch."""

import gc
import io
import logging
import os
import sys
from typing import TYPE_CHECKING, Any, Literal

from .shared import USAGE, fail

if TYPE_CHECKING:
    from ...models.engines import EngineName


class StdoutError(OSError):
    """Results could not be written to stdout."""


class _LossyStream(io.FileIO):
    """A standard stream that drops output that it cannot write; another error than ``dropped`` is raised once."""

    def __init__(self, fd: int, dropped: type[OSError]) -> None:
        super().__init__(fd, "w", closefd=False)
        self._dropped, self._failed = dropped, False

    def write(self, data: Any, /) -> int | None:
        try:
            return super().write(data)
        except OSError as error:
            if not self._failed and not isinstance(error, self._dropped):
                self._failed = True
                raise StdoutError(error.errno, error.strerror) from None
            return len(data)


def keep_streams() -> None:
    """Let the command continue after its reader ends (``xas-agent replay ... | head -1``) or a stream is closed.

    Output without a reader is dropped, and the exit code is that of the work. A full disk under stdout remains an
    error.
    """
    # The next opened file would otherwise receive the descriptor of a closed standard stream, and its messages.
    while (fd := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(fd, True)
    os.close(fd)
    for fd, name, dropped in ((1, "stdout", BrokenPipeError), (2, "stderr", OSError)):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            continue  # replaced by the caller
        encoding, errors = (stream.encoding, stream.errors) if stream else ("utf-8", "strict")
        errors = "backslashreplace" if errors == "strict" else errors  # names and lines that the locale cannot show
        buffered = io.BufferedWriter(_LossyStream(fd, dropped))
        by_line = name == "stderr" or (stream is not None and stream.line_buffering)
        setattr(sys, name, io.TextIOWrapper(buffered, encoding, errors, line_buffering=by_line))


class _CurrentStderr:
    """The current stderr: a live table replaces it, so that lines appear above the table."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


_PLAIN, _BOLD, _DIM, _CYAN, _MAGENTA = "\033[0m", "\033[1m", "\033[2m", "\033[36m", "\033[35m"
_OF_LEVEL = {"debug": "\033[32m", "info": "\033[32m", "warning": "\033[33m"}
"""Colours of levels below error."""
_RED = "\033[31m"
_QUOTED = frozenset(" \t\r\n='\"")
"""Characters with which a text is written in quotes."""


class _Lines(logging.Formatter):
    """Formats a record as one line of time, level, event and context, and its traceback.

    The form is that of structlog, whose import takes longer than that of all of this package.
    """

    def __init__(self) -> None:
        super().__init__(datefmt="%Y-%m-%d %H:%M:%S")
        self._colored = sys.stderr.isatty() and not os.environ.get("NO_COLOR")

    def format(self, record: logging.LogRecord) -> str:
        from ...agent.types import line_of  # late: --help should not wait for scipy

        context = line_of(record)
        level, event = context.pop("level"), context.pop("event")
        color = _OF_LEVEL.get(level, _RED)
        parts = [
            self._in(_DIM, self.formatTime(record, self.datefmt)),
            f"[{self._in(color + _BOLD, f'{level:<9}')}]",
            self._in(_BOLD, f"{event:<30}"),
            *(f"{self._in(_CYAN, key)}={self._in(_MAGENTA, _text(value))}" for key, value in sorted(context.items())),
        ]
        line = " ".join(parts)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line

    def _in(self, style: str, text: str) -> str:
        return f"{style}{text}{_PLAIN}" if self._colored else text


def _text(value: Any) -> str:
    return value if isinstance(value, str) and not _QUOTED & set(value) else repr(value)


def log_from(level: str) -> None:
    """Write the package's log to stderr, from ``level`` upwards."""
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        fail(f"--log-level {level}: expected debug, info, warning or error", USAGE)
    handler = logging.StreamHandler(_CurrentStderr())
    handler.setFormatter(_Lines())
    logger = logging.getLogger("xas_agent")
    logger.handlers = [handler]
    logger.setLevel(number)


def begin_quickly() -> None:
    """Let Python look for no cycles of objects until :func:`set_up_torch`.

    Imports make hundreds of thousands of objects that stay; the search through them takes a tenth of the start.
    """
    gc.disable()


def set_up_torch(
    threads: int | None,
    precision: Literal["exact", "fast"] = "exact",
    engine: "EngineName" = "torchscript",
) -> None:
    """Set torch to ``threads`` CPU threads (by default half the cores, at most 4) and to a precision on a GPU.

    With the engine ``onnx`` torch is not imported.
    """
    from ...models.runtime import configure_torch, default_threads, keep_freed_memory

    if engine != "onnx":
        configure_torch(threads or default_threads(), fast=precision == "fast")
    else:
        keep_freed_memory()
    gc.freeze()  # nor examine modules that are imported later
    gc.enable()
