"""Work that goes on beside the thread that asks for it."""

import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")
_Waiting = SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]


class Ahead:
    """One thread that does one piece of work after another.

    Unlike one of ``concurrent.futures``, it does not keep the process from ending while a network does not return.

    Parameters
    ----------
    name : of the thread, which starts with the first work
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: Thread | None = None
        self._closed = False
        self._waiting: _Waiting = SimpleQueue()
        weakref.finalize(self, self._waiting.put, None).atexit = False  # where nobody calls ``close``

    def __call__(self, work: Callable[[], T]) -> Callable[[], T]:
        """Begin ``work``; return what waits for its result and raises what it raises.

        Where no thread can begin, as when the interpreter ends or after :meth:`close`, it is done when its result is
        asked for.
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
        except BaseException as error:  # for who asks
            future.set_exception(error)
        del item, work, future  # they may be large
