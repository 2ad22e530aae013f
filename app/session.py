"""One session of the agent on the command line: a source, a live view and the output files."""

import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

from ..adapters.errors import EndpointUnreachable
from ..adapters.files import FolderSource
from ..adapters.kafka import KafkaSource
from ..adapters.nats import NATSSource
from ..adapters.tiled import FilledSource, TiledSource
from ..adapters.zmq import ZMQSource
from ..agent.types import AgedSource, Control, DurableSource, InputError, SharedSource, Source, get_logger
from ..wording import counted
from .about import write_about
from .agent import CLOSED_EARLY, XASAgent
from .config import Config
from .failures import SourceFailed
from .health import STUCK_S, Health
from .operator import OperatorServer, judged_last, short_id, with_args
from .output.audit import AUDIT, Audit
from .output.folder import OF_DOCUMENTS, OutputFolder
from .output.live import Display
from .output.memory import keep_what_exists
from .output.recorder import Recorder
from .output.screen import Facts, Waiting
from .output.truth import Truth, compare_with_truth
from .signals import SAME_SIGNAL_S, replace_handlers
from .wiring import units_of

_log = get_logger()

_POLL_S = 0.1
"""Interval between refreshes of the live view, s."""
SETTLE_S = 0.5
"""Time for the last documents to arrive after a beamline ended or the last requested frame was served, s."""
_CLOSE_TIMEOUT_S = 5.0
"""Longest wait for the thread of a closed source, s."""
_ABANDON_TIMEOUT_S = 2.0
"""Longest wait for the agent after a second signal, s; the whole shutdown takes at most 5 s."""


