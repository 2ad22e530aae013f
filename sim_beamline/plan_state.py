"""The state of a measurement plan: control requests change it, and the plan checks it between frames."""

import threading
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, Literal

import bluesky.plan_stubs as bps
from bluesky.utils import Msg

from ..agent.types import Reply

Phase = Literal["not started", "running", "paused", "stopped", "ended"]

_POLL_S = 0.02
"""Interval at which a waiting plan checks for requests, s."""


class PlanState:
    """Phase of a plan that accepts ``stop``, ``pause`` and ``resume`` from any thread.

    A repeated request is acknowledged again but has no further effect.

    Parameters
    ----------
    switch : callable
        Turns the driving force (a cell's current) on or off, before the reply is returned.
    """

    def __init__(self, switch: Callable[[bool], None] = lambda on: None) -> None:
        self._switch = switch
        self._lock = threading.Lock()
        self.phase: Phase = "not started"
        self.reason = ""
        """Reason of the stop request."""

    def start(self) -> None:
        """Accept requests from now on."""
        with self._lock:
            self.phase, self.reason = "running", ""

    def end(self) -> None:
        """Reject requests from now on: the plan has ended."""
        with self._lock:
            if self.phase != "stopped":
                self.phase = "ended"

    @property
    def stopped(self) -> bool:
        """Whether a stop was requested."""
        return self.phase == "stopped"

    def obey(self, action: str, args: Mapping[str, Any]) -> Reply:
        """Carry out ``action``; the RunStop of a stopped run carries ``args["reason"]``."""
        if action not in ("stop", "pause", "resume"):
            return Reply("rejected", f"unknown action {action!r}; expected stop, pause or resume")
        with self._lock:
            if action == "stop" and self.phase == "stopped":
                return Reply("acknowledged", "already stopped")
            if self.phase not in ("running", "paused"):
                return Reply("rejected", f"cannot {action}: the measurement is {self.phase}")
            if action == "stop":
                self._switch(False)
                self.phase, self.reason = "stopped", str(args.get("reason") or "stop requested")
                return Reply("acknowledged", "stopping after the frame in progress")
            wanted: Phase = "paused" if action == "pause" else "running"
            if self.phase == wanted:
                return Reply("acknowledged", f"already {wanted}")
            self._switch(wanted == "running")
            self.phase = wanted
            return Reply("acknowledged", wanted)

    def hold(self, until: float = 0.0) -> Generator[Msg, Any, float]:
        """Plan: wait until ``until`` (s of ``time.monotonic``) and while paused; a stop request ends the wait.

        Returns
        -------
        float
            Duration of the pause, s.
        """
        paused_s = 0.0
        while not self.stopped:
            paused = self.phase == "paused"
            before = time.monotonic()
            if not paused and before >= until:
                break
            # The checkpoint empties the RunEngine's cache of messages, which would grow with every poll.
            yield from bps.checkpoint()
            yield from bps.sleep(_POLL_S if paused else min(_POLL_S, until - before))
            if paused:
                paused_s += time.monotonic() - before
        return paused_s
