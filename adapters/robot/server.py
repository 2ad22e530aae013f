"""The robot's side: it takes requests, does one action at a time, and goes into its safe state without heartbeats."""

import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from cachetools import FIFOCache

from ...agent.types import InputError, Reply, get_logger
from ..codecs import to_json
from ..zmq import ControlEndpoint, Request, RequestServer, cause_of
from .schema import HaltRequest, Job, Query, ReleaseRequest, RobotStatus, State, StatusRequest, read_request

log = get_logger()

_MAX_JOBS = 100_000
"""Number of ids to remember, so that no action is done twice."""
_CLOSE_TIMEOUT_S, _HALT_TIMEOUT_S = 5.0, 2.0
"""Longest waits for the end of a halted action, s: when the server closes, and at an emergency stop."""


class Robot(Protocol):
    """The device behind a :class:`RobotServer`."""

    def refusal(self, action: str, args: Mapping[str, Any]) -> str:
        """Return why the device cannot do an action now; empty if it can."""
        ...

    def do(self, action: str, args: Mapping[str, Any], halted: threading.Event) -> None:
        """Do an action, however long it takes; raise an exception with the reason if it fails.

        One action is done at a time. Once ``halted`` is set, it must end soon, and raise if it is incomplete.
        """
        ...

    def make_safe(self) -> None:
        """Switch the heater off and keep the sample; return at once. An action in progress was halted before."""
        ...

    def report(self) -> Mapping[str, Any]:
        """Return ``sample``, ``temperature_c`` and ``heater_on`` for the status; at once, from any thread."""
        ...


