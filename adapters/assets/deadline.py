"""Reads files with a deadline."""

import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

MAX_HANGING = 4
"""Largest number of reads that may hang at once; no other read begins while so many do."""


class ReadsHang(OSError):  # noqa: N818  named after the event
    """A read missed its deadline, or too many earlier reads have not ended."""


class Deadline:
    """Runs each read on its own thread, and abandons reads that take too long, for example if a file server hangs.

    Parameters
    ----------
    seconds : longest time of a read, s
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._hanging: list[threading.Thread] = []

    def __call__(self, read: Callable[[], T]) -> T:
        """Return the result of ``read``, or raise its exception.

        Raises
        ------
        ReadsHang
            The read takes too long, or too many earlier ones still hang.
        """
        self._hanging = [thread for thread in self._hanging if thread.is_alive()]
        if len(self._hanging) >= MAX_HANGING:
            raise ReadsHang(f"not read: {MAX_HANGING} earlier reads hang")
        done: list[tuple[Any, BaseException | None]] = []

        def work() -> None:
            try:
                done.append((read(), None))
            except BaseException as error:
                done.append((None, error))

        thread = threading.Thread(target=work, name="asset", daemon=True)
        thread.start()
        thread.join(self._seconds)
        if not done:
            self._hanging.append(thread)
            raise ReadsHang(f"the read did not end within {self._seconds:g} s")
        result, error = done[0]
        if error is not None:
            raise error
        return result
