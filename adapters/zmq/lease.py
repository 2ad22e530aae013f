"""The lease of a beamline: one agent controls it at a time, and its silence is noticed."""

import threading
import time
from collections.abc import Callable

from ...agent.types import get_logger

log = get_logger()

_POLL_S = 0.1


class Lease:
    """Records which agent controls a beamline, and until when.

    The first agent that acts or sends a heartbeat holds the lease. Each of its requests and heartbeats renews it.
    Agents without a name count as one agent.

    Parameters
    ----------
    seconds : float
        Time after the last sign of life for which the holder keeps the lease, s.
    silent : callable
        Called once, on a thread of the lease, with the name of a holder that gave signs of life, fell silent, and did
        not release the lease.
    """

    def __init__(self, seconds: float, silent: Callable[[str], None]) -> None:
        self.seconds, self._silent = seconds, silent
        self._holder: str | None = None
        self._until, self._lives = 0.0, False
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._watch = threading.Thread(target=self._notice_silence, name="lease", daemon=True)
        self._watch.start()

    def take(self, agent: str, *, lives: bool = False) -> str:
        """Take or renew the lease for an agent; return why it cannot have it, empty if it has it.

        Parameters
        ----------
        lives : bool
            Whether this is a sign of life, after which silence means that the agent died.
        """
        with self._lock:
            now = time.monotonic()
            if self._holder not in (None, agent) and now < self._until:
                return f"{self._holder or 'another agent'} controls this beamline for {self._until - now:.0f} s more"
            if self._holder != agent:
                log.info("an agent controls the beamline", agent=agent or "without a name")
                self._lives = False
            self._holder, self._until, self._lives = agent, now + self.seconds, self._lives or lives
            return ""

    def release(self, agent: str) -> None:
        """Give the lease back, if the agent holds it."""
        with self._lock:
            if self._holder == agent:
                self._holder = None

    def close(self) -> None:
        """Stop watching for silence."""
        self._closing.set()
        self._watch.join()

    def _notice_silence(self) -> None:
        while not self._closing.wait(_POLL_S):
            with self._lock:
                holder, late, lived = self._holder, time.monotonic() >= self._until, self._lives
                if holder is None or not late:
                    continue
                self._holder, self._lives = None, False
            if not lived:  # it acted once, without any heartbeat
                continue
            log.error("the agent that controls the beamline fell silent", agent=holder or "without a name")
            try:
                self._silent(holder)
            except Exception:
                log.exception("safe action failed")
