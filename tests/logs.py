"""What the package logs, for tests."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append({"event": record.event, "log_level": record.levelname.lower(), **record.context})


@contextmanager
def capture_logs() -> Iterator[list[dict[str, Any]]]:
    """Gather the package's log lines of every level: the event, ``log_level`` and the context."""
    logger, handler = logging.getLogger("xas_agent"), _Lines()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
