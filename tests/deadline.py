"""Wait for a condition that another thread or process brings about, and fail at a deadline."""

import time
from collections.abc import Callable

POLL_S = 0.02


def wait_until(condition: Callable[[], object], seconds: float = 100.0) -> None:
    """Return once ``condition()`` is true; fail when it is not within ``seconds``."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"no change within {seconds:g} s"
        time.sleep(POLL_S)
