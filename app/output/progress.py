"""Progress of long work on stderr: a bar per task on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...models.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

LINES_PER_TASK = 100
RARE_S = 30.0
"""Time between two lines on work whose messages matter more, s."""


@contextmanager
def progress_bars(console: "Console | None" = None) -> Iterator[Progress]:
    """Show progress until the block ends: bars on a terminal, lines elsewhere.

    Without a terminal, each piece of work prints a line; a task of more than ``LINES_PER_TASK`` pieces prints a line
    per percent.

    Parameters
    ----------
    console : Console, optional
        stderr by default.
    """
    import rich.progress  # imported late, since most commands show no progress
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with rich.progress.Progress(*columns, console=console) as bars:

        def show(task: str, done: int, total: int | None, note: str = "") -> None:
            if task not in tasks:
                tasks[task] = bars.add_task(task, total=total)
            bars.update(tasks[task], completed=done, total=total, description=_joined(": ", task, note))

        yield show


@contextmanager
def progress_beside_messages() -> Iterator[Progress]:
    """Show progress for work whose messages matter more: bars on a terminal, and a line now and then elsewhere."""
    if sys.stderr.isatty():
        with progress_bars() as show:
            yield show
    else:
        from rich.console import Console

        yield RareLines(Console(stderr=True))


class RareLines:
    """Prints a line once work has taken ``RARE_S``, and then one in each such time; none for short work.

    Parameters
    ----------
    console : Console
    clock : callable
        Returns the time, s.
    """

    def __init__(self, console: "Console", clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._shown_at = clock()

    def __call__(self, task: str, done: int, total: int | None, note: str = "") -> None:
        """As :class:`Progress`."""
        if self._clock() - self._shown_at >= RARE_S:
            self._shown_at = self._clock()
            _print(self._console, task, done, total, note)


class _Lines:
    def __init__(self, console: "Console") -> None:
        self._console = console
        self._shown: dict[str, tuple[int | None, int]] = {}

    def __call__(self, task: str, done: int, total: int | None, note: str = "") -> None:
        step = (total, done * LINES_PER_TASK // total if total and total > LINES_PER_TASK else done)
        if self._shown.get(task) == step:
            return
        self._shown[task] = step
        _print(self._console, task, done, total, note)


def _print(console: "Console", task: str, done: int, total: int | None, note: str) -> None:
    count = f"{done} of {total}" if total is not None else ""
    line = _joined(": ", task, _joined(", ", count, note))
    console.print(line, soft_wrap=True, markup=False, highlight=False)


def _joined(separator: str, *parts: str) -> str:
    return separator.join(part for part in parts if part)
