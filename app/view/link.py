"""Finds the running sessions of this user by their folders, over the operator's socket."""

import time
from pathlib import Path
from typing import Any

from ..ask import Refused, Running, running_sessions

_LOOK_S = 2.0
"""Shortest time between two searches for running sessions, s."""
_STATUS_S = 3.0
"""Longest wait for the state of a session, s."""


class Links:
    """Finds the running session of a folder; thread-safe."""

    def __init__(self) -> None:
        self._looked_at = float("-inf")
        self._found: list[Running] = []

    def of(self, folder: Path) -> Running | None:
        """Return the session that writes into a folder; None if none runs."""
        if time.monotonic() - self._looked_at > _LOOK_S:
            self._looked_at = time.monotonic()
            known = {session.socket: session for session in self._found}
            try:
                found = running_sessions()
            except (Refused, OSError):
                found = []
            # A session that is too busy to identify itself keeps its known identity.
            self._found = [s if "out" in s.identity else known.get(s.socket, s) for s in found]
        out = str(folder.resolve())
        return next((session for session in self._found if session.identity.get("out") == out), None)

    def status(self, folder: Path) -> dict[str, Any] | None:
        """Return the ``status`` of a folder's session; empty if it does not answer, None if none runs."""
        session = self.of(folder)
        if session is None:
            return None
        try:
            answer = session.ask("status", timeout_s=_STATUS_S)
        except Refused:
            self._looked_at = float("-inf")
            return {} if self.of(folder) is not None else None
        return answer if answer.get("ok") else {}
