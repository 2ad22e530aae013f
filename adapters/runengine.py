"""Control of a bluesky RunEngine in the same process."""

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

from bluesky import Msg, RunEngine
from bluesky.utils import TransitionError  # pyright: ignore[reportPrivateImportUsage]

from ..agent.types import Reply, get_logger

log = get_logger()

T = TypeVar("T")


class RunEngineControl:
    """Pauses, resumes and stops the plan that a RunEngine executes, from any thread except the RunEngine's.

    - ``pause`` suspends the plan as a suspender does: moving devices are stopped, ``RE(...)`` does not return, and
      no prompt appears. The request is acknowledged when the plan rests. A plan that cleared its checkpoint cannot be
      paused.
    - ``resume`` continues the plan from its last checkpoint and repeats the measurements since then, with the same
      ``seq_num``. It ends only a pause of this object; a plan that is paused at the prompt belongs to its user.
    - ``stop`` calls ``RE.stop()``: the plan cleans up, and its RunStop has ``exit_status: success``. In the user's
      thread ``RE(...)`` then raises ``RunEngineInterrupted``, as after Ctrl-C and ``RE.stop()``; a script that
      continues with its next plan must catch this exception.
    - ``notify`` writes to the log.

    Parameters
    ----------
    RE : RunEngine
    """

    def __init__(self, RE: RunEngine) -> None:
        self._RE = RE
        self._stopper = ThreadPoolExecutor(1, thread_name_prefix="runengine-stop")
        self._closed = False
        self._release: asyncio.Event | None = None

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        """Carry out ``action`` within ``timeout`` s, else answer ``expired``; never raises.

        A failure after the request reached the RunEngine is ``expired`` too, because its outcome is unknown.
        """
        if self._closed:
            return Reply("rejected", "the control is closed")
        if action == "notify":
            log.info("notified", id=id, **{f"arg_{key}": value for key, value in args.items()})
            return Reply("acknowledged")
        verb = {"pause": self._pause, "resume": self._resume, "stop": self._stop}.get(action)
        if verb is None:
            return Reply("rejected", f"a RunEngine cannot {action!r}")
        if self._in_its_own_thread():
            return Reply("rejected", "requested in the RunEngine's own thread, which would wait for itself")
        try:
            reply = verb(timeout)
        except FutureTimeoutError:
            # An expired pause is cancelled; resume and stop cannot be cancelled and may still take effect.
            cause = "the plan did not come to rest" if action == "pause" else "requested, but not confirmed"
            reply = Reply("expired", f"{cause} within {timeout:g} s")
        except TransitionError as error:  # the plan ended before the request
            reply = Reply("rejected", str(error))
        except Exception as error:  # a Control never raises
            reply = Reply("expired", f"requested, outcome unknown: {type(error).__name__}: {error}")
        log.info("plan control", id=id, action=action, status=reply.status, reason=reply.reason)
        return reply

    def close(self) -> None:
        """Reject further requests. A paused plan stays paused, because to resume it is a decision too.

        The user ends the pause with Ctrl-C twice, then ``RE.resume()`` or ``RE.stop()``.
        """
        self._closed = True
        self._stopper.shutdown(wait=False)

    def _pause(self, timeout: float) -> Reply:
        resting = threading.Event()
        # The plan acquires this lock when it comes to rest, or the request acquires it at its timeout. A pause
        # reported as expired therefore cannot begin afterwards, when nothing would end it.
        decided = threading.Lock()

        def hold() -> Iterator[Msg]:
            # A plan: `finally` runs after resume, stop, and abort at the prompt.
            if not decided.acquire(blocking=False):
                return
            self._release = release = asyncio.Event()
            resting.set()
            try:
                yield Msg("wait_for", None, [release.wait])
            finally:
                release.set()
                self._release = None

        async def suspend() -> Reply | None:
            if refusal := self._refusal():
                return refusal
            if self._release is not None:
                return Reply("acknowledged", "already paused")
            if not self._RE.resumable:
                return Reply("rejected", "the plan has cleared its checkpoint and can only be aborted")
            if not decided.locked():
                self._RE.request_suspend(lambda: asyncio.sleep(0), pre_plan=hold, justification="xas-agent")
            return None

        end = time.monotonic() + timeout
        try:
            answer = self._in_loop(suspend(), timeout)
            if answer is not None:
                return answer
            resting.wait(max(0.0, end - time.monotonic()))
        finally:
            timed_out = decided.acquire(blocking=False)
        if timed_out:
            return Reply("expired", f"the plan did not come to rest within {timeout:g} s")
        return Reply("acknowledged", "paused")

    def _resume(self, timeout: float) -> Reply:
        async def release() -> Reply:
            if refusal := self._refusal():
                return refusal
            if self._release is None:
                return Reply("rejected", "the plan is not paused")
            self._release.set()
            return Reply("acknowledged", "resumed")

        return self._in_loop(release(), timeout)

    def _stop(self, timeout: float) -> Reply:
        if refusal := self._refusal():
            return refusal
        # RE.stop() has no timeout.
        stopping = self._stopper.submit(self._RE.stop)
        try:
            stopping.result(timeout)
        finally:
            stopping.cancel()
        return Reply("acknowledged", "stopped")

    def _in_loop(self, coroutine: Coroutine[Any, Any, T], timeout: float) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._RE.loop).result(timeout)

    def _refusal(self) -> Reply | None:
        """Return the rejection in the RunEngine's present state; None while a plan runs."""
        state = str(self._RE.state)
        if state == "running":
            return None
        if state == "idle":
            return Reply("rejected", "no plan is running")
        if state == "paused":
            return Reply("rejected", "the plan is paused at the prompt; its user decides")
        return Reply("rejected", f"the RunEngine is {state}")

    def _in_its_own_thread(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._RE.loop
        except RuntimeError:
            return False
