"""The package's log: one standard-library logger, ``xas_agent``, silent until the host program configures it."""

import logging
from contextlib import suppress
from typing import Any

LOGGER_NAME = "xas_agent"

logging.getLogger(LOGGER_NAME).addHandler(logging.NullHandler())


class Logger:
    """Writes events with their context: ``log.warning("set aside", reason=..., detail=...)``.

    A record's message reads ``set aside reason='...' detail='...'``; its attributes ``event`` and ``context`` hold
    the two parts. If a handler or filter of the host fails on a record, the record is lost without an error: logging
    must never cost a frame.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def debug(self, event: str, /, **context: Any) -> None:
        """Log a detail for developers."""
        self._write(logging.DEBUG, event, context)

    def info(self, event: str, /, **context: Any) -> None:
        """Log normal operation."""
        self._write(logging.INFO, event, context)

    def warning(self, event: str, /, **context: Any) -> None:
        """Log an event that needs the user's attention."""
        self._write(logging.WARNING, event, context)

    def error(self, event: str, /, **context: Any) -> None:
        """Log a failure that only the user can mend."""
        self._write(logging.ERROR, event, context)

    def exception(self, event: str, /, **context: Any) -> None:
        """Log an error with the traceback of the current exception."""
        self._write(logging.ERROR, event, context, exc_info=True)

    def _write(self, level: int, event: str, context: dict[str, Any], exc_info: bool = False) -> None:
        with suppress(Exception):
            if self._logger.isEnabledFor(level):
                context = {key: str(value) if isinstance(value, str) else value for key, value in context.items()}
                message = " ".join([event, *(f"{key}={value!r}" for key, value in context.items())])
                extra = {"event": event, "context": context}
                self._logger.log(level, message, exc_info=exc_info, extra=extra, stacklevel=3)


_LOGGER = Logger(logging.getLogger(LOGGER_NAME))


def get_logger() -> Logger:
    """Return the logger that every module of the package shares."""
    return _LOGGER


def line_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return the context, level and event of a record of the package's logger."""
    event = getattr(record, "event", None)
    parts = {"level": record.levelname.lower(), "event": record.getMessage() if event is None else event}
    return {**getattr(record, "context", {}), **parts}
