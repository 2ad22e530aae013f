"""One session of the agent at the command line: documents in until the end, a live view, the files at the end."""

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..adapters.errors import EndpointUnreachable
from ..adapters.tiled import TiledSource
from ..adapters.zmq import ZMQSource
from ..agent.types import Control, InputError, Source, get_logger
from .agent import XASAgent
from .config import Config
from .output.folder import OutputFolder
from .output.live import Display
from .output.recorder import Recorder, Truth, against_truth

_log = get_logger()

POLL_S = 0.1
SETTLE_S = 0.5  # documents still under way when a beamline has ended, or the last frame asked for has come


@dataclass
class Session:
    """An agent between a source and its outputs.

    Enter it, then :meth:`watch` a source or call :attr:`agent` with documents; leaving it writes the files.
    """

    config: Config
    out: Path | None
    control: Control | None = None
    planned: int | None = None
    """Frames expected, for the progress bar."""
    limit: int | None = None
    """Frames after which to end."""
    truth: Truth | None = None
    recorder: Recorder = field(default_factory=Recorder)
    interrupted: bool = False
    failure: Exception | None = None
    """What the source ended with, before its time."""
    begun: float = field(default_factory=time.perf_counter)
    output: OutputFolder | None = field(init=False)
    enough: threading.Event = field(init=False, default_factory=threading.Event)
    """Set when ``limit`` frames are served."""
    display: Display = field(init=False)
    agent: XASAgent = field(init=False)

    def __post_init__(self) -> None:
        self.output = OutputFolder(self.out) if self.out else None
        self.display = Display(self.recorder, self.planned or self.limit)
        self.agent = XASAgent.from_config(self.config, control=self.control)
        self.agent.subscribe(self.recorder)
        self.agent.subscribe(self._count)
        if self.output is not None:
            self.agent.subscribe(self.output.documents)

    def __enter__(self) -> Self:
        self.display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if kind is KeyboardInterrupt:
            self.interrupted = True
        with _uninterrupted():
            if self.enough.is_set():
                self.agent.close(reason="the frames asked for are served")
            self.agent.close()
            self.display.stop()
            if self.output is not None and (error is None or self.interrupted):
                self.output.finish(self.recorder, self.summary(), self.truth)
        return self.interrupted and kind is KeyboardInterrupt

    def watch(self, source: Source, until: Callable[[], bool] = lambda: False) -> None:
        """Feed the agent from ``source`` until it ends, ``until`` says so, or enough frames are served."""
        reader = threading.Thread(target=self._read, args=(source,), name="source", daemon=True)
        reader.start()
        try:
            while reader.is_alive() and not self.enough.is_set() and not until():
                self.display.refresh()
                reader.join(POLL_S)
            if self.enough.is_set():
                reader.join(SETTLE_S)  # the stop of the run that had the last frame
        finally:
            failure = self.failure
            source.close()
            reader.join(5.0)
            self.failure = failure  # what comes of its being closed is none
            while not self.agent.wait(POLL_S) and not self.enough.is_set():
                self.display.refresh()

    def follow(self, work: Callable[[], None]) -> None:
        """Run ``work``, which calls the agent, on another thread, and show what comes of it."""
        failure: list[Exception] = []

        def run() -> None:
            try:
                work()
            except Exception as e:
                failure.append(e)

        worker = threading.Thread(target=run, name="beamline", daemon=True)
        worker.start()
        while worker.is_alive():
            self.display.refresh()
            worker.join(POLL_S)
        if failure:
            raise failure[0]
        while not self.agent.wait(POLL_S):
            self.display.refresh()

    def summary(self) -> dict[str, Any]:
        """Contents of summary.json."""
        r, t = self.recorder, self.truth
        stops = [d for d in r.decisions if d["action"] == "stop" and d["status"] == "acknowledged"]
        return {
            "frames": len(r.frames),
            "frames_set_aside": dict(r.set_aside),
            "flags": r.flags(),
            "gaps": dict(r.gaps),
            "decisions": len(r.decisions),
            "stopped_by": stops[0]["rule"] if stops else None,
            "x_target": self.config.x_target,
            "x_true_at_stop": round(t.x[-1], 4) if t and t.x and stops else None,
            "x_open_loop_end": round(t.open_loop_x, 4) if t and t.open_loop_x is not None else None,
            "os_against_truth": against_truth(r, t) if t else None,
            "latency_ms": r.latency_ms(),
            "model": self._model(),
            "wall_s": round(time.perf_counter() - self.begun, 2),
            "interrupted": self.interrupted,
        }

    def _model(self) -> dict[str, str] | None:
        name = next(iter(self.recorder.models), None)
        return None if name is None else {"name": name, "sha256": self.recorder.models[name]}

    def _read(self, source: Source) -> None:
        try:
            whole = True
            for name, doc in source:
                whole = whole and (name == "stop" or not self.enough.is_set())
                if whole:  # a stop after documents that were left out would announce them in vain
                    self.agent(name, doc)
        except (InputError, EndpointUnreachable) as error:
            self.failure = error
        except Exception as error:
            _log.exception("source failed")
            self.failure = SourceFailed(f"source failed: {type(error).__name__}: {error}")

    def _count(self, name: str, doc: Mapping[str, Any]) -> None:
        if self.limit is not None and self.recorder.numbered >= self.limit:
            self.enough.set()


def source_of(config: Config) -> ZMQSource | TiledSource:
    """Where the config's documents come from; not yet connected."""
    if config.tiled is not None:
        return TiledSource(config.tiled)
    assert config.source is not None
    return ZMQSource(config.source)


class SourceFailed(RuntimeError):  # noqa: N818  says what happened
    """The documents ended before their time."""


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let files be closed whole: a Ctrl-C that comes meanwhile is not heeded."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {s: signal.signal(s, signal.SIG_IGN) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def terminate_like_ctrl_c() -> None:
    """End as cleanly on SIGTERM as on Ctrl-C."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
