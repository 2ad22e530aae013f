"""The agent's own Bluesky run, whose documents hold the results for a watched run."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..types import Decision, Estimate, Estimates, Frame, Lines, Memory, Scan, SetAside, get_logger
from .data_keys import NAME_KEYS, UNITS, data_keys, scan_names
from .frame_streams import FrameRows, FrameStreams, Layout
from .pages import events_of, new_uids, page_of
from .provenance import PastRun, Provenance, metadata_of

_log = get_logger()

Emit = Callable[[str, dict[str, Any]], None]
"""Receives the name and the content of each document."""

_DECISION_KEYS = {
    "id": "string",
    "rule": "string",
    "action": "string",
    "args": "string",
    "reason": "string",
    "evidence": "string",
    "confidence": "number",
    "status": "string",
    "status_reason": "string",
    "status_time": "number",
    "by": "string",
    **NAME_KEYS,
}
_QUALITY_KEYS = {
    "uid": "string",
    "reason": "string",
    "detail": "string",
    "frame_seq_num": "integer",
    "count": "integer",
    **NAME_KEYS,
}


class AgentRun:
    """One run of the agent for one watched run.

    It emits the RunStart at construction, a Descriptor when a stream begins or its keys change, and the RunStop at
    ``close``. ``seq_num`` counts the Events of each stream over all its Descriptors; in ``descriptors``, ``spectra``
    and ``measured`` it therefore counts frames. Times are those of the frames. Documents hold plain Python values,
    except for the float64 arrays of spectra and of class probabilities. Not thread-safe.

    Parameters
    ----------
    start : RunStart of the watched run; ``uid`` and ``time`` are required
    provenance : model, config and versions
    emit : receives each document as ``(name, doc)``
    spectra : whether to publish the aligned spectra
    scan : sample, number and file of the watched run
    past : run to continue, with its uids and numbers; its start and Descriptors are not emitted again
    """

    def __init__(
        self,
        start: Mapping[str, Any],
        provenance: Provenance,
        emit: Emit,
        *,
        spectra: bool = True,
        scan: Scan | None = None,
        past: PastRun | None = None,
    ) -> None:
        self._provenance, self._scan = provenance, scan or Scan()
        self._units = {**UNITS, **provenance.units}
        self._frame_streams = FrameStreams(provenance, self._units)
        self._emit = emit
        self._spectra = spectra
        self._known = past.descriptors if past is not None else ()
        self._counters = {name: count + 1 for name, count in past.counts.items()} if past is not None else {}
        if past is not None:
            started, self._latest = dict(past.start), past.latest
        else:
            self._latest = float(start["time"])
            started = {"uid": _new_uid(), "time": self._latest, **metadata_of(start, provenance, self._scan)}
        # The agent composes the documents itself and the tests validate them: event-model takes a second to import,
        # and its validation would take longer than the estimate.
        self._streams: dict[Layout, tuple[str, tuple[str, ...]]] = {}
        """Uid of the Descriptor and names of the values, by layout."""
        self._closed = False
        self._remembered: dict[str, int] | None = None
        """Numbers of Events at the last call of :meth:`memory`."""
        self._parent_uid: str = started["parent_uid"]
        self.uid: str = started["uid"]
        if past is None:
            emit("start", started)

    def memory(self) -> Memory:
        """Return the numbers of Events by stream; empty if they are unchanged since the last call."""
        counts = {name: following - 1 for name, following in self._counters.items()}
        if counts == self._remembered:
            return {}
        self._remembered = counts
        return {(self._parent_uid, "run", self.uid): [counts, self._latest]}

    def frame(
        self,
        frame: Frame,
        quantities: Mapping[str, float],
        estimate: Estimate,
        aligned: NDArray[np.floating] | None,
        latency_ms: float,
        lines: Lines | None = None,
    ) -> None:
        """Publish one frame as :meth:`frames` does; ``aligned``, (G,), and ``lines`` have no axis of frames."""
        columns = {name: np.array([value], float) for name, value in quantities.items()}
        rows = None if aligned is None else np.array(aligned, float)[None]
        latency = np.array([latency_ms], float)
        self.frames(FrameRows([frame], columns, Estimates.of([estimate]), rows, latency, lines))

    def frames(self, rows: FrameRows, *, paged: bool = False) -> None:
        """Publish the estimates of frames in ``descriptors``, and their spectra in ``spectra`` and ``measured``.

        A classified descriptor D has the keys ``D``, ``D_p``, ``D_mean``, ``D_lo``, ``D_hi``, ``D_sd_frame`` and
        ``D_probabilities``; the configuration lists its classes. A regressed descriptor has ``D_mean`` to
        ``D_sd_frame``. The other keys are ``ood_score``, ``e0_ev``, ``edge_step``, ``noise``, ``latency_ms``, the
        frame's uid, number and time, its sample, scan id, file and element, ``flags``, the other alignment quantities
        and the frame's readings. A reading whose name is one of these keys is published as ``reading_…``; ``.`` and
        ``/`` in names become ``_``.

        Parameters
        ----------
        rows : N frames; aligned or measured spectra that they lack are not published
        paged : whether to publish one EventPage per stream; otherwise Events in the order of the frames
        """
        if self._closed:
            _log.warning("frames after the end of the run not published", frames=len(rows.frames), run=self.uid)
            return
        # All columns are formed before the first document is emitted: a failure leaves nothing half published.
        tables = self._frame_streams.tables(rows, spectra=self._spectra)
        for table in tables:
            if table.layout not in self._streams:
                self._describe(table.layout, rows.frames[0].time, **table.describe())
        times = [frame.time for frame in rows.frames]
        pages = [self._page(table.layout, table.columns, times) for table in tables]
        if paged:
            for page in pages:
                self._emit("event_page", page)
            return
        for events in zip(*map(events_of, pages), strict=True):
            for event in events:
                self._emit("event", event)

    def _page(self, layout: Layout, columns: Sequence[Any], times: Sequence[float]) -> dict[str, Any]:
        descriptor, names = self._streams[layout]
        first = self._counters[layout[0]]
        page = page_of(descriptor, dict(zip(names, columns, strict=True)), first, times)
        self._latest = max([self._latest, *times])
        self._counters[layout[0]] = first + len(times)
        return page

    def decision(self, decision: Decision) -> None:
        """Publish a decision or a change of its status; ``args`` and ``evidence`` are JSON strings."""
        layout = ("decisions",)
        if layout not in self._streams:
            self._describe(layout, decision.time, data_keys(_DECISION_KEYS, "rules", self._units))
        values = (
            decision.id,
            decision.rule,
            decision.action,
            json.dumps(dict(decision.args), default=str),
            decision.reason,
            json.dumps(decision.evidence),
            float(decision.confidence),
            decision.status,
            decision.status_reason,
            float(decision.status_time),
            decision.by,
            *self._names(decision.scan),
        )
        self._event(layout, values, decision.time)

    def set_aside(self, note: SetAside) -> None:
        """Publish a note on data set aside; ``frame_seq_num`` is 0 if the note has no number.

        ``count`` is the number of frames, or otherwise of documents or Events, that the note covers.
        """
        layout = ("quality",)
        if layout not in self._streams:
            self._describe(layout, note.time, data_keys(_QUALITY_KEYS, "frames", self._units))
        names = self._names(replace(self._scan, file=note.file or self._scan.file))
        values = (note.uid, str(note.reason), note.detail, int(note.seq_num or 0), note.count, *names)
        self._event(layout, values, note.time)

    def close(
        self, exit_status: str = "success", reason: str = "", time: float | None = None, *, watched: bool = True
    ) -> None:
        """Emit the RunStop once; later documents are dropped and logged.

        Parameters
        ----------
        exit_status : exit status of the watched run; ``fail`` if it has none
        reason : reason in the watched RunStop, or why the agent gave up the watched run
        time : time of the watched RunStop, Unix s; by default the time of the newest Event
        watched : whether the status is that of the watched run, and not of the agent
        """
        if self._closed:
            return
        self._closed = True
        if exit_status not in ("success", "abort", "fail"):
            exit_status, reason = "fail", f"unknown exit status {exit_status!r}. {reason}".strip()
        if exit_status != "success" and watched:
            reason = f"the watched run ended with {exit_status}" + (f": {reason}" if reason else "")
        stop = {
            "uid": _new_uid(),
            "time": max(self._latest, time or 0.0),
            "run_start": self.uid,
            "exit_status": exit_status,
            "reason": reason,
            "num_events": {name: following - 1 for name, following in self._counters.items()},
        }
        self._emit("stop", stop)

    def _names(self, scan: Scan) -> tuple[str, int, str, str]:
        return scan_names(scan, self._provenance.element)

    def _describe(self, layout: Layout, time: float, data_keys: dict[str, Any], **more: Any) -> None:
        if self._closed:
            return
        known = next((d for d in self._known if d["name"] == layout[0] and d["data_keys"] == data_keys), None)
        self._counters.setdefault(layout[0], 1)
        if known is not None:
            self._streams[layout] = known["uid"], tuple(data_keys)
            return
        descriptor = {
            "configuration": {},
            "data_keys": data_keys,
            "name": layout[0],
            "object_keys": {"xas_agent": list(data_keys)},
            "run_start": self.uid,
            "time": time,
            "uid": _new_uid(),
            "object_classes": {},
            "hints": {},
            **more,
        }
        self._streams[layout] = descriptor["uid"], tuple(data_keys)
        self._emit("descriptor", descriptor)

    def _event(self, layout: Layout, values: Sequence[Any], time: float) -> None:
        if self._closed:
            _log.warning("event after the end of the run not published", stream=layout[0], run=self.uid)
            return
        (event,) = events_of(self._page(layout, [[value] for value in values], [time]))
        self._emit("event", event)


def decision_of(event: Mapping[str, Any], run_uid: str) -> Decision:
    """Return the decision of an Event of ``decisions``."""
    data = event["data"]
    return Decision(
        id=data["id"],
        rule=data["rule"],
        action=data["action"],
        reason=data["reason"],
        run_uid=run_uid,
        time=event["time"],
        confidence=data["confidence"],
        evidence=tuple((uid, value) for uid, value in json.loads(data["evidence"])),
        status=data["status"],
        status_reason=data["status_reason"],
        scan=Scan(sample=data["sample"], scan_id=data["scan_id"], file=data["file"]),
        args=json.loads(data["args"]),
        by=data.get("by", ""),  # earlier versions did not publish it
        status_time=data.get("status_time", event["time"]),
    )


def _new_uid() -> str:
    return new_uids(1)[0]
