"""Reads the results in a session's folder, finished or still growing."""

from pathlib import Path

from ..jobs.rebuild import rules_of
from ..output.data_frames import Results
from ..output.folder import DOCUMENTS
from ..output.history import History, Tail


def read_session(folder: str | Path) -> Results:
    """Return the results in the ``--out`` folder of ``xas-agent run`` or ``replay``.

    Each call of a method also reads what a running session has added.

    Parameters
    ----------
    folder : str or Path
        The folder, or its documents.jsonl.

    Returns
    -------
    Results
        The same tables as :attr:`XASAgent.results`, for all frames.

    Raises
    ------
    InputError
        There are no documents of an agent.
    """
    path = Path(folder)
    history = History()
    tail = Tail(path / DOCUMENTS if path.suffix != ".jsonl" else path)
    tail(history)
    history.recorder.rules = rules_of(tail.path.parent)
    return Results(history, lambda: tail(history))
