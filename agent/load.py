"""How far behind the agent is, and what it therefore leaves out."""

_TARGET = 0.4
"""Part of the largest latency that the waiting documents may take."""
_CHUNK_S = 0.25
"""Time that the documents taken at once may take, s; what is left out is decided anew for each such chunk."""
_MIN_CHUNK = 16
"""Smallest number of documents taken at once, and of frames from which their time is learnt."""
_LEARNT = 0.3
"""Weight of the newest chunk in the learnt times."""
_MAX_RATIO = 2.0
"""Largest growth of a learnt time that one chunk may suggest: the first frames wait for the model to start."""


class Load:
    """Decides from the number of waiting documents what is left out, so that the newest is answered in time.

    The waiting documents would take a time that follows from the chunks before. If this is more than half the target,
    the passes for the energy uncertainty are left out (``hurried``). If it is more than the target, only every
    ``every``-th frame is answered.

    Parameters
    ----------
    max_latency_s : largest latency of a frame that is answered, s; None leaves nothing out
    """

    def __init__(self, max_latency_s: float | None) -> None:
        self._target_s = None if max_latency_s is None else _TARGET * max_latency_s
        # Begins with the times of one core (benchmarks/run.py): a guess too large would leave out frames for nothing,
        # one too small delays the first chunk only.
        self._document_s, self._frame_s, self._frames_per_document = 5e-5, 7e-4, 1.0
        self.every, self.hurried = 1, False

    def plan(self, documents: int) -> None:
        """Decide for the waiting documents."""
        if self._target_s is None:
            return
        read_s = documents * self._document_s
        serve_s = documents * self._frames_per_document * self._frame_s
        self.hurried = read_s + serve_s > self._target_s / 2
        left_s = max(self._target_s - read_s, 0.1 * self._target_s)
        self.every = max(1, -int(-serve_s // left_s))

    @property
    def documents(self) -> int:
        """Number of documents to take at once."""
        each_s = self._document_s + self._frames_per_document * self._frame_s / self.every
        return max(_MIN_CHUNK, int(_CHUNK_S / each_s))

    def learn(self, documents: int, frames: int, answered: int, read_s: float, serve_s: float) -> None:
        """Learn from a chunk of so many documents with so many ``frames``, of which some were ``answered``."""
        if documents >= _MIN_CHUNK:
            self._document_s = _learnt(self._document_s, read_s / documents)
            self._frames_per_document = _learnt(self._frames_per_document, frames / documents)
        if answered >= _MIN_CHUNK:
            self._frame_s = _learnt(self._frame_s, serve_s / answered)


def _learnt(known: float, new: float) -> float:
    return known + _LEARNT * (min(new, _MAX_RATIO * max(known, 1e-4)) - known)
