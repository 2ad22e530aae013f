"""What controls ask of a measurement: written from any thread, looked at by the plan between frames."""

import threading
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, Literal

import bluesky.plan_stubs as bps
from bluesky.utils import Msg

from ..agent.types import Reply

State = Literal["not started", "running", "paused", "stopped", "ended"]

POLL_S = 0.02


class Orders:
    """Takes ``stop``, ``pause`` and ``resume``; asking twice is answered twice and done once."""

    def __init__(self, switch: Callable[[bool], None] = lambda on: None) -> None:
        """``switch`` turns the driving force (a cell's current) on or off, before the reply is given."""
        self._switch = switch
        self._lock = threading.Lock()
        self.state: State = "not started"
        self.reason = ""
        """Why it was stopped."""

    def start(self) -> None:
        """Orders are taken from now on."""
        with self._lock:
            self.state, self.reason = "running", ""

    def end(self) -> None:
        """Nothing is left to stop or pause."""
        with self._lock:
            if self.state != "stopped":
                self.state = "ended"

    @property
    def stopped(self) -> bool:
        """Whether a stop was asked for."""
        return self.state == "stopped"

    def obey(self, action: str, args: Mapping[str, Any]) -> Reply:
        """Do ``action`` now; ``args["reason"]`` goes into the RunStop of a run that is stopped."""
        if action not in ("stop", "pause", "resume"):
            return Reply("rejected", f"unknown action {action!r}: this beamline knows stop, pause and resume")
        with self._lock:
            if action == "stop" and self.state == "stopped":
                return Reply("acknowledged", "already stopped")
            if self.state not in ("running", "paused"):
                return Reply("rejected", f"cannot {action}: the measurement is {self.state}")
            if action == "stop":
                self._switch(False)
                self.state, self.reason = "stopped", str(args.get("reason") or "stop was asked for")
                return Reply("acknowledged", "stopping after the frame in progress")
            wanted: State = "paused" if action == "pause" else "running"
            if self.state == wanted:
                return Reply("acknowledged", f"already {wanted}")
            self._switch(wanted == "running")
            self.state = wanted
            return Reply("acknowledged", wanted)

    def hold(self, until: float = 0.0) -> Generator[Msg, Any, float]:
        """Plan: wait to ``until`` (``time.monotonic`` s) and as long as paused; a stop ends the wait.

        Returns:
            How long it was paused, s.
        """
        paused_s = 0.0
        while not self.stopped:
            paused = self.state == "paused"
            before = time.monotonic()
            if not paused and before >= until:
                break
            # The checkpoint empties the RunEngine's cache of messages, which would grow with every poll.
            yield from bps.checkpoint()
            yield from bps.sleep(POLL_S if paused else min(POLL_S, until - before))
            if paused:
                paused_s += time.monotonic() - before
        return paused_s
