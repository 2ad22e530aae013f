"""Logs data set aside: repeated notes are counted, and their number is logged at the end of the run."""

from typing import Any

from .types import Reason, SetAside, get_logger

_log = get_logger()

_MOST_DETAILS = 10
"""Largest number of log lines per run and reason, each with a different detail."""
_MOST_RUNS = 1000
"""Largest number of remembered runs."""


class Told:
    """Logs each reason and detail once per run, and the number of the other notes at the end of the run.

    >>> from xas_agent.agent.types import Reason, SetAside
    >>> told = Told()
    >>> [told.tell(SetAside("run", f"f{n}", 0.0, Reason.NO_MODEL, "no model for Sc K")) for n in range(3)]
    [True, False, False]
    >>> told.forget("run")
    >>> told.tell(SetAside("run", "f4", 0.0, Reason.NO_MODEL, "no model for Sc K"))
    True
    """

    def __init__(self) -> None:
        self._details: dict[str, dict[Reason, set[str]]] = {}
        """Details already logged, by run and reason."""
        self._further: dict[str, dict[Reason, int]] = {}
        """Number of frames and documents whose notes were not logged, by run and reason."""

    def tell(self, note: SetAside, **names: Any) -> bool:
        """Log a note with the ``names`` of its run, or count it; return whether it was logged as a warning."""
        if len(self._details) > _MOST_RUNS:
            self.forget(next(iter(self._details)))  # notes may arrive after the end of their run
        told = self._details.setdefault(note.run_uid, {}).setdefault(note.reason, set())
        new = note.reason is not Reason.OVERLOAD  # an overload is logged when it begins and ends
        new &= note.detail not in told and len(told) < _MOST_DETAILS
        if new:
            told.add(note.detail)
        elif note.reason is not Reason.OVERLOAD:
            further = self._further.setdefault(note.run_uid, {})
            further[note.reason] = further.get(note.reason, 0) + note.count
        log = _log.warning if new else _log.debug
        numbered = {} if note.seq_num is None else {"frame": note.seq_num}
        log("set aside", reason=str(note.reason), detail=note.detail, count=note.count, **numbered, **names)
        return new

    def forget(self, run_uid: str) -> None:
        """Forget a run at its end; log how many of its notes were not logged."""
        self._details.pop(run_uid, None)
        for reason, count in self._further.pop(run_uid, {}).items():
            _log.warning("further set aside", reason=str(reason), count=count, run=run_uid)

    def close(self) -> None:
        """Forget all runs in this way."""
        for run_uid in list(self._details):
            self.forget(run_uid)
