"""How far behind the agent is, and what it skips to catch up."""

_TARGET = 0.4
"""Share of the largest latency that processing the waiting documents may take."""
_CHUNK_S = 0.25
"""Time that one chunk of documents may take, s; :class:`Load` plans anew for each chunk."""
_MIN_CHUNK = 16
"""Smallest number of documents in a chunk, and smallest number from which a time is learnt."""
_LEARNT = 0.3
"""Weight of the newest chunk in the learnt times."""
_MAX_RATIO = 2.0
"""Largest growth of a learnt time by one chunk; the first frames include the start of the model."""


class Load:
    """Decides from the number of waiting documents what to skip, so that the newest frame is answered in time.

    The times of earlier chunks predict how long the waiting documents take. If this exceeds half the target, the
    agent skips the passes for the energy uncertainty (``hurried``). If it exceeds the target, the agent answers only
    every ``every``-th frame.

    Parameters
    ----------
    max_latency_s : largest latency of an answered frame, s; None: skip nothing
    """

    def __init__(self, max_latency_s: float | None) -> None:
        self._target_s = None if max_latency_s is None else _TARGET * max_latency_s
        # Initial values: the times of one core (benchmarks/run.py). Too large a guess would skip frames for nothing;
        # too small a guess delays the first chunk only.
        self._document_s, self._frame_s, self._frames_per_document = 5e-5, 7e-4, 1.0
        self.every, self.hurried = 1, False

    def plan(self, documents: int) -> None:
        """Plan for this number of waiting documents."""
        if self._target_s is None:
            return
        read_s = documents * self._document_s
        serve_s = documents * self._frames_per_document * self._frame_s
        self.hurried = read_s + serve_s > self._target_s / 2
        left_s = max(self._target_s - read_s, 0.1 * self._target_s)
        self.every = max(1, -int(-serve_s // left_s))

    @property
    def documents(self) -> int:
        """Number of documents in the next chunk."""
        each_s = self._document_s + self._frames_per_document * self._frame_s / self.every
        return max(_MIN_CHUNK, int(_CHUNK_S / each_s))

    def learn(self, documents: int, frames: int, answered: int, read_s: float, serve_s: float) -> None:
        """Learn from a chunk of ``documents`` with ``frames``, some of them ``answered``, and its times, s."""
        if documents >= _MIN_CHUNK:
            self._document_s = _learnt(self._document_s, read_s / documents)
            self._frames_per_document = _learnt(self._frames_per_document, frames / documents)
        if answered >= _MIN_CHUNK:
            self._frame_s = _learnt(self._frame_s, serve_s / answered)


def _learnt(known: float, new: float) -> float:
    return known + _LEARNT * (min(new, _MAX_RATIO * max(known, 1e-4)) - known)
