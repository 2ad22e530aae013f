"""The state of a measurement plan: control requests change it, and the plan checks it between frames."""

import threading
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, Literal

import bluesky.plan_stubs as bps
from bluesky.utils import Msg

from ..agent.types import ConfigError, RepeatFrame, Reply, SetValue, validate_settings
from .sample import Knob

Phase = Literal["not started", "running", "paused", "stopped", "ended"]

_POLL_S = 0.02
"""Interval at which a waiting plan checks for requests, s."""


class PlanState:
    """Phase of a plan that accepts requests from any thread, and the contents of these.

    A repeated ``stop``, ``pause`` or ``resume`` is acknowledged again but has no further effect.

    Parameters
    ----------
    switch : callable
        Turns the driving force (a cell's current) on or off, before the reply is returned.
    knobs : mapping, optional
        Signals that ``set`` may change, by name.
    told : callable, optional
        Receives the message of ``notify``.
    """

    def __init__(
        self,
        switch: Callable[[bool], None] = lambda on: None,
        knobs: Mapping[str, Knob] | None = None,
        told: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        self._switch = switch
        self._knobs = knobs
        self._verbs: dict[str, Callable[[Mapping[str, Any]], Reply]] = {
            "stop": self._stop,
            "pause": lambda args: self._hold_or_go("paused"),
            "resume": lambda args: self._hold_or_go("running"),
        }
        if knobs is not None:
            self._verbs |= {"set": self._set, "repeat_frame": self._repeat}
        if told is not None:
            self._verbs["notify"] = lambda args: self._pass_on(told, args)
        self._count_factor: float | None = None
        self._run, self._frame = "", 0
        """Uid of the run, and number of its frame that was begun last."""
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
        verb = self._verbs.get(action)
        if verb is None:
            *others, last = self._verbs
            return Reply("rejected", f"unknown action {action!r}; expected {', '.join(others)} or {last}")
        with self._lock:
            if action == "stop" and self.phase == "stopped":
                return Reply("acknowledged", "already stopped")
            if self.phase not in ("running", "paused"):
                return Reply("rejected", f"cannot {action}: the measurement is {self.phase}")
            try:
                return verb(args)
            except ConfigError as error:
                return Reply("rejected", str(error))

    def drive(self, on: bool) -> None:
        """Switch the driving force for the plan; it stays off while the plan does not run."""
        with self._lock:
            self._switch(on and self.phase == "running")

    def begin_frame(self, run: str) -> float | None:
        """Begin the next frame of a run; the last one can no longer be repeated.

        Returns
        -------
        float or None
            Factor by which a requested repetition of the last frame counts longer; None if none was requested.
        """
        with self._lock:
            self._frame = self._frame + 1 if run == self._run else 1
            self._run = run
            factor, self._count_factor = self._count_factor, None
            return factor

    def _stop(self, args: Mapping[str, Any]) -> Reply:
        self._switch(False)
        self.phase, self.reason = "stopped", str(args.get("reason") or "stop requested")
        return Reply("acknowledged", "stopping after the frame in progress")

    def _hold_or_go(self, wanted: Literal["paused", "running"]) -> Reply:
        if self.phase == wanted:
            return Reply("acknowledged", f"already {wanted}")
        self._switch(wanted == "running")
        self.phase = wanted
        return Reply("acknowledged", wanted)

    def _set(self, args: Mapping[str, Any]) -> Reply:
        wanted = validate_settings(dict(args), SetValue, "args of set")
        knobs = self._knobs or {}
        knob = knobs.get(wanted.signal)
        if knob is None:
            names = ", ".join(knobs) or "none"
            return Reply("rejected", f"found signal {wanted.signal!r}; this experiment has: {names}")
        if not knob.low <= wanted.value <= knob.high:
            limits = f"{knob.low:g}…{knob.high:g} {knob.units}"
            return Reply("rejected", f"found {wanted.value:g} for {wanted.signal}, expected {limits}")
        knob.put(wanted.value)
        return Reply("acknowledged", f"{wanted.signal} is {wanted.value:g} {knob.units}")

    def _repeat(self, args: Mapping[str, Any]) -> Reply:
        wanted = validate_settings(dict(args), RepeatFrame, "args of repeat_frame")
        if wanted.run is not None and wanted.run != self._run:
            return Reply("rejected", f"a frame of run {wanted.run[:8]} was asked for; this is run {self._run[:8]}")
        if wanted.frame is not None and wanted.frame != self._frame:
            return Reply("rejected", f"frame {wanted.frame} was asked for; the plan is at frame {self._frame}")
        self._count_factor = wanted.count_factor
        return Reply("acknowledged", "repeating the last frame")

    def _pass_on(self, told: Callable[[Mapping[str, Any]], None], args: Mapping[str, Any]) -> Reply:
        told(args)
        return Reply("acknowledged", "the crew is told")

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
