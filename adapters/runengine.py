"""Control of a bluesky RunEngine in the same process."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from typing import Any, TypeVar

from bluesky import Msg, RunEngine
from bluesky.protocols import Movable, Status
from bluesky.utils import TransitionError  # pyright: ignore[reportPrivateImportUsage]

from ..agent.types import ConfigError, RepeatFrame, Reply, SetValue, get_logger, validate_settings

log = get_logger()

T = TypeVar("T")


class RunEngineControl:
    """Pauses, resumes, stops and changes the plan that a RunEngine executes, from any thread except the RunEngine's.

    - ``pause`` suspends the plan as a suspender does: moving devices are stopped, ``RE(...)`` does not return, and
      no prompt appears. The request is acknowledged when the plan rests. A plan that cleared its checkpoint cannot be
      paused.
    - ``resume`` continues the plan from its last checkpoint and repeats the measurements since then, with the same
      ``seq_num``. It ends only a pause of this object; a plan that is paused at the prompt belongs to its user.
    - ``stop`` calls ``RE.stop()``: the plan cleans up, and its RunStop has ``exit_status: success``. In the user's
      thread ``RE(...)`` then raises ``RunEngineInterrupted``, as after Ctrl-C and ``RE.stop()``; a script that
      continues with its next plan must catch this exception.
    - ``set`` calls the device's ``set`` in the RunEngine's event loop, even during a pause of this object, while the
      plan continues. ``set`` is acknowledged after this call, and does not wait until the device has reached the
      value. A device that refuses the value does not affect the plan; a later failure is logged. Pauses and the end
      of the plan do not stop the device.
    - ``repeat_frame`` calls ``repeat``; the plan must check between its frames for requests.
    - ``notify`` writes to the log.

    Parameters
    ----------
    RE : RunEngine
    signals : mapping, optional
        Devices that ``set`` may change, by name: Bluesky's ``Movable``, such as ophyd signals and positioners. The
        plan itself must not move them, since nothing coordinates the two.
    repeat : callable, optional
        Called in another thread with the request: the counting time and, if the agent decided on a frame, the uid of
        the run and the number of the frame in it. The plan should ignore a request for any frame but its last one.
    """

    def __init__(
        self,
        RE: RunEngine,
        signals: Mapping[str, Movable[Any]] | None = None,
        repeat: Callable[[RepeatFrame], None] | None = None,
    ) -> None:
        self._RE, self._signals, self._repeat = RE, dict(signals or {}), repeat
        self._stopper = ThreadPoolExecutor(1, thread_name_prefix="runengine-stop")
        self._closed = False
        self._release: asyncio.Event | None = None
        self._one_pause = threading.Lock()
        """Allows one pause at a time: a RunEngine that is about to suspend cannot be asked again."""
        self._verbs: dict[str, Callable[[Mapping[str, Any], float], Reply]] = {
            "pause": self._pause,
            "resume": self._resume,
            "stop": self._stop,
            "set": self._set,
            "repeat_frame": self._repeat_frame,
        }

    def request(self, id: str, action: str, args: Mapping[str, Any], timeout: float) -> Reply:
        """Carry out ``action`` within ``timeout`` s, otherwise answer ``expired``; never raises.

        A failure after the request reached the RunEngine is ``expired`` too, because its outcome is unknown.
        """
        if self._closed:
            return Reply("rejected", "the control is closed")
        if action == "notify":
            log.info("notified", id=id, **{f"arg_{key}": value for key, value in args.items()})
            return Reply("acknowledged")
        verb = self._verbs.get(action)
        if verb is None:
            return Reply("rejected", f"a RunEngine cannot {action!r}")
        if self._in_its_own_thread():
            return Reply("rejected", "requested in the RunEngine's own thread, which would wait for itself")
        try:
            reply = verb(args, timeout)
        except FutureTimeoutError:
            # An expired pause takes no effect; resume and stop cannot be cancelled and may take effect.
            cause = "the plan did not come to rest" if action == "pause" else "requested, but not confirmed"
            reply = Reply("expired", f"{cause} within {timeout:g} s")
        except (TransitionError, ConfigError) as error:  # the plan ended before the request; wrong arguments
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

    def _pause(self, args: Mapping[str, Any], timeout: float) -> Reply:
        end = time.monotonic() + timeout
        if not self._one_pause.acquire(timeout=timeout):
            raise FutureTimeoutError
        try:
            return self._suspend(max(0.0, end - time.monotonic()))
        finally:
            self._one_pause.release()

    def _suspend(self, timeout: float) -> Reply:
        resting = threading.Event()
        # The plan acquires this lock when it comes to rest, or the request acquires it at its timeout. A pause
        # reported as expired therefore cannot begin afterwards, when nothing would end it.
        decided = threading.Lock()

        def hold() -> Iterator[Msg]:
            if not decided.acquire(blocking=False):
                return
            # `finally` runs after resume, stop, and abort at the prompt.
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
            raise FutureTimeoutError
        return Reply("acknowledged", "paused")

    def _set(self, args: Mapping[str, Any], timeout: float) -> Reply:
        wanted = validate_settings(dict(args), SetValue, "args of set")
        if (device := self._signals.get(wanted.signal)) is None:
            known = ", ".join(self._signals) or "none"
            return Reply("rejected", f"found signal {wanted.signal!r}; this RunEngine's control was given: {known}")
        end = time.monotonic() + timeout

        async def put() -> Reply:
            if refusal := self._refusal():
                return refusal
            if time.monotonic() >= end:  # already reported as expired, and must not happen afterwards
                raise FutureTimeoutError
            try:
                status = device.set(wanted.value)  # not by a message, whose failure would end the plan
            except Exception as error:
                return Reply("rejected", f"{wanted.signal} refused {wanted.value:g}: {type(error).__name__}: {error}")
            status.add_callback(partial(_log_failure, wanted))
            return Reply("acknowledged", f"{wanted.signal} was asked to go to {wanted.value:g}")

        try:
            return self._in_loop(put(), timeout)
        except FutureTimeoutError:
            what = f"the device did not return from set within {timeout:g} s, outcome unknown"
            return Reply("expired", what)

    def _repeat_frame(self, args: Mapping[str, Any], timeout: float) -> Reply:
        wanted = validate_settings(dict(args), RepeatFrame, "args of repeat_frame")
        if self._repeat is None:
            return Reply("rejected", "this RunEngine's control was not given what repeats a frame")
        if refusal := self._refusal():
            return refusal
        self._repeat(wanted)
        return Reply("acknowledged", "the plan is asked for it")

    def _resume(self, args: Mapping[str, Any], timeout: float) -> Reply:
        async def release() -> Reply:
            if refusal := self._refusal():
                return refusal
            if self._release is None:
                return Reply("rejected", "the plan is not paused")
            self._release.set()
            return Reply("acknowledged", "resumed")

        return self._in_loop(release(), timeout)

    def _stop(self, args: Mapping[str, Any], timeout: float) -> Reply:
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


def _log_failure(wanted: SetValue, status: Status) -> None:
    if not status.success:
        log.warning("a value was set and not reached", signal=wanted.signal, value=wanted.value)
