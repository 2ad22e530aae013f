"""Documents → frames: in whatever order they come, whatever is lost, repeated or malformed."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..fields import FieldMap
from ..types import SetAside
from .columns import time_of
from .run import OWN_STREAMS, Descriptor, Outcome, Run

PATIENCE = 256
"""Documents, of any run, to wait for a start, a descriptor or events that should have come before."""
PATIENCE_S = 2.0
"""Seconds to wait for them, where those come sooner."""
MAX_HELD = 4096
"""Events held back at once for their start or descriptor."""
MAX_OPEN = 64
"""Runs open at once; beyond, the oldest is taken to have ended."""
MAX_FINISHED = 1000
"""Finished runs that are remembered, so that none is answered twice."""
MAX_SAMPLES = 256
"""Samples whose robot parameters are remembered."""

_NOT_READ = frozenset(
    {"resource", "datum", "datum_page", "stream_resource", "stream_datum", "bulk_events", "bulk_datum"}
)


_Held = list[tuple[dict[str, Any], float]]


class FrameAssembler:
    """Turns the documents of any number of interleaved runs into frames. Never raises.

    A whole-spectrum Event is answered as soon as it comes; a sweep of a step scan as soon as the energy turns round
    after it, or its run stops. Documents that should have come before are waited for, for ``PATIENCE`` further
    documents or ``PATIENCE_S`` at most, or until ``settle``. Whatever arrives, each (energy, μ) of a frame is from
    one Event (from several only where a sweep measured one energy several times: their mean), no frame has points
    of two sweeps and none is answered twice.

    What cannot become a frame comes back as SetAside; it consumes one of its run's ``seq_num`` where it would have
    been a frame. ``run_uid`` is empty where the run is not known. Runs marked ``xas_agent`` are passed over.

    Not thread-safe: to be given its documents from one thread.
    """

    def __init__(self, fields: FieldMap | None = None) -> None:
        self.fields = fields or FieldMap()
        self._clock = 0
        self._now = 0.0
        self._deadlines: deque[tuple[int, float, Callable[[], Iterator[Outcome]]]] = deque()
        """When to act, by the count of documents and in monotonic seconds, whichever comes first."""
        self._open: OrderedDict[str, Run] = OrderedDict()
        self._finished: OrderedDict[str, Run] = OrderedDict()
        self._descriptors: dict[str, tuple[Run, Descriptor]] = {}
        self._startless: dict[str, _Held] = {}
        """Events by run, of runs whose start has not come and is not given up."""
        self._orphans: dict[str, _Held] = {}
        """Events by descriptor, of descriptors that have not come."""
        self._given_up: OrderedDict[str, int] = OrderedDict()
        """How many events, of which no run has been told yet, by descriptors that never came."""
        self._held = 0
        self._overflowing = False
        self._samples: OrderedDict[str, dict[str, float]] = OrderedDict()

    def __call__(self, name: str, doc: dict[str, Any], received: float = 0.0) -> list[Outcome]:
        """Take in one document; return the frames that it completes and what it shows to be unusable.

        ``received`` is ``time.monotonic()`` at its arrival; 0: there is no clock.
        """
        self._clock += 1
        self._now = max(self._now, received)
        out: list[Outcome] = []
        self._collect(out, name, doc, self._document(name, doc, received))
        while self._deadlines and (self._deadlines[0][0] <= self._clock or self._deadlines[0][1] <= self._now):
            self._collect(out, "", None, self._deadlines.popleft()[2]())
        if len(self._open) > MAX_OPEN:
            self._collect(out, "", None, self._finish(next(iter(self._open.values()))))
        return out

    @property
    def waiting(self) -> bool:
        """Whether ``settle`` might give something now."""
        return bool(self._deadlines)

    def settle(self) -> list[Outcome]:
        """Wait no longer for documents that should have come before others: for when a source has been quiet.

        Runs that have not stopped stay open.
        """
        out: list[Outcome] = []
        while self._deadlines:
            self._collect(out, "", None, self._deadlines.popleft()[2]())
        return out

    def flush(self) -> list[Outcome]:
        """End every run that is open, for when no document will come again."""
        out = self.settle()
        for run in list(self._open.values()):
            self._collect(out, "", None, self._finish(run))
        return out

    def _collect(self, out: list[Outcome], name: str, doc: Any, outcomes: Iterator[Outcome]) -> None:
        """Collect outcomes; what raises is set aside, and what came before it is kept."""
        try:
            out.extend(outcomes)
        except Exception as error:
            uid = doc.get("uid") if isinstance(doc, dict) else None
            detail = f"{str(name)[:30] or 'held back'}: {type(error).__name__} {error}"[:300]
            out.append(SetAside("", uid if isinstance(uid, str) else "", 0.0, "malformed document", detail))

    def _document(self, name: str, doc: dict[str, Any], received: float) -> Iterator[Outcome]:
        if name == "event":
            yield from self._event(doc, received)
        elif name == "event_page":
            yield from self._events(_unpack(doc), received)
        elif name == "start":
            yield from self._start(doc)
        elif name == "descriptor":
            yield from self._descriptor(doc)
        elif name == "stop":
            yield from self._stop(doc)
        elif name not in _NOT_READ:
            raise ValueError("no such document")

    def _run(self, uid: Any) -> Run | None:
        """Return the run ``uid``, opened if it is new; None where it is finished."""
        if not isinstance(uid, str):
            raise TypeError(f"run uid is {uid!r}")
        if uid in self._finished:
            return None
        if uid not in self._open:
            self._open[uid] = Run(uid, self.fields, self._samples)
            self._startless[uid] = []
        return self._open[uid]

    def _start(self, doc: dict[str, Any]) -> Iterator[Outcome]:
        run = self._run(doc["uid"])
        if run is None or run.start is not None:
            return
        run.begin(doc)
        for earlier in self._open.values():  # a robot run whose stop was lost has ended when its sample is measured
            if earlier is not run and earlier.sample_uid == run.sample_uid:
                self._remember(earlier)
        yield from self._read(run)

    def _descriptor(self, doc: dict[str, Any]) -> Iterator[Outcome]:
        uid, keys = doc["uid"], doc["data_keys"]
        if not isinstance(uid, str) or not isinstance(keys, dict):
            raise TypeError("uid or data_keys of the wrong type")
        run = self._run(doc["run_start"])
        if run is None or uid in self._descriptors:
            return
        self._given_up.pop(uid, None)
        descriptor = run.descriptors[uid] = Descriptor(uid, str(doc.get("name", "primary")), doc)
        self._descriptors[uid] = (run, descriptor)
        if run.uid not in self._startless:
            yield from run.open(descriptor)
        else:
            self._later(lambda: self._give_up_start(run))
        orphans = self._orphans.pop(uid, [])
        self._held -= len(orphans)
        yield from self._again(orphans)
        yield from self._finish_whole(run)

    def _stop(self, doc: dict[str, Any]) -> Iterator[Outcome]:
        run = self._run(doc["run_start"])
        if run is None or run.stop is not None:
            return
        run.stop = doc
        yield from self._finish_whole(run)
        if run.uid in self._open:
            self._later(lambda: self._finish(run))

    def _events(self, events: Iterable[dict[str, Any]], received: float) -> Iterator[Outcome]:
        yield from self._again([(event, received) for event in events])

    def _again(self, held: _Held) -> Iterator[Outcome]:
        """Read several events, each on its own: one bad among them does not cost the others."""
        for doc, received in held:
            out: list[Outcome] = []
            self._collect(out, "event", doc, self._event(doc, received))
            yield from out

    def _event(self, doc: dict[str, Any], received: float) -> Iterator[Outcome]:
        uid = doc["descriptor"]
        entry = self._descriptors.get(uid)
        if entry is None:
            if uid in self._given_up:
                self._given_up[uid] += 1
                return
            if uid not in self._orphans:
                self._orphans[uid] = []
                self._later(lambda: self._give_up_descriptor(uid))
            yield from self._hold(self._orphans[uid], "", doc, received)
            return
        run, descriptor = entry
        if run.uid in self._finished:
            yield from run.late(descriptor, doc)
        elif run.uid in self._startless:
            yield from self._hold(self._startless[run.uid], run.uid, doc, received)
        else:
            yield from run.event(descriptor, doc, received)
            if run.stop is not None:
                yield from self._finish_whole(run)

    def _hold(self, where: _Held, run_uid: str, doc: dict[str, Any], received: float) -> Iterator[Outcome]:
        if self._held < MAX_HELD:
            self._held += 1
            self._overflowing = False
            where.append((doc, received))
        elif not self._overflowing:
            self._overflowing = True
            detail = f"{MAX_HELD} events wait for their start or descriptor"
            yield SetAside(run_uid, str(doc.get("uid", "")), time_of(doc), "too many held back", detail)

    def _later(self, act: Callable[[], Iterator[Outcome]]) -> None:
        self._deadlines.append((self._clock + PATIENCE, self._now + PATIENCE_S, act))

    def _give_up_descriptor(self, uid: str) -> Iterator[Outcome]:
        orphans = self._orphans.pop(uid, [])
        if not orphans:
            return
        self._held -= len(orphans)
        self._given_up[uid] = len(orphans)
        if len(self._given_up) > MAX_FINISHED:
            self._given_up.popitem(last=False)
        if any(run.unheard() for run in self._open.values()):  # told when that run is finished
            return
        last = orphans[-1][0]
        detail = f"{len(orphans)} events of descriptor {uid}"
        yield SetAside("", str(last.get("uid", "")), time_of(last), "descriptor never came", detail)

    def _give_up_start(self, run: Run) -> Iterator[Outcome]:
        if run.uid not in self._startless or run.start is not None:
            return
        run.joined_late = True
        foreign = [d for d in run.descriptors.values() if d.name not in OWN_STREAMS]
        if foreign:
            yield SetAside(
                run.uid, run.uid, time_of(foreign[0].doc), "joined late", "the start of this run never came"
            )
        yield from self._read(run)

    def _read(self, run: Run) -> Iterator[Outcome]:
        """Begin to read a run, first what was held back for its start."""
        held = self._startless.pop(run.uid, [])
        self._held -= len(held)
        for descriptor in list(run.descriptors.values()):
            if descriptor.stream is None:
                out: list[Outcome] = []
                self._collect(out, "descriptor", descriptor.doc, run.open(descriptor))
                yield from out
        yield from self._again(held)
        yield from self._finish_whole(run)

    def _finish_whole(self, run: Run) -> Iterator[Outcome]:
        """Finish a run that has stopped and of which all has come."""
        if run.stop is not None and run.uid in self._open and run.uid not in self._startless and not run.missing():
            yield from self._finish(run)

    def _finish(self, run: Run) -> Iterator[Outcome]:
        """Close a run: give out what is left of it and remember that it is done."""
        if run.uid in self._open:
            yield from self._give_up_start(run)
        if self._open.pop(run.uid, None) is None:
            return
        self._finished[run.uid] = run
        if len(self._finished) > MAX_FINISHED:
            _, old = self._finished.popitem(last=False)
            for uid in old.descriptors:
                self._descriptors.pop(uid, None)
        self._remember(run)
        yield from self._unread(run)
        yield from run.finish()

    def _unread(self, run: Run) -> Iterator[Outcome]:
        """Tell of a run how many events came without their descriptor."""
        unread = sum(self._given_up.values())
        if not unread or not run.unheard():
            return
        self._given_up = OrderedDict.fromkeys(self._given_up, 0)
        late = run.start is None and not run.descriptors
        reason, missed = ("joined late", "start and descriptor") if late else ("descriptor never came", "descriptor")
        detail = f"{unread} events could not be read: their {missed} never came"
        yield SetAside(run.uid, run.uid, time_of(run.stop or {}), reason, detail)

    def _remember(self, run: Run) -> None:
        """Keep what a robot run said of its sample."""
        if run.sample_uid is None or run.own or run.measures or not run.robot:
            return
        self._samples.setdefault(run.sample_uid, {}).update(run.robot)
        self._samples.move_to_end(run.sample_uid)
        if len(self._samples) > MAX_SAMPLES:
            self._samples.popitem(last=False)


def _unpack(page: dict[str, Any]) -> Iterator[Any]:
    from event_model import unpack_event_page  # it takes 0.2 s to import

    lengths = {len(page[key]) for key in ("uid", "time", "seq_num")} | {len(v) for v in page["data"].values()}
    if len(lengths) != 1:
        raise ValueError(f"columns of different lengths {sorted(lengths)}")
    return unpack_event_page(page)  # type: ignore[arg-type]
