"""The documents of runs, in order → frames."""

from collections.abc import Iterator

from cachetools import LRUCache

from ..fields import FieldSettings
from ..types import Reason, RunDocument, SetAside
from .run import Outcome, Run

MAX_SAMPLES = 256
"""Samples whose robot parameters are remembered."""


class FrameAssembler:
    """Turns the documents of runs, in the order of :class:`RunDocument`, into frames. Never raises.

    A whole-spectrum Event is answered as soon as it comes; a sweep of a step scan as soon as the energy turns round
    after it, or its run stops. What cannot become a frame is returned as SetAside; it consumes one of its run's
    ``seq_num`` where it would have been a frame.

    Not thread-safe.
    """

    def __init__(self, fields: FieldSettings) -> None:
        self._fields = fields
        self._runs: dict[str, Run] = {}
        self._samples: LRUCache[str, dict[str, float]] = LRUCache(MAX_SAMPLES)

    def __call__(self, document: RunDocument) -> list[Outcome]:
        """Take in one document; return the frames that it completes and what it shows to be unusable."""
        out: list[Outcome] = []
        try:
            out.extend(self._document(document))
        except Exception as error:
            detail = f"{document.name}: {type(error).__name__} {error}"[:300]
            out.append(SetAside("", str(document.doc.get("uid", "")), 0.0, Reason.MALFORMED_DOCUMENT, detail))
        return out

    def _document(self, document: RunDocument) -> Iterator[Outcome]:
        uid = document.run.uid
        if document.name == "event":
            yield from self._runs[uid].event(document.doc, document.at)
        elif document.name == "start":
            self._start(document)
        elif document.name == "descriptor":
            yield from self._runs[uid].open(document.doc)
        elif document.name == "stop":
            run = self._runs.pop(uid)
            self._remember(run)
            yield from run.finish(document.doc)

    def _start(self, document: RunDocument) -> None:
        info = document.run
        run = self._runs.setdefault(info.uid, Run(info, self._fields, self._samples))
        run.begin(info)
        for earlier in self._runs.values():  # a robot run whose stop was lost has ended when its sample is measured
            if earlier is not run and earlier.info.sample_uid == info.sample_uid:
                self._remember(earlier)

    def _remember(self, run: Run) -> None:
        """Keep the parameters of its sample that a robot run recorded."""
        sample = run.info.sample_uid
        if sample is not None and run.robot and not run.measures:
            self._samples[sample] = {**self._samples.get(sample, {}), **run.robot}
