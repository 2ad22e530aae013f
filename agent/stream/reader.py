"""Documents → frames: the book, the stages after it, and the assembler, in this order."""

from collections.abc import Iterable, Sequence

from ..fields import FieldSettings
from ..types import Frame, Received, RunDocument, RunInfo, SetAside, Stage
from .assembler import FrameAssembler
from .book import Book
from .fly import FlyJoiner, FlySettings

Outcome = Frame | SetAside | RunDocument
"""RunDocument: a run's start before all else of it, and its stop after all else."""


class FrameReader:
    """Turns the documents of any number of interleaved runs into frames, in whatever order they come. Never raises.

    Whatever arrives, each (energy, μ) of a frame is from one Event (from several only where a sweep measured one
    energy several times: their mean), no frame has points of two sweeps, and none is answered twice. What cannot
    become a frame is a SetAside.

    Not thread-safe.

    Parameters
    ----------
    fields : which fields hold what; by default detected by their names
    fly : which streams of a fly scan are joined, if any
    stages : what documents go through between the book and the joined streams
    """

    def __init__(
        self, fields: FieldSettings | None = None, fly: FlySettings | None = None, stages: Sequence[Stage] = ()
    ) -> None:
        fields = fields or FieldSettings()
        joiner = (FlyJoiner(fly, fields),) if fly is not None else ()
        self._stages: tuple[Stage, ...] = (*stages, *joiner)
        self._book = Book(
            fields, lambda name: fields.reads(name) or (fly is not None and fly.trace(name) is not None)
        )
        self._assembler = FrameAssembler(fields)

    @property
    def no_run(self) -> RunInfo:
        """What the config alone says: for what belongs to no known run."""
        return self._book.no_run

    @property
    def waiting(self) -> bool:
        """Whether documents are waited for, or held back."""
        return self._book.waiting or any(stage.waiting for stage in self._stages)

    def __call__(self, document: Received) -> list[Outcome]:
        """Take in one document; return the frames that it completes and what it shows to be unusable."""
        return self._through(self._book(document))

    def poll(self, now: float) -> list[Outcome]:
        """Return what has become ready, or is given up, by ``now`` (``time.monotonic()``)."""
        found = self._through(self._book.poll(now)) if self._book.waiting else []
        for k, stage in enumerate(self._stages):
            if stage.waiting:
                found += self._through(stage.poll(now), k + 1)
        return found

    def settle(self) -> list[Outcome]:
        """Wait no longer for documents that should have come before others; files are still waited for."""
        return self._through(self._book.settle())

    def finish(self) -> list[Outcome]:
        """End every run that is open, for when no document will come again."""
        found = self._through(self._book.finish())
        for k, stage in enumerate(self._stages):
            found += self._through(stage.finish(), k + 1)
        return found

    def _through(self, items: Iterable[RunDocument | SetAside], first: int = 0) -> list[Outcome]:
        """Send documents through the stages from the ``first`` on, then to the assembler."""
        for stage in self._stages[first:] if first else self._stages:
            passed: list[RunDocument | SetAside] = []
            for item in items:
                passed += stage(item) if isinstance(item, RunDocument) else (item,)
            items = passed
        found: list[Outcome] = []
        for item in items:
            if isinstance(item, SetAside):
                found.append(item)
                continue
            if item.name == "start":
                found.append(item)
            found += self._assembler(item)
            if item.name == "stop":
                found.append(item)
        return found