@dataclass
class Session:
    """An agent between a source and its outputs.

    Within the ``with`` block, :meth:`watch` reads a source, or other code sends documents to :attr:`agent`. The end
    of the block answers the documents taken and writes the files. The first SIGINT, SIGTERM or SIGHUP ends the block;
    a second one, unless it comes within 0.2 s, gives up the documents that are not answered yet.
    """

    config: Config
    output: OutputFolder | None
    control: Control | None = None
    planned: int | None = None
    """Expected number of frames, for the progress bar."""
    limit: int | None = None
    """Number of frames, answered or set aside, after which the session ends; further ones are not answered."""
    truth: Truth | None = None
    name: str | None = None
    """The source as ``xas-agent inspect`` takes it, for messages, if the config does not name one."""
    health: Health | None = None
    simulated: bool = False
    """Whether the beamline is simulated, so that the session may end it."""
    interrupted: bool = False
    failure: Exception | None = None
    """Error of the source, if it ended early."""
    files_not_read: Mapping[str, str] = field(default_factory=dict)
    """Files of a watched folder that gave no spectrum, with the reasons."""
    start_s: float = field(default_factory=time.perf_counter)
    clock: Callable[[], float] = time.monotonic
    """Clock for the times of signals, s."""
    gain: Callable[[Recorder], Mapping[str, Any]] | None = None
    """Compares a finished simulated experiment with its open loop, for the summary."""
    recorder: Recorder = field(init=False)
    enough: threading.Event = field(init=False, default_factory=threading.Event)
    """Set once ``limit`` frames are served."""
    hurried: threading.Event = field(init=False, default_factory=threading.Event)
    """Set by the second signal."""
    display: Display = field(init=False)
    agent: XASAgent = field(init=False)

    def __post_init__(self) -> None:
        self.recorder = Recorder() if self.output is None else self.output.recorder
        self.recorder.rules = self.config.rules
        self.recorder.frame_at = None  # frames of an earlier process do not show that this one works
        journal = None if self.output is None else self.output.journal
        left = None if self.limit is None else self.limit - self.recorder.numbered
        self.agent = XASAgent.from_config(
            self.config, control=self.control, journal=journal, source=self.name, keep=0, limit=left
        )
        planned = self.planned or self.limit
        self.display = Display(self.recorder, planned, self._facts, units_of(self.config, self.agent.models))
        self._audit = None if self.output is None else Audit(self.output.folder / AUDIT)
        self._operator = OperatorServer(self.agent, self._identity, self._about, self._audit)
        self.agent.subscribe(self._record)
        if self._audit is not None:
            self.agent.subscribe(self._audit)
        if self.output is not None:
            self.agent.subscribe(self.output.documents)
        if self.health is not None:
            self.health.watch(self.agent, self.recorder, self.output)
        if self._is_enough():
            _log.info("the requested number of frames was served before", frames=self.recorder.numbered)
        self._said = False
        self._ending = True
        """Whether signals raise nothing: at the beginning, until the ``with`` block is entered, and at the end."""
        self._answered_at: float | None = None
        """``time.monotonic()`` at the newest answer; None before the first one of this process."""
        self._connected: Callable[[], bool] = lambda: True
        """Returns whether the source can deliver documents."""
        self._signalled_at = -math.inf
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._handlers = replace_handlers(self._signalled)
        if self.output is not None:
            self.output.keep_earlier(self.config.sha256)
            units, source = units_of(self.config, self.agent.models), self._identity()["source"]
            describe = partial(write_about, self.output.folder, self.config, source, units)
            self.output.start(self.summary, self.truth, describe)
        self.display.start()
        self._operator.start()
        keep_what_exists()
        self.agent.start()
        self._ending = self.interrupted  # a signal received meanwhile ends the block as soon as it waits
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.ending()
        if kind is KeyboardInterrupt:
            self.interrupted = True
        try:
            self._close_agent()
            self._operator.close()
            if self._audit is not None:
                self._audit.close()
            self.display.stop()
            if self.output is not None:
                self.output.finish(self.hurried.is_set)
        finally:
            if self.health is not None:
                self.health.close()
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
        return self.interrupted and kind is KeyboardInterrupt

    def ending(self) -> None:
        """Let signals raise nothing from now on; a second one still hurries the shutdown."""
        self._ending = True

    def _signalled(self, *_: object) -> None:
        now = self.clock()
        if not self.interrupted:
            self.interrupted, self._signalled_at = True, now
        elif now - self._signalled_at > SAME_SIGNAL_S:
            self.hurried.set()
        if not self._ending:
            self._ending = True
            raise KeyboardInterrupt

    def _raise_if_signalled(self) -> None:
        """Raise KeyboardInterrupt again after a signal, since Python drops one raised in a finaliser or callback."""
        if self.interrupted:
            raise KeyboardInterrupt

    def _close_agent(self) -> None:
        """Let the agent answer the documents taken; after a second signal, only end its runs."""
        reason = "the requested number of frames is served" if self._is_enough() else CLOSED_EARLY
        self._say_what_waits()
        self.agent.close(0, reason)
        while not self.agent.ended(_POLL_S) and not self.hurried.is_set():
            self.display.refresh()
        if self.hurried.is_set() and not self.agent.abandon(_ABANDON_TIMEOUT_S) and self.output is not None:
            self.output.cut_off(*OF_DOCUMENTS)

    def _say_what_waits(self) -> None:
        waiting = self.agent.unanswered["documents"]
        if self.interrupted and not self._said and waiting:
            self._said = True
            waits = counted(waiting, "document waits", "documents wait")
            _log.info("ending", detail=f"{waits} for an answer; a second signal gives up")

    def watch(self, source: Source, until: Callable[[], bool] = lambda: False) -> None:
        """Send a source's documents to the agent until it ends, ``until`` is True, or ``limit`` frames are served.

        Raises
        ------
        ModelError
            A network, which loads while documents already come, cannot be loaded.
        """
        self.agent.live = isinstance(source, ZMQSource | FilledSource)
        if isinstance(source, DurableSource) and self.output is not None and self.output.journal is not None:
            source.resume(self.output.journal.position)
        shared = source if isinstance(source, SharedSource) else None
        if shared is not None:
            self.agent.acknowledge_to(shared)
        reader = threading.Thread(target=self._read, args=(source,), name="source", daemon=True)
        reader.start()
        self._connected = lambda: getattr(source, "connected", True)
        self._watch_source(lambda: reader.is_alive() and self._connected())
        try:
            while reader.is_alive() and not self._is_enough() and not until():
                self._raise_if_signalled()
                self.agent.check_models()
                self.display.refresh()
                if self.simulated:
                    self._end_long_pause()
                reader.join(_POLL_S)
            if self.enough.is_set():
                reader.join(SETTLE_S)  # the RunStop may still arrive
        finally:
            self._say_what_waits()
            self._connected = lambda: True  # closed, not lost
            failure = self.failure
            source.close()
            closed_by = time.monotonic() + _CLOSE_TIMEOUT_S
            while reader.is_alive() and time.monotonic() < closed_by and not self.hurried.is_set():
                reader.join(_POLL_S)
            self.failure = failure  # an error caused by closing is not a failure
            if isinstance(source, FolderSource):
                self.files_not_read = source.unread
            while not self.agent.wait(_POLL_S) and not self._is_enough() and not self.hurried.is_set():
                self.display.refresh()
            if shared is not None:
                shared.release()
        self.agent.check_models()

    def follow(self, work: Callable[[], None]) -> None:
        """Run ``work``, which calls the agent, on another thread; refresh the live view, and raise its exception."""
        self.agent.live = False
        failure: list[Exception] = []

        def run() -> None:
            try:
                work()
            except Exception as error:  # the caller's thread raises it
                failure.append(error)

        worker = threading.Thread(target=run, name="beamline", daemon=True)
        worker.start()
        self._watch_source(worker.is_alive)
        while worker.is_alive():
            self._raise_if_signalled()
            self.display.refresh()
            self._end_long_pause()
            worker.join(_POLL_S)
        if failure:
            raise failure[0]
        while not self.agent.wait(_POLL_S):
            self._raise_if_signalled()
            self.display.refresh()

    def _facts(self) -> Facts:
        """Return the facts for the live view besides the frames, without waiting for anything."""
        agent, paused, waiting, state = self.agent, self.agent.paused, self.agent.unconfirmed, self.agent.state()
        ids = {decision.id for decision, _ in waiting}
        lost = {s.name: s.lost + s.failed for s in state.subscribers}
        lost |= {} if self.output is None else {f"{kind} not written": n for kind, n in self.output.refused.items()}
        return Facts(
            connected=self._connected() or (self.simulated and not self.recorder.running),  # it ends with its run
            paused="" if paused is None else f"by {paused.decision.rule}: {paused.decision.reason}",
            paused_s=0.0 if paused is None else time.monotonic() - paused.since,
            halted=agent.halted,
            waiting=[Waiting(short_id(d.id, ids), with_args(d), d.rule, d.reason, left) for d, left in waiting],
            standing=agent.standing,
            points=agent.points,
            lost=lost,
            ending=agent.ending,
            unanswered=agent.unanswered["documents"] if agent.ending else state.documents,
            stuck_s=state.progress_age_s if state.progress_age_s > STUCK_S else 0.0,
            dashboard="" if self.output is None else self.output.dashboard,
        )

    def _end_long_pause(self) -> None:
        """Stop a simulated experiment that stays paused, since without frames no rule can resume it."""
        paused = self.agent.paused
        if paused is None or self.failure is not None:
            return
        longest_s = self.config.control.paused_replay_s
        if time.monotonic() - paused.since > longest_s:
            rule = paused.decision.rule
            message = f"paused by rule {rule}, and not resumed within {longest_s:g} s (control.paused_replay_s)"
            self.failure = SourceFailed(message)
            self.agent.perform(lambda pipeline: pipeline.decisions.order("stop", "", message))

    def _identity(self) -> dict[str, str]:
        """Return the identity of the session among its user's, without the lock, which a slow disk may hold."""
        latest, endpoint = self.recorder.latest, self.config.source or self.config.shared
        return {
            "source": self.name or (endpoint.address if endpoint else "simulated beamline"),
            "out": "" if self.output is None else str(self.output.folder.resolve()),
            "sample": str(latest[-1]["sample"]) if latest else "",
        }

    def _about(self) -> dict[str, Any]:
        """Return the entries of ``xas-agent status`` on the session, besides the agent's own state."""
        with self.recorder.lock:
            newest = self.recorder.latest[-1] if self.recorder.latest else None
            row = {k: v for k, v in (newest or {}).items() if isinstance(v, str | int | float)}
            connected, answered_at = self._connected(), self._answered_at
            return {
                "connected": connected,
                "sources": [
                    {"name": self._identity()["source"], "state": "connected" if connected else "connection lost"}
                ],
                "last_frame_age_s": None if answered_at is None else time.monotonic() - answered_at,
                "latency_ms": self.recorder.latency_ms(),
                "frames": self.recorder.frames,
                "decisions": self.recorder.decisions,
                "notifications_failed": self.recorder.notifications_failed,
                "notification_failure": self.recorder.notification_failure,
                "newest": row,
            }

    def _watch_source(self, connected: Callable[[], bool]) -> None:
        if self.health is not None:
            self.health.watch_source(connected)

    def summary(self) -> dict[str, Any]:
        """Return the contents of summary.json."""
        with self.recorder.lock:
            return self._summary()

    def _summary(self) -> dict[str, Any]:
        recorder, truth = self.recorder, self.truth
        [stopped] = recorder.stopped if len(recorder.stopped) == 1 else [""]  # several samples have no single x
        x_at_stop = truth.x_at_end(stopped) if truth is not None and stopped else None
        return {
            "frames": recorder.frames,
            "samples": dict(recorder.samples),
            "frames_set_aside": dict(recorder.set_aside),
            "flags": dict(recorder.flags),
            "gaps": dict(recorder.gaps),
            "files_not_read": dict(self.files_not_read),
            "decisions": recorder.decisions,
            "not_carried_out": _nonzero({status: recorder.statuses[status] for status in ("rejected", "expired")}),
            "rules": [judged_last(standing) for standing in self.agent.standing],
            "stopped_by": recorder.stopped_by,
            "notifications_failed": recorder.notifications_failed,
            "x_target": self.config.x_target,
            "x_true_at_stop": None if x_at_stop is None else round(x_at_stop, 4),
            "x_open_loop_end": round(truth.open_loop_x, 4) if truth and truth.open_loop_x is not None else None,
            "os_against_truth": compare_with_truth(recorder, truth) if truth else None,
            "gain": self.gain(recorder) if self.gain is not None else None,
            "latency_ms": recorder.latency_ms(),
            "model": self._model(),
            "wall_s": round(time.perf_counter() - self.start_s, 2),
            "interrupted": self.interrupted,
            "unanswered": _nonzero(self.agent.unanswered),
            "not_written": _nonzero(self.output.lost) if self.output is not None else {},
        }

    def _model(self) -> dict[str, str] | None:
        name = next(iter(self.recorder.models), None)
        return None if name is None else {"name": name, "sha256": self.recorder.models[name]}

    def _read(self, source: Source) -> None:
        try:
            complete = True
            durable = source if isinstance(source, DurableSource) else None  # once, as it takes microseconds
            aged = source if isinstance(source, AgedSource) else None
            for name, doc in source:
                complete = complete and (name == "stop" or not self.enough.is_set())
                if complete:  # after omitted documents, a RunStop would announce missing Events
                    position = None if durable is None else durable.position
                    self.agent(name, doc, position, 0.0 if aged is None else aged.age_s)
        except (InputError, EndpointUnreachable) as error:
            self.failure = error
        except Exception as error:
            _log.exception("source failed")
            self.failure = SourceFailed(f"source failed: {type(error).__name__}: {error}")

    def _record(self, name: str, doc: dict[str, Any]) -> None:
        if self.output is None or not self.output.recorded(name, doc):
            before = self.recorder.frames
            self.recorder(name, doc)
            if self.recorder.frames > before:
                self._answered_at = time.monotonic()

    def _is_enough(self) -> bool:
        """Return whether ``limit`` frames are served, and let the source's thread know."""
        if self.agent.full:
            self.enough.set()
        return self.enough.is_set()


def source_of(config: Config) -> ZMQSource | TiledSource | FilledSource | NATSSource | KafkaSource:
    """Return the source that the config names, not yet connected."""
    if config.nats is not None:
        return NATSSource(config.nats)
    if config.kafka is not None:
        return KafkaSource(config.kafka)
    if config.source is None:
        assert config.tiled is not None
        return TiledSource(config.tiled)
    live = ZMQSource(config.source)
    return live if config.tiled is None else FilledSource(live, config.tiled)


def _nonzero(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}
