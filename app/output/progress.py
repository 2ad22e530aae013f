"""Progress of long work on stderr: a bar for each task on a terminal, plain lines elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LINES_PER_TASK = 100


class ShowProgress(Protocol):
    """Shows how far a task is."""

    def __call__(self, task: str, done: int, of: int | None, note: str = "") -> None:
        """Show that ``done`` pieces ``of`` so many are finished; None where their number is not known."""
        ...


@contextmanager
def progress_bars(console: Console | None = None) -> Iterator[ShowProgress]:
    """Show progress until the block ends.

    Without a terminal each piece is a line; a task of more than ``LINES_PER_TASK`` pieces prints a line per percent.

    Parameters
    ----------
    console : where to; stderr unless given
    """
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn())
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as bars:

        def show(task: str, done: int, of: int | None, note: str = "") -> None:
            if task not in tasks:
                tasks[task] = bars.add_task(task, total=of)
            bars.update(tasks[task], completed=done, total=of, description=_joined(": ", task, note))

        yield show


class _Lines:
    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[str, tuple[int | None, int]] = {}

    def __call__(self, task: str, done: int, of: int | None, note: str = "") -> None:
        step = (of, done * LINES_PER_TASK // of if of and of > LINES_PER_TASK else done)
        if self._shown.get(task) == step:
            return
        self._shown[task] = step
        count = f"{done} of {of}" if of is not None else ""
        line = _joined(": ", task, _joined(", ", count, note))
        self._console.print(line, soft_wrap=True, markup=False, highlight=False)


def _joined(by: str, *parts: str) -> str:
    return by.join(p for p in parts if p)
