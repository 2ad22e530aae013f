"""Reports missing data of a run: Events, streams and fields that did not arrive, and incomplete sweeps."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ...wording import all_of, counted
from ..fields import (
    FieldSettings,
    describe_missing_fields,
    element_and_edge,
    find_missing_fields,
    read_text,
)
from ..types import Reason, Refusal, RunInfo, SetAside, get_logger
from .columns import announced_events, document_time
from .frames import RunFrames
from .spectrum_stream import MAX_ANSWERED, SpectrumStream, StreamDescriptor
from .unread import UnreadStreams, is_of_optimiser

Doc = Mapping[str, Any]

_log = get_logger()


class MissingData:
    """Reports the missing data of one run.

    Parameters
    ----------
    frames : numbers the notes that take the place of a frame
    unread : reports streams that are not read, each once over all runs
    """

    def __init__(self, settings: FieldSettings, frames: RunFrames, unread: UnreadStreams) -> None:
        self._settings, self._frames, self._unread = settings, frames, unread
        self.unreadable = False
        """Whether the run has a reported stream that cannot be read."""

    @property
    def _info(self) -> RunInfo:
        return self._frames.info

    def note_measured_again(self, stream: SpectrumStream, seq: int) -> None:
        """Count an Event that has the number of an earlier one; log the first such Event.

        A RunEngine that resumes after a pause repeats the Events since its last checkpoint under their old numbers.
        If the uid of the earlier Event may have been forgotten, the Event is taken for a repetition by its transport
        and is not counted.
        """
        if seq <= max(stream.read_before, stream.order.ready - MAX_ANSWERED):
            return
        stream.measured_again += 1
        if stream.measured_again == 1:
            info = self._info
            about = {"run": info.uid, "stream": stream.name, "seq_num": seq, **info.scan.named()}
            _log.warning("events measured again after a pause are not used: the first ones are answered", **about)

    def gap(self, stream: SpectrumStream, missing: int, time: float) -> SetAside:
        """Report the Events missing so far, except those of earlier reports."""
        lost, stream.reported = missing - stream.reported, missing
        detail = f"{counted(lost, 'event')} of stream {stream.name} did not arrive"
        if stream.order.gaps:
            detail += f": seq_num {', '.join(stream.order.gaps)}"
            stream.order.gaps.clear()
        uid = self._info.uid
        return SetAside(uid, uid, time, Reason.EVENTS_LOST, detail, count=lost)

    def nothing_came(self, stream: SpectrumStream, announced: int | None, stop: Doc) -> SetAside:
        """Report a stream of spectra without any Event."""
        reason, detail = Reason.TOO_FEW_POINTS, f"stream {stream.name} has no events"
        if announced:
            reason = Reason.POINTS_LOST if stream.points is not None else Reason.EVENTS_LOST
            detail = f"{all_of(announced, 'event')} of stream {stream.name} did not arrive"
        return self._frames.set_aside(self._info.uid, document_time(stop), reason, detail)

    def of_fields(
        self, descriptors: Iterable[StreamDescriptor], streams: Iterable[SpectrumStream], stop: Doc
    ) -> Iterator[SetAside]:
        """Report configured fields that no stream has; robot runs record no spectra and are exempt."""
        read = [d for d in descriptors if self._settings.reads(d.name)]
        reported = self.unreadable or any(stream.fields.formula for stream in streams)
        if not self._info.watched or reported or not read:
            return
        missing = find_missing_fields(self._settings, (d.doc for d in read))
        robot = not self._info.start or self._info.sample_uid is not None
        if missing and not (robot and missing == find_missing_fields(self._settings, ())):
            keys = dict.fromkeys(key for d in read for key in d.doc["data_keys"])
            why = describe_missing_fields(missing.values(), dict.fromkeys(d.name for d in read), keys)
            uid = self._info.uid
            yield SetAside(uid, uid, document_time(stop), why.reason, why.detail)

    def of_streams(self, descriptors: Iterable[StreamDescriptor], stop: Doc) -> Iterator[SetAside]:
        """Report a run that names its element but has no stream that may hold spectra.

        The book reports the streams that a RunStop announces.
        """
        names = [descriptor.name for descriptor in descriptors]
        if not self._info.watched or self.unreadable or any(map(self._settings.reads, names)):
            return
        lost = any(number and self._settings.reads(name) for name, number in announced_events(stop).items())
        if stop and not lost and element_and_edge(FieldSettings(), self._info.start)[0] is not None:
            found, status = ", ".join(dict.fromkeys(names)) or "nothing", _exit_status(stop)
            detail = f"the run ended ({status}) without a stream of spectra; found {found}"
            yield self._frames.set_aside(self._info.uid, document_time(stop), Reason.TOO_FEW_POINTS, detail)

    def unknown_energy(self, descriptor: StreamDescriptor) -> SetAside:
        """Return the note on a stream of intensities whose energy is unknown."""
        doc, _ = descriptor.unread[-1]
        known = next(iter(descriptor.candidates.values()))
        signals = ", ".join(sorted(known.used - {known.energy}))
        keys = ", ".join(descriptor.doc["data_keys"])
        detail = f"stream {descriptor.name}: {signals} came without a known energy; name fields.energy; found {keys}"
        self._unread.report(self._info.uid, descriptor.name, descriptor.doc["data_keys"])
        descriptor.candidates, descriptor.unread, self.unreadable = {}, [], True
        return SetAside(self._info.uid, descriptor.doc["uid"], document_time(doc), Reason.NO_ENERGY, detail[:500])

    def warn_of_unread(self, descriptors: Iterable[StreamDescriptor], min_events: int) -> None:
        """Log the streams with at least ``min_events`` Events of a run without a readable stream."""
        if not self._info.watched or self.unreadable:
            return
        for descriptor in descriptors:
            expected = self._settings.reads(descriptor.name) and not is_of_optimiser(descriptor.doc)
            if expected and descriptor.events >= min_events and not descriptor.unread:
                self._unread.report(self._info.uid, descriptor.name, descriptor.doc["data_keys"])


def why_incomplete(stream: SpectrumStream, planned: int, announced: int | None, stop: Doc | None) -> Refusal | None:
    """Return why the last sweep of a run may be incomplete, or None.

    Parameters
    ----------
    planned : number of points that the RunStart announces; 0 if it does not
    announced : number of Events that the RunStop announces; None if it does not
    stop : the RunStop; None if it did not arrive
    """
    if planned and stream.order.count == planned:
        return None
    plan = f", {planned} planned" if planned else ""
    if stop is None:
        return Refusal(Reason.RUN_NEVER_STOPPED, plan)
    status = _exit_status(stop)
    if status != "success" or (announced is not None and announced < planned):
        why = read_text(stop, ["reason"])[:200]
        return Refusal(Reason.SWEEP_CUT_SHORT, f"{plan}; exit status {status}" + (f": {why}" if why else ""))
    return None


def _exit_status(stop: Doc) -> str:
    """Return the exit status of a RunStop in words, whatever its value is."""
    return read_text(stop, ["exit_status"]) or ("unknown" if "exit_status" in stop else "success")
