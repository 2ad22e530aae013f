"""Serves frames in batches: they are aligned, estimated and published, as far as possible at the same time."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from .ahead import Ahead
from .attempt import attempt
from .estimate import Answer, FrameServer
from .publication import Publication
from .publish import Pages, come_in_pages
from .types import Frame

_FEWEST_AHEAD, _BATCH_AHEAD = 32, 128
"""Fewest frames for which the network works on its own thread, and largest batch while more frames come."""


class Serving:
    """Serves the frames that wait, together. Not thread-safe.

    While the network works on one batch, the next is aligned and the one before published; if more frames come, they
    are read meanwhile.

    Parameters
    ----------
    serve : aligns and estimates frames
    publish : publishes the answers
    pages : whether the Events of frames are published together, as EventPages
    max_batch : largest number of frames in one pass of the network
    in_turn : returns whether each batch must be published before the next is aligned
    commit : called after each group of frames
    abandoned : the host sets it to end without answers to the frames already taken
    """

    def __init__(
        self,
        serve: FrameServer,
        publish: Publication,
        *,
        pages: Pages,
        max_batch: int,
        in_turn: Callable[[], bool],
        commit: Callable[[], None],
        abandoned: threading.Event,
    ) -> None:
        self._serve, self._publish = serve, publish
        self._pages: Pages = pages
        self._max_batch, self._in_turn, self._commit, self._abandoned = max_batch, in_turn, commit, abandoned
        self.unanswered = 0
        """Number of frames that were not answered because the host ended the pipeline."""
        self.answered, self.taken_s = 0, 0.0
        """Number of frames served since :meth:`begin`, and the time taken, s."""
        self.ahead: deque[tuple[Callable[[], list[Answer]], list[Answer], bool]] = deque()
        """Unpublished batches: a call that adds the estimates, the answers without them, and whether to use pages."""
        self._waiting: list[Frame] = []
        self._most = max_batch
        self._network = Ahead("xas-agent network")

    def begin(self, *, ahead: bool) -> None:
        """Begin to count for further documents, in batches small enough to work ahead, if ``ahead``."""
        self.answered, self.taken_s = 0, 0.0
        self._most = min(self._max_batch, _BATCH_AHEAD) if ahead else self._max_batch

    def add(self, frame: Frame) -> None:
        """Let a frame wait."""
        self._waiting.append(frame)

    @property
    def is_due(self) -> bool:
        """Whether as many frames wait as are served together."""
        return len(self._waiting) >= self._most

    def __call__(self, *, more: bool = False) -> None:
        """Serve the waiting frames; with ``more``, leave what the network works on until further frames were read."""
        in_turn = self._in_turn()
        while self._waiting:
            frames, self._waiting = self._waiting, []
            began, paged, left = time.monotonic(), come_in_pages(frames, self._pages), len(frames)
            for answers in self._aligned(frames):
                if self._abandoned.is_set():
                    self.unanswered += left
                    break
                left -= len(answers)
                ahead = not in_turn and len(answers) >= _FEWEST_AHEAD
                estimate = partial(self._serve.estimated, answers)
                self.ahead.append((self._network(estimate) if ahead else estimate, answers, paged))
                while len(self.ahead) > ahead:
                    self._publish_next()
            self.taken_s += time.monotonic() - began
            self._commit()
        began = time.monotonic()
        while self.ahead and not more:
            self._publish_next()
        self.taken_s += time.monotonic() - began

    def close(self) -> None:
        """End the network's thread."""
        self._network.close()

    def _aligned(self, frames: Sequence[Frame]) -> Iterator[list[Answer]]:
        """Yield the aligned frames in batches; frames that fail in a batch follow one by one."""
        left = {id(frame): frame for frame in frames}
        try:
            for answers in self._serve.batches(frames):
                for answer in answers:
                    del left[id(answer.frame)]
                yield answers
        except Exception as error:
            for frame in left.values():
                if len(frames) > 1:
                    yield from self._aligned([frame])
                else:
                    self._publish.note_failure(frame, error)

    def _publish_next(self) -> None:
        """Publish the oldest batch of the network."""
        estimated, answers, paged = self.ahead.popleft()
        self.answered += len(answers)
        try:
            answers = estimated()
        except Exception as error:
            for answer in answers:
                self._publish.note_failure(answer.frame, error)
            return
        for group in self._publish.neighbours(answers, paged):
            if self._abandoned.is_set():
                self.unanswered += len(group)
            else:
                attempt(partial(self._publish, group, paged), run=group[0].frame.run_uid)
