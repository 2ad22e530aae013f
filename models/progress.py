"""The callback that receives the progress of long work."""

from typing import Protocol


class Progress(Protocol):
    """Receives the state of a task."""

    def __call__(self, task: str, done: int, total: int | None, note: str = "") -> object:
        """Report that ``done`` of ``total`` pieces of a task are finished.

        Parameters
        ----------
        task : str
                Name of the task, equal in all its reports.
        done : int
        total : int or None
            None while the number of pieces is unknown.
        note : str
            Latest result, such as a score or the name of the last piece.
        """
        ...
