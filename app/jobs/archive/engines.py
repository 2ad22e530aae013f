"""Computes the parts of a backfill: in this process, in several, or on the workers of a Dask cluster."""

import multiprocessing as mp
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from typing import Any, Protocol

from ....adapters.errors import EndpointUnreachable
from ....agent.types import InputError
from .work import Part, WorkFailed, Written

Do = Callable[[Part], Written]
Results = Generator[tuple[Part, Written], None, None]
"""Completed parts; closing the generator ends the work."""
_AHEAD = 2
"""Number of parts per worker that are sent ahead: no worker waits, and the memory stays constant."""
_CONNECT_S = 10.0
_WATCH_S = 1.0
"""Interval at which a worker checks whether its command still runs, s."""


class Engine(Protocol):
    """Computes several parts at a time."""

    def __call__(self, do: Do, parts: Iterator[Part]) -> Results:
        """Yield each part when it is complete, in any order; parts are taken only as fast as they are computed.

        Raises
        ------
        WorkFailed
            A part could not be computed, or a worker ended.
        """
        ...

    def close(self) -> None:
        """End the processes that the engine started."""
        ...


class LocalEngine:
    """Processes on this machine.

    Parameters
    ----------
    workers : int
        Number of processes; with one, this process does the work.
    """

    def __init__(self, workers: int = 1) -> None:
        self._workers = workers

    def __call__(self, do: Do, parts: Iterator[Part]) -> Results:
        """As :meth:`Engine.__call__`."""
        if self._workers == 1:
            for part in parts:
                yield part, do(part)
            return
        context, others = mp.get_context("spawn"), set(mp.active_children())  # a fork can hang with torch's threads
        pool = ProcessPoolExecutor(self._workers, context, initializer=_end_with, initargs=(os.getpid(),))
        try:
            yield from _bounded(lambda part: pool.submit(do, part), parts, _AHEAD * self._workers)
        except BrokenProcessPool:
            why = "a worker ended, as when its memory is exhausted (fewer --workers need less)"
            raise WorkFailed(why) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in set(mp.active_children()) - others:  # abandons parts in progress
                child.terminate()
            pool.shutdown()

    def close(self) -> None:
        """As :meth:`Engine.close`; the processes ended with the last part."""


class DaskEngine:
    """The workers of a Dask cluster.

    Parameters
    ----------
    scheduler : str, optional
        Address such as ``tcp://HOST:8786``; without it, the engine starts a cluster of processes on this machine.
    workers : int
        Number of workers, if there is no ``scheduler``.

    Raises
    ------
    InputError
        Dask distributed is not installed.
    EndpointUnreachable
        No scheduler answers.
    """

    def __init__(self, scheduler: str | None = None, workers: int = 1) -> None:
        try:
            from distributed import Client, LocalCluster
        except ImportError as error:
            raise InputError(f"--engine dask needs {error.name}: pip install 'xas-agent[dask]'") from None
        self._cluster: Any = None
        try:
            if scheduler is None:
                self._cluster = LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    host="127.0.0.1",
                    dashboard_address=None,  # pyright: ignore[reportArgumentType] - none, as Dask documents
                    security=True,  # own keys, since otherwise other users of this machine could run code
                )
            self._client: Any = Client(self._cluster or scheduler, timeout=_CONNECT_S)
        except (OSError, TimeoutError, ValueError) as error:
            if self._cluster is not None:
                self._cluster.close()
            raise EndpointUnreachable(scheduler or "dask", f"no scheduler answers: {error}") from None

    def __call__(self, do: Do, parts: Iterator[Part]) -> Results:
        """As :meth:`Engine.__call__`."""
        from distributed import as_completed

        running: dict[Any, Part] = {}
        finished = as_completed()
        try:
            for part in parts:
                while len(running) >= _AHEAD * self._threads():
                    yield self._next(finished, running)
                # Not pure: a failed part is computed again, and a repeated part writes its own file.
                future = self._client.submit(do, part, pure=False)
                running[future] = part
                finished.add(future)
            while running:
                yield self._next(finished, running)
        finally:
            self._client.cancel(list(running))

    def close(self) -> None:
        """Leave the cluster; end it if this engine started it."""
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()

    def _threads(self) -> int:
        """Return how many parts the cluster computes at a time; workers come and go."""
        return max(1, sum(self._client.nthreads().values()))

    def _next(self, finished: Any, running: dict[Any, Part]) -> tuple[Part, Written]:
        future = next(finished)
        part = running.pop(future)
        try:
            return part, future.result()
        except WorkFailed:
            raise
        except Exception as error:  # raised by Dask: a worker that ended repeatedly, or a part that cannot be sent
            raise WorkFailed(f"{part.pieces[0].source}: not done: {type(error).__name__}: {error}") from None


def _bounded(submit: Callable[[Part], "Future[Written]"], parts: Iterator[Part], most: int) -> Results:
    running: dict[Future[Written], Part] = {}
    exhausted = False
    while running or not exhausted:
        while not exhausted and len(running) < most:
            part = next(parts, None)
            if part is None:
                exhausted = True
            else:
                running[submit(part)] = part
        for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
            yield running.pop(future), future.result()


def _end_with(parent: int) -> None:
    """Let a worker end with the command; after a kill it would otherwise wait for parts for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command ends its workers

    def watch() -> None:
        while os.getppid() == parent:
            with suppress(InterruptedError):
                threading.Event().wait(_WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, name="command's end", daemon=True).start()
