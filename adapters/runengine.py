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
    """Pauses, resumes and stops the plan that a RunEngine executes, from any thread but the RunEngine's own.

    - ``pause`` suspends the plan as a suspender does: devices in motion are stopped, ``RE(...)`` does not
      return and no prompt appears. Acknowledged once the plan rests. A plan that cleared its checkpoint
      cannot be paused.
    - ``resume`` lets it go on from its last checkpoint, so that what was measured since is measured again,
      under the same ``seq_num``. It lifts only this object's own pause: a plan paused at the prompt is its
      user's.
    - ``stop`` is ``RE.stop()``: the plan's clean-up runs and its RunStop says ``exit_status: success``. In
      the user's thread ``RE(...)`` then raises ``RunEngineInterrupted``, as after Ctrl-C and ``RE.stop()``;
      a script that is to go on with its next plan catches it.
    - ``notify`` is logged.
    """

    def __init__(self, RE: RunEngine) -> None:
        self._RE = RE
        self._stopper = ThreadPoolExecutor(1, thread_name_prefix="runengine-stop")
        self._closed = False
        self._release: asyncio.Event | None = None

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        """Carry out ``action`` within ``timeout`` s, else answer ``expired``. Never raises.

        A failure after the RunEngine was asked is ``expired`` too: its outcome is unknown.
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
            return Reply("rejected", "asked from the RunEngine's own thread, which would wait for itself")
        try:
            reply = verb(timeout)
        except FutureTimeoutError:
            # A pause that expired does not happen; the others cannot be taken back, and may yet.
            missing = "the plan did not come to rest" if action == "pause" else "asked; not confirmed"
            reply = Reply("expired", f"{missing} within {timeout:g} s")
        except TransitionError as error:  # the plan ended before it was asked
            reply = Reply("rejected", str(error))
        except Exception as error:  # a Control never raises
            reply = Reply("expired", f"asked, outcome unknown: {type(error).__name__}: {error}")
        log.info("plan control", id=id, action=action, status=reply.status, reason=reply.reason)
        return reply

    def close(self) -> None:
        """Take no more requests. A plan that is paused stays so: ending its pause is a decision too.

        (Its user ends it with Ctrl-C twice, then ``RE.resume()`` or ``RE.stop()``.)
        """
        self._closed = True
        self._stopper.shutdown(wait=False)

    def _pause(self, timeout: float) -> Reply:
        resting = threading.Event()
        # Taken by the plan when it comes to rest, or by the request when it gives up: whoever is first. So a
        # pause that was reported as expired does not happen after all, with nobody there to end it.
        decided = threading.Lock()

        def hold() -> Iterator[Msg]:
            # Runs as a plan, so however it ends (resumed, stopped, aborted at the prompt), `finally` does.
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
                return Reply("rejected", "the plan has cleared its checkpoint and could only be aborted")
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
            given_up = decided.acquire(blocking=False)
        if given_up:
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
        # RE.stop() has no timeout of its own.
        stopping = self._stopper.submit(self._RE.stop)
        try:
            stopping.result(timeout)
        finally:
            stopping.cancel()
        return Reply("acknowledged", "stopped")

    def _in_loop(self, coroutine: Coroutine[Any, Any, T], timeout: float) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._RE.loop).result(timeout)

    def _refusal(self) -> Reply | None:
        """Why nothing can be asked of the RunEngine in its present state; None when a plan is running."""
        state = str(self._RE.state)
        if state == "running":
            return None
        if state == "idle":
            return Reply("rejected", "no plan is running")
        if state == "paused":
            return Reply("rejected", "the plan is paused at its user's prompt, which decides over it")
        return Reply("rejected", f"the RunEngine is {state}")

    def _in_its_own_thread(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._RE.loop
        except RuntimeError:
            return False
