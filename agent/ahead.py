"""A thread that works ahead of the thread that will need its results."""

import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")
_Waiting = SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]


class Ahead:
    """One thread that runs one piece of work after another.

    Unlike the threads of ``concurrent.futures``, it never keeps the process from ending, even if a network hangs.

    Parameters
    ----------
    name : name of the thread, which starts with the first work
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: Thread | None = None
        self._closed = False
        self._waiting: _Waiting = SimpleQueue()
        weakref.finalize(self, self._waiting.put, None).atexit = False  # for an owner that never calls ``close``

    def __call__(self, work: Callable[[], T]) -> Callable[[], T]:
        """Begin ``work``; return a function that waits for its result and raises its exception.

        If no thread can start, for instance after :meth:`close` or while the interpreter ends, that function does the
        work itself.
        """
        if self._closed:
            return work
        if self._thread is None:
            thread = Thread(target=_work_off, args=(self._waiting,), name=self._name, daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return work
            self._thread = thread
        future: Future[T] = Future()
        self._waiting.put((work, future))
        return future.result

    def close(self) -> None:
        """End the thread once its work is done."""
        self._closed = True
        self._waiting.put(None)
        if self._thread is not None:
            self._thread.join()


def _work_off(waiting: _Waiting) -> None:
    while (item := waiting.get()) is not None:
        work, future = item
        try:
            future.set_result(work())
        except BaseException as error:  # the caller raises it
            future.set_exception(error)
        del item, work, future  # so that large objects are freed now
