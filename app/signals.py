"""The signals that end a command."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that end a command; Windows has no SIGHUP."""
SAME_SIGNAL_S = 0.2
"""Time after a signal in which another one counts as the same, s; ``timeout`` and shells send a signal to the process
and again to its group."""
ENDED_EARLY = "xas-agent: ended by a signal before the session began\n"


class StartUp:
    """Lets a signal during the start of a session end the process with exit code 0.

    The signal raises SystemExit. KeyboardInterrupt would not do: if it comes while Python compiles code, as during
    the import of torch, the process counts as killed by SIGINT, however the exception is handled.
    """

    def __init__(self) -> None:
        self._signalled = self._over = self._held = False
        replace_handlers(self._end)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Delay the SystemExit of a signal until after the block.

        The import of torch calls Python from C++, where an exception may abort the process.
        """
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._signalled:
            raise SystemExit(0)

    def over(self) -> None:
        """Begin the session; raise SystemExit again if a signal came, since finalisers and callbacks drop it."""
        if self._signalled:
            raise SystemExit(0)
        self._over = True

    def _end(self, *_: object) -> None:
        if not self._signalled and not self._over:
            os.write(2, ENDED_EARLY.encode())  # the signal may have interrupted printing
        self._signalled = True
        if not self._held:
            raise SystemExit(0)


def replace_handlers(handler: Any) -> dict[int, Any]:
    """Handle the signals that end a command; return the earlier handlers.

    A signal that the process ignores stays ignored, such as SIGHUP under nohup. Outside the main thread nothing
    changes.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {
        number: signal.signal(number, handler) for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN
    }


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore the signals that end a command, so that files are closed completely."""
    before = replace_handlers(signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_like_ctrl_c(clock: Callable[[], float] = time.monotonic) -> None:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does; a second one within 0.2 s is ignored."""
    raised_at = -math.inf

    def interrupt(*_: object) -> None:
        nonlocal raised_at
        now = clock()
        if now - raised_at > SAME_SIGNAL_S:
            raised_at = now
            raise KeyboardInterrupt

    replace_handlers(interrupt)
