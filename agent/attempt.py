"""Runs a step whose failure must not cost the steps after it."""

from collections.abc import Callable
from typing import Any

from .types import get_logger

_log = get_logger()


def attempt(step: Callable[[], object], **names: Any) -> bool:
    """Run a step that no later step depends on; log its error with ``names``; return whether it succeeded."""
    try:
        step()
    except Exception as error:
        _log.error("a step failed; the others go on", exc_info=error, **names)
        return False
    return True
