"""Collects the contents of a session's documents as they are written; independent of the web server.

Numbers of all frames are kept, column by column. Spectra are not kept, but read from the file on request.
"""

import json
import threading
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...agent.publish import events_of
from ...agent.types import get_logger
from ..output.names import DOCUMENTS, SESSION
from ..output.recorder import Recorder
from .arrays import STREAMS, Arrays, as_measured
from .rows import Rows
from .tail import Line, Replaced, Tail

_log = get_logger()

OWN_COLUMNS = ("n", "series", "uid")
"""Columns of a frame besides those of descriptors.csv: its number in the session, its series and its uid."""
_LATEST_NOTES = 200
"""Number of notes on data set aside to keep."""
_MAX_DECISIONS = 5000
"""Number of decisions to keep."""

Change = tuple[str, dict[str, Any]]
"""Kind of change (``frame``, ``decision``, ``quality`` or ``reset``) and its data."""


class History:
    """The history of one folder. Thread-safe: one thread calls :meth:`update`, others read.

    Parameters
    ----------
    folder : Path
        Folder of a session; its documents need not exist yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self._tail = Tail(folder / DOCUMENTS)
        self._begin()

    def _begin(self) -> None:
        self._recorder = Recorder(self._frame_row)
        self._changes: list[Change] = []
        self._rows = Rows()
        self._number: dict[str, int] = {}
        """Number of a frame, from 0, by its uid."""
        self._arrays = Arrays(self._tail.path)
        self._streams: dict[str, tuple[str, str]] = {}
        """Stream and agent run, by the uid of a Descriptor."""
        self._series_of_run: dict[str, str] = {}
        self._parents: dict[str, str] = {}
        self._series: dict[tuple[str, str], str] = {}
        """Id of a series by its key and element."""
        self._first: dict[str, str] = {}
        """Uid of the first frame of each series."""
        self._classes: dict[str, dict[str, list[str]]] = {}
        """Classes of descriptors, by Descriptor."""
        self.descriptors: dict[str, dict[str, Any]] = {}
        self.models: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self.elements: list[str] = []
        self.decisions: dict[str, dict[str, Any]] = {}
        self.notes: deque[dict[str, Any]] = deque(maxlen=_LATEST_NOTES)
        self.started: float | None = None
        self.ended: float | None = None
        self._open: set[str] = set()
        self.malformed = 0

    def update(self, most: int = 1000) -> list[Change]:
        """Read at most ``most`` documents since the last call; return the changes, empty if there are none.

        If the documents of the folder were replaced, the history begins anew with the change ``reset``.
        """
        with self.lock:
            self._changes = []
            try:
                for line in islice(self._tail.lines(), most):
                    self._take(line)
            except Replaced:
                self._begin()
                self._changes = [("reset", {})]
            except OSError:
                pass  # a network folder may be unavailable for a while
            return self._changes

    @property
    def behind(self) -> bool:
        """Whether the file holds unread documents."""
        return self._tail.behind

    def _take(self, line: Line) -> None:
        text = line.text.lstrip(b"\0")  # left if a file was cut while being written
        line = Line(line.offset + len(line.text) - len(text), text)
        try:
            if line.text.startswith(b'["event"') and self._index(line):
                return
            name, doc = json.loads(line.text)
            self._document(name, doc, line)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
            self.malformed += 1
            if self.malformed == 1:
                _log.warning("record skipped", file=str(self._tail.path), where=f"byte {line.offset}")

    def _index(self, line: Line) -> bool:
        """Record the position of a spectrum's Event; return whether the line is one."""
        found = self._arrays.event_of(line)
        if found is not None:
            self._found(*found, line)
        return found is not None

    def _found(self, stream: str, uid: str, line: Line) -> None:
        if (number := self._number.get(uid)) is not None:
            self._arrays.found(stream, number, line)

    def _document(self, name: str, doc: dict[str, Any], line: Line) -> None:
        if name == "event_page":  # in a recording by another program
            for event in events_of(doc):
                self._document("event", event, line)
            return
        if name == "start":
            self._start(doc)
        elif name == "descriptor":
            self._describe(doc)
        elif name == "stop":
            self._open.discard(doc["run_start"])
            if not self._open:
                self.ended = doc["time"]
        stream, run = self._streams.get(doc.get("descriptor", ""), ("", ""))
        if name != "event":
            self._recorder(name, doc)
        elif stream in STREAMS:
            self._found(stream, doc["data"]["frame_uid"], line)
        elif stream == "descriptors" and doc["data"]["frame_uid"] not in self._number:
            self._now = run, doc
            self._recorder(name, doc)
        elif stream == "decisions":
            self._decision(doc, run)
            self._recorder(name, doc)
        elif stream == "quality":
            self._note(doc, run)
            self._recorder(name, doc)

    def _start(self, doc: Mapping[str, Any]) -> None:
        uid = doc["uid"]
        self._series_of_run[uid], self._parents[uid] = str(doc.get("series", doc["parent_uid"])), doc["parent_uid"]
        self.started = doc["time"] if self.started is None else min(self.started, doc["time"])
        self._open.add(uid)
        self.ended = None
        self.versions |= doc.get("versions", {})
        if doc["model"].get("sha256"):
            self.models[doc["model"]["name"]] = doc["model"]["sha256"]

    def _describe(self, doc: Mapping[str, Any]) -> None:
        uid, stream = doc["uid"], doc["name"]
        self._streams[uid] = stream, doc["run_start"]
        configuration = doc.get("configuration", {}).get("xas_agent", {}).get("data", {})
        self._arrays.describe(stream, uid, configuration)
        if stream == "descriptors":
            ending = "_classes"
            classes = {k.removesuffix(ending): v for k, v in configuration.items() if k.endswith(ending)}
            self._classes[uid] = {name: [f"{value:g}" for value in values] for name, values in classes.items()}
            for name in (key.removesuffix("_mean") for key in doc["hints"]["xas_agent"]["fields"]):
                unit = doc["data_keys"][f"{name}_mean"].get("units") or ""
                about: dict[str, Any] = {"name": name, "unit": "" if unit == "dimensionless" else unit}
                if name in classes:
                    about["classes"] = self._classes[uid][name]
                self.descriptors[name] = about

    def _frame_row(self, row: dict[str, Any]) -> None:
        """Store a row of descriptors.csv that the recorder made from an Event."""
        run, doc = self._now
        uid, element = row["frame_uid"], row["element"]
        key = self._series_of_run[run], element
        if key not in self._series:
            taken = any(series == key[0] for series, _ in self._series)
            self._series[key] = f"{key[0]} ({element})" if taken else key[0]
        series = self._series[key]
        if element and element not in self.elements:
            self.elements.append(element)
        probabilities = {
            f"{name} {label}": p
            for name, labels in self._classes.get(doc["descriptor"], {}).items()
            for label, p in zip(labels, doc["data"].get(f"{name}_probabilities", ()), strict=False)
        }
        columns = self._recorder.columns()
        kept = {name: row[name] for name in columns if name in row}
        number = self._rows.count
        self._rows.append({"n": number + 1, "series": series, "uid": uid, **kept, **probabilities})
        self._number[uid] = number
        self._first.setdefault(series, uid)
        self._arrays.add_frame()
        self._changes.append(("frame", self.frame(self._rows.count - 1)))

    def _decision(self, doc: Mapping[str, Any], run: str) -> None:
        data = doc["data"]
        before = self.decisions.get(data["id"])
        step = {
            "status": data["status"],
            "time": data.get("status_time") or doc["time"],
            "reason": data["status_reason"],
            **({"by": data["by"]} if data.get("by") else {}),
        }
        history = before["history"] if before else []
        if not history or history[-1] != step:
            history = [*history, step]
        evidence = [
            {"uid": uid, "n": self._number[uid] + 1 if uid in self._number else None, "value": value}
            for uid, value in json.loads(data["evidence"])
        ]
        key = self._series_of_run[run], data.get("element", "")
        self.decisions[data["id"]] = decision = {
            **{name: data[name] for name in ("id", "rule", "action", "reason", "confidence", "status")},
            "status_reason": data["status_reason"],
            "args": json.loads(data["args"]),
            "time": doc["time"],
            "history": history,
            "evidence": evidence,
            "sample": data.get("sample", ""),
            "series": self._series.get(key, key[0]),
        }
        if len(self.decisions) > _MAX_DECISIONS:
            del self.decisions[next(iter(self.decisions))]
        self._changes.append(("decision", decision))

    def _note(self, doc: Mapping[str, Any], run: str) -> None:
        names = ("reason", "detail", "count", "sample", "scan_id", "file", "frame_seq_num")
        data = doc["data"]
        note = {"time": doc["time"], "uid": data["uid"], **{name: data[name] for name in names if name in data}}
        self.notes.append(note)
        self._changes.append(("quality", note))

    # The data for readers.

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self._rows.count

    def columns(self) -> list[str]:
        """Return the columns of a frame: those of descriptors.csv, then ``OWN_COLUMNS``."""
        return [*self._recorder.columns(), *OWN_COLUMNS]

    def frame(self, number: int) -> dict[str, Any]:
        """Return the row of a frame by its number, from 0, with its class probabilities."""
        row = self._rows.row(number, self.columns())
        probabilities: dict[str, dict[str, float]] = {}
        for name, about in self.descriptors.items():
            labels = about.get("classes", ())
            found = self._rows.row(number, [f"{name} {label}" for label in labels])
            if found:
                probabilities[name] = {key.partition(" ")[2]: p for key, p in found.items()}
        return {**row, "probabilities": probabilities}

    def select(self, after: int = 0, limit: int | None = None, series: str | None = None) -> list[int]:
        """Return numbers of frames, from 0: at most ``limit`` after the ``after``-th, of one series or all."""
        with self.lock:
            if series is None:
                chosen: Iterable[int] = range(min(after, self.frames), self.frames)
            else:
                found = self._rows.column("series")
                chosen = (i for i in range(min(after, self.frames), self.frames) if found[i] == series)
            return [i for i, _ in zip(chosen, range(limit), strict=False)] if limit is not None else list(chosen)

    def rows(self, numbers: Iterable[int]) -> list[dict[str, Any]]:
        """Return the rows of frames by their numbers, from 0."""
        with self.lock:
            return [self.frame(number) for number in numbers]

    def table(self, numbers: Sequence[int]) -> dict[str, Any]:
        """Return the columns of descriptors.csv and ``OWN_COLUMNS`` for frames by their numbers, from 0."""
        with self.lock:
            columns = {name: self._rows.column(name) for name in self.columns()}
            return {name: [values[i] for i in numbers] for name, values in columns.items() if len(values)}

    def samples(self) -> list[dict[str, Any]]:
        """Return the series, in the order of their beginning."""
        with self.lock:
            series, times = self._rows.column("series"), self._rows.column("time")
            found: dict[str, dict[str, Any]] = {}
            for (_, element), id in self._series.items():
                if id not in self._first:
                    continue  # the only frame was malformed
                number = self._number[self._first[id]]
                name = self._rows.row(number, ["sample"]).get("sample", "")
                found[id] = {"series": id, "name": name, "element": element}
            counts, newest = Counter(series), {id: number for number, id in enumerate(series)}
            for id, about in found.items():
                first = self._number[self._first[id]]
                about |= {"frames": counts[id], "first": times[first], "last": times[newest[id]]}
            return list(found.values())

    def quality(self) -> dict[str, Any]:
        """Return the numbers of frames set aside and of gaps, by reason, and the latest notes."""
        with self.lock:
            return {
                "set_aside": dict(self._recorder.set_aside),
                "gaps": dict(self._recorder.gaps),
                "flags": dict(self._recorder.flags),
                "latest": list(self.notes)[::-1],
            }

    def latency_ms(self) -> dict[str, float]:
        """Return quantiles of the latency."""
        return self._recorder.latency_ms()

    def about(self) -> dict[str, Any]:
        """Return the session's description from its start; empty for an earlier version."""
        try:
            found = json.loads((self.folder / SESSION).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def spectra(self, last: int, series: str | None = None) -> dict[str, Any]:
        """Return aligned spectra, thinned evenly to ``last`` over a series or the session, including the newest."""
        with self.lock:
            arrays, uids = self._arrays, self._rows.column("uid")
            numbers = [i for i in self.select(series=series) if arrays.offset("spectra", i) >= 0]
            if len(numbers) > last:
                picked = np.unique(np.linspace(0, len(numbers) - 1, last).round().astype(int))
                numbers = [numbers[i] for i in picked]
            wanted = [(i, uids[i], arrays.offset("spectra", i)) for i in numbers]
        events = arrays.read([(offset, uid) for _, uid, offset in wanted])
        rows = [
            {"n": i + 1, "uid": uid, "mu": data["spectrum"]}
            for (i, uid, _), data in zip(wanted, events, strict=True)
            if data is not None
        ]
        return {"grid_ev": arrays.grid, "rows": rows}

    def spectrum(self, uid: str) -> dict[str, Any]:
        """Return the spectrum of one frame, aligned and as measured, and the first aligned one of its series.

        Raises
        ------
        KeyError
            The session has no frame with this uid.
        """
        with self.lock:
            number = self._number[uid]
            series = self._rows.column("series")[number]
            wanted = {"aligned": ("spectra", number), "measured": ("measured", number)}
            wanted["first"] = ("spectra", self._number[self._first[series]])
            arrays = self._arrays
            uids = self._rows.column("uid")
            places = {name: (arrays.offset(stream, of), uids[of]) for name, (stream, of) in wanted.items()}
        found = dict(zip(places, arrays.read(list(places.values())), strict=True))
        answer: dict[str, Any] = {"uid": uid, "n": number + 1}
        for name in ("aligned", "first"):
            data = found[name]
            answer[name] = None if data is None else {"energy_ev": arrays.grid, "mu": data["spectrum"]}
        measured = found["measured"]
        answer["measured"] = None if measured is None else as_measured(measured)
        return answer