class RobotServer:
    """Serves the message schema of robots for a device.

    An action is answered when it is accepted; status queries show when it is done. A repeated id receives the same
    answer, even after a restart if there is a ``memory``. Without a heartbeat for ``safe_after_s``, and at the start,
    the device is made safe and an action in progress fails; the next action ends the safe state. An emergency stop
    (``halt``) ends the action in progress, makes the device safe and blocks all actions until ``release``, even after
    a restart if there is a ``memory``.

    Parameters
    ----------
    endpoint : ControlEndpoint or str
        Endpoint to bind, or its address; port 0 selects a free port (see ``address``).
    robot : Robot
        The device.
    safe_after_s : float
        Time without a heartbeat after which the device is made safe, s.
    memory : Path, optional
        File of the accepted actions and emergency stops, one JSON object per line. An action in progress when the
        server ended counts as failed, and is not done again.

    Raises
    ------
    EndpointUnreachable, InputError
        As for :class:`RequestServer`; or the memory is not such a file.
    """

    def __init__(
        self,
        endpoint: ControlEndpoint | str,
        robot: Robot,
        safe_after_s: float = 10.0,
        memory: Path | None = None,
    ) -> None:
        self._robot, self._safe_after_s, self._memory = robot, safe_after_s, memory
        self._lock = threading.Lock()
        self._jobs: FIFOCache[str, Job] = FIFOCache(_MAX_JOBS)
        self._current: Job | None = None
        self._halted = threading.Event()
        self._worker: threading.Thread | None = None
        self._safe_reason = ""
        """Why the device is in its safe state; empty if it is not."""
        self._stopped = ""
        """Why no action may begin until ``release``; empty otherwise."""
        self._heard_at = time.monotonic()
        self._closing = threading.Event()
        self._remember()
        self._make_safe("no action since the start")  # the previous server may have been killed
        self._server = RequestServer(endpoint, self._carry_out, queries=("status",), urgent=("halt",))
        self.address = self._server.address
        self._watch = threading.Thread(target=self._watch_heartbeat, name="robot-watch", daemon=True)
        self._watch.start()

    def close(self) -> None:
        """Stop answering and make the device safe."""
        self._closing.set()
        self._watch.join()
        self._server.close()
        with self._lock:
            self._make_safe("the server of the robot was closed")
        if self._worker is not None:
            self._worker.join(_CLOSE_TIMEOUT_S)

    def _carry_out(self, request: Request) -> Reply:
        try:
            wanted = read_request(request.id, request.action, request.args)
        except ValueError as error:
            return Reply("rejected", cause_of(error))
        if isinstance(wanted, StatusRequest):
            return Reply("acknowledged", data=self._status(wanted.args))
        if isinstance(wanted, HaltRequest):
            return self._halt(wanted.args.reason or "emergency stop")
        if isinstance(wanted, ReleaseRequest):
            with self._lock:
                return self._release()
        job = Job(id=wanted.id, action=wanted.action, args=wanted.args.model_dump(), state="running")
        with self._lock:
            return self._begin(job)

    def _status(self, query: Query) -> dict[str, Any]:
        with self._lock:
            status = RobotStatus(
                state=self._state,
                reason=self._stopped or self._safe_reason or (self._current.action if self._current else ""),
                safe_after_s=self._safe_after_s,
                of=None if query.of is None else self._jobs.get(query.of),
                **self._robot.report(),
            )
            if query.heartbeat:  # after the report, so that a device that gives none becomes safe
                self._heard_at = time.monotonic()
        return status.model_dump()

    @property
    def _state(self) -> State:
        if self._stopped:
            return "halted"
        return "safe" if self._safe_reason else "busy" if self._current else "ready"

    def _halt(self, reason: str) -> Reply:
        """Make an emergency stop."""
        self._stopped = self._stopped or reason
        self._halted.set()  # before the lock, which a device slow to refuse an action may hold
        with self._lock:
            self._note_stop()
            self._make_safe(reason)
            ended, worker, safe = self._current, self._worker, bool(self._safe_reason)
        if worker is not None:
            worker.join(_HALT_TIMEOUT_S)
        if not safe:
            return Reply("expired", "no action begins, but the device did not go into its safe state")
        if worker is not None and worker.is_alive():
            return Reply("expired", f"in its safe state, but {ended.action if ended else 'an action'} has not ended")
        return Reply("acknowledged", f"{ended.action} was ended" if ended else "no action was in progress")

    def _release(self) -> Reply:
        if self._stopped and self._current is not None:
            return Reply("rejected", f"{self._current.action} has not ended")
        self._stopped = ""
        self._note_stop()
        return Reply("acknowledged")

    def _begin(self, job: Job) -> Reply:
        known = self._jobs.get(job.id)
        if known is not None:
            if (known.action, known.args) != (job.action, job.args):
                return Reply(
                    "rejected", "the id belongs to an earlier request with another action or other arguments"
                )
            return Reply("acknowledged", f"accepted before; it is {known.state}")
        if self._stopped:
            return Reply("rejected", f"halted until it is released: {self._stopped}")
        if self._current is not None:
            return Reply("rejected", f"busy: {self._current.action}")
        if refusal := self._robot.refusal(job.action, job.args):
            return Reply("rejected", refusal)
        try:
            self._note(job)  # before it begins, so that it is not done again after a restart
        except OSError as error:
            return Reply("rejected", f"cannot be noted: {error}")
        self._heard_at, self._current, self._safe_reason = time.monotonic(), job, ""
        self._halted = threading.Event()
        self._worker = threading.Thread(target=self._do, args=(job, self._halted), name="robot", daemon=True)
        self._worker.start()
        return Reply("acknowledged", "accepted")

    def _do(self, job: Job, halted: threading.Event) -> None:
        reason = ""
        try:
            self._robot.do(job.action, job.args, halted)
        except Exception as error:  # any exception of the device is the reason of the failure
            reason = str(error) or type(error).__name__
        with self._lock:
            self._current = None
            state = "failed" if reason else "done"
            if reason and self._stopped:
                state, reason = "halted", self._stopped
            elif reason and self._safe_reason:
                reason = f"safe state: {self._safe_reason}"
            job = job.model_copy(update={"state": state, "reason": reason})
            try:
                self._note(job)
            except OSError:
                log.exception("the end of an action is not in the memory", id=job.id)
                self._jobs[job.id] = job
        log.info("robot action", id=job.id, action=job.action, state=job.state, reason=reason)

    def _watch_heartbeat(self) -> None:
        left = self._safe_after_s
        while not self._closing.wait(left):
            with self._lock:
                silent = time.monotonic() - self._heard_at
                left = self._safe_after_s - silent
                if not self._safe_reason and (left <= 0 or self._stopped):
                    self._make_safe(self._stopped or f"no heartbeat for {silent:.3g} s")
                if left <= 0:
                    left = self._safe_after_s

    def _make_safe(self, reason: str) -> None:
        self._halted.set()
        try:
            self._robot.make_safe()
        except Exception:  # the watch continues, and tries again
            log.exception("the robot did not go into its safe state")
            return
        self._safe_reason = reason
        log.warning("safe state", reason=reason)

    def _note(self, job: Job) -> None:
        self._write(job.model_dump())
        self._jobs[job.id] = job

    def _note_stop(self) -> None:
        try:
            self._write({"halted": self._stopped})
        except OSError:  # it is valid in any case, until the server ends
            log.exception("an emergency stop, or its end, is not in the memory")

    def _write(self, entry: dict[str, Any]) -> None:
        if self._memory is not None:
            with self._memory.open("a", encoding="utf-8") as file:
                file.write(to_json({"time": time.time(), **entry}) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def _remember(self) -> None:
        """Read the memory, except for an incomplete last line."""
        if self._memory is None or not self._memory.exists():
            return
        try:
            whole = self._memory.read_bytes().rpartition(b"\n")[0]
            for line in whole.splitlines():
                if isinstance(entry := json.loads(line), dict) and "halted" in entry:
                    self._stopped = str(entry["halted"])
                    continue
                job = Job.model_validate(entry)
                self._jobs[job.id] = job
            os.truncate(self._memory, len(whole) + bool(whole))
            for job in [job for job in self._jobs.values() if job.state == "running"]:
                self._note(job.model_copy(update={"state": "failed", "reason": "the robot restarted meanwhile"}))
        except (OSError, ValueError) as error:
            raise InputError(f"{self._memory}: not a robot's memory ({cause_of(error)})") from None
