"""The signals that end a command."""

import os
import signal
import threading
from typing import Any

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that end a command; Windows has no SIGHUP."""
ENDED_EARLY = "xas-agent: ended by a signal before the session began\n"


class StartUp:
    """Lets a signal that comes while a session starts end the process with exit code 0.

    The signal raises SystemExit. KeyboardInterrupt would not do: if it comes while Python compiles code, as during
    the import of torch, the process counts as killed by SIGINT whatever becomes of the exception.
    """

    def __init__(self) -> None:
        self._signalled = self._over = False
        replace_handlers(self._end)

    def over(self) -> None:
        """Begin the session; raise SystemExit again if a signal came, since a finaliser or a callback drops it."""
        if self._signalled:
            raise SystemExit(0)
        self._over = True

    def _end(self, *_: object) -> None:
        if not self._signalled and not self._over:
            os.write(2, ENDED_EARLY.encode())  # printing may be what the signal interrupts
        self._signalled = True
        raise SystemExit(0)


def replace_handlers(handler: Any) -> dict[int, Any]:
    """Handle the signals that end a command; return the earlier handlers.

    A signal that the process ignores stays ignored, as SIGHUP under nohup. Outside the main thread nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {
        number: signal.signal(number, handler) for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN
    }
