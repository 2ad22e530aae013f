"""Limits on the waits for missing documents."""

from collections.abc import Callable

PATIENCE_DOCUMENTS = 256
"""Number of further documents, of any run, during which the book waits for a start, a descriptor or Events."""
PATIENCE_S = 2.0
"""Longest wait, s, if fewer documents arrive."""


class Deadlines:
    """The open waits for documents, and the action that follows if a wait ends in vain.

    All waits have the same limit, so that the oldest one ends first.

    Parameters
    ----------
    do : runs an action for the awaited uid; by default errors of the action propagate
    """

    def __init__(self, do: Callable[[str, Callable[[], object]], object] = lambda uid, action: action()) -> None:
        self._do = do
        self.now = 0.0
        """Largest arrival time of a document so far, monotonic seconds."""
        self.count = 0
        """Number of documents so far."""
        self._waits: dict[tuple[str, str], tuple[int, float, Callable[[], None]]] = {}
        """By awaited kind and uid: document count and time at which the wait ends, and the action then."""

    def __bool__(self) -> bool:
        return bool(self._waits)

    def tick(self, at: float) -> None:
        """Count a document that arrived at ``at``, monotonic seconds."""
        self.count += 1
        if at > self.now:
            self.now = at

    def add(self, kind: str, uid: str, give_up: Callable[[], None]) -> None:
        """Begin to wait for a document of this kind and uid, unless such a wait is open."""
        self._waits.setdefault((kind, uid), (self.count + PATIENCE_DOCUMENTS, self.now + PATIENCE_S, give_up))

    def remove(self, kind: str, uid: str) -> None:
        """End a wait; its action is not run."""
        self._waits.pop((kind, uid), None)

    def expire(self, now: float) -> None:
        """End the waits whose limit is reached at ``now``, monotonic seconds, and run their actions."""
        while self._waits:
            awaited, (last_count, last_time, give_up) = next(iter(self._waits.items()))
            if last_count > self.count and last_time > now:
                break
            del self._waits[awaited]
            self._do(awaited[1], give_up)
