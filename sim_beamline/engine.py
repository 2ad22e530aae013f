"""A RunEngine for the duration of a ``with`` block, and the sinks of its documents."""

import asyncio
import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from bluesky.run_engine import RunEngine, get_bluesky_event_loop, set_bluesky_event_loop
from bluesky.utils import DuringTask, Msg, RunEngineInterrupted

from ..agent.types import get_logger
from .plan_state import PlanState

DocumentSink = Callable[[str, dict[str, Any]], object]

log = get_logger()

TRUTH = "truth"
"""``purpose`` in the RunStart of runs that are hidden from the agent."""

INTERRUPTED = "interrupted"
"""Reason of a measurement that Ctrl-C ended."""
_SAME_SIGNAL_S = 0.2
"""Time after Ctrl-C in which another one counts as the same, s; ``timeout`` signals a process and its group."""


class Outlets:
    """Passes each document to the sinks of its run; an exception in a sink is logged once and stops nothing."""

    def __init__(self, sinks: Sequence[DocumentSink], truth_sinks: Sequence[DocumentSink]) -> None:
        self._sinks, self._truth_sinks = list(sinks), tuple(truth_sinks)
        self._truth: set[str] = set()
        """Uids of truth runs and of their descriptors."""
        self._failed: set[int] = set()

    def subscribe(self, sink: DocumentSink) -> None:
        """Add a sink for the documents of all runs except truth runs."""
        self._sinks.append(sink)

    def __call__(self, name: str, doc: dict[str, Any]) -> None:
        for sink in self._truth_sinks if self._is_truth(name, doc) else self._sinks:
            try:
                sink(name, doc)
            except Exception:
                if id(sink) not in self._failed:
                    self._failed.add(id(sink))
                    log.exception("sink failed; its later failures are not logged", sink=repr(sink), doc=name)

    def _is_truth(self, name: str, doc: dict[str, Any]) -> bool:
        if name == "start":
            truth = doc.get("purpose") == TRUTH
            if truth:
                self._truth.add(doc["uid"])
            return truth
        if name == "descriptor":
            truth = doc["run_start"] in self._truth
            if truth:
                self._truth.add(doc["uid"])
            return truth
        return doc["run_start" if name == "stop" else "descriptor"] in self._truth


@contextmanager
def run_engine(
    outlets: DocumentSink, interrupt: Callable[[], object], clock: Callable[[], float] = time.monotonic
) -> Iterator[RunEngine]:
    """Yield a RunEngine that sends its documents to ``outlets``; its loop and thread end with the block.

    In the main thread the first Ctrl-C calls ``interrupt``, so that runs close properly, and a second one, unless it
    comes within 0.2 s, aborts. In any other thread the signal handlers stay unchanged.
    """

    @contextmanager
    def sigint(_: RunEngine) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        interrupted_at = math.inf

        def handle(number: int, frame: FrameType | None) -> None:
            nonlocal interrupted_at
            now = clock()
            if interrupted_at == math.inf:
                interrupted_at = now
                interrupt()
            elif now - interrupted_at > _SAME_SIGNAL_S:
                signal.default_int_handler(number, frame)

        previous = signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    loop_before = get_bluesky_event_loop()
    loop = asyncio.new_event_loop()
    RE = RunEngine({}, loop=loop, context_managers=[sigint], during_task=DuringTask())
    RE.subscribe(outlets)
    try:
        yield RE
    finally:
        # A RunEngine has no close method: its loop and daemon thread would last until the process ends.
        loop.call_soon_threadsafe(loop.stop)
        RE._th.join(timeout=10)
        if not loop.is_running():
            loop.close()
        set_bluesky_event_loop(loop_before)


def carry_out(plan: Generator[Msg, Any, Any], plan_state: PlanState, outlets: DocumentSink) -> None:
    """Run a plan in a new RunEngine to its end; the first Ctrl-C requests a stop, the second one aborts."""
    plan_state.start()
    try:
        with run_engine(outlets, lambda: plan_state.obey("stop", {"reason": INTERRUPTED})) as RE:
            RE(plan)
    except RunEngineInterrupted:  # raised after the second Ctrl-C
        raise KeyboardInterrupt from None
    finally:
        plan_state.end()
