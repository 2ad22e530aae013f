"""Collects the rows of a session from the agent's documents."""

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...agent.decide import Rule
from ...agent.publish import events_of
from ...agent.types import Flag, Reason, get_logger, is_final, keys_of

_log = get_logger()

VOLTAGE_FIELDS = ("voltage", "Ewe_V", "potential", "Ewe")
"""Names of the cell voltage among the readings, the preferred ones first."""
TEMPERATURE_FIELDS = ("temperature", "sample_temperature")
"""Names of the sample's temperature among the readings, the preferred ones first."""
OOD_LIMIT = 1.0
"""Out-of-distribution score above which a spectrum is flagged as out of distribution."""
_FIRST_COLUMNS = ("time", "run_uid", "seq_num")
NAME_COLUMNS = ("sample", "scan_id", "file", "element")
"""Columns of every table of a session that identify the measurement."""
_QUALITY_COLUMNS = ("ood_score", "e0_ev", "edge_step", "noise", "latency_ms", "flags")
MOST_TOGETHER = 2000
"""Largest number of answered frames whose spectrum may still arrive."""
MAX_DRAWN = 1000
"""Largest number of frames in the picture."""
LATEST = 24
"""Largest number of frames in the live view."""
LATEST_DECISIONS = 100
"""Largest number of decisions in the picture."""
MAX_NOTES = 1000
"""Largest number of notes on frames set aside in the picture."""
MAX_READINGS = 500
"""Largest number of readings with columns, over all runs; documents.jsonl contains all of them."""
MAX_SAMPLES = 1000
"""Largest number of samples that the summary counts individually."""
OTHERS = "other samples"
HISTORY_COLUMNS = (
    *("proposed_at", "proposed_by", "approved_at", "approved_by", "sent_at", "settled_at", "settled_by"),
)
"""Columns of decisions.csv for when a decision reached a status, Unix s, and which person set it."""
_LATENCY_BINS_MS = np.geomspace(1e-3, 1e13, 3840)
"""Upper limits of the bins of the latency histogram, ms; they differ by 1 %."""
_GAP_REASONS = frozenset({Reason.JOINED_LATE, Reason.LATE, Reason.QUEUE_FULL, Reason.EVENTS_LOST})


def _ignore(row: dict[str, Any]) -> None:
    """Discard a row."""


@dataclass(slots=True)
class DrawnFrame:
    """A frame of the picture."""

    row: dict[str, Any]
    """Row of descriptors.csv of the frame."""
    series: str
    """Key of the frame's series."""
    edge: str | None = None
    spectrum: np.ndarray | None = None
    """(G,) aligned spectrum."""


@dataclass(frozen=True, slots=True)
class DrawnNote:
    """A note of the picture: one or more frames that were set aside or are missing."""

    time: float
    """Time of the note, Unix s."""
    reason: str
    count: int
    number: int
    """Number of the frame in its run; 0 if the note has none."""
    run_uid: str
    after: int
    """Number of frames answered before the note."""
    detail: str = ""


@dataclass(frozen=True)
class Drawn:
    """The data that the picture of a session shows."""

    frames: list[DrawnFrame]
    """All frames or, if there are more than ``MAX_DRAWN``, a random sample and the latest frame."""
    count: int
    """Number of all frames."""
    decisions: list[dict[str, Any]] = field(default_factory=list)
    models: tuple[str, ...] = ()
    grid: np.ndarray | None = None
    """(G,) energies of the spectra."""
    rules: tuple[Rule, ...] = ()
    notes: list[DrawnNote] = field(default_factory=list)
    """The latest notes on frames set aside."""
    set_aside: dict[str, int] = field(default_factory=dict)
    """Number of frames set aside, by reason."""
    descriptors: dict[str, str] = field(default_factory=dict)
    """Units of the shown descriptors, by name."""
    units: dict[str, str] = field(default_factory=dict)
    """Units of the readings, by name."""

    def by_series(self) -> list[list[DrawnFrame]]:
        """Return the frames of each series and element in the order of time, the earliest series first."""
        found: dict[tuple[str, str], list[DrawnFrame]] = {}
        for frame in sorted(self.frames, key=lambda f: f.row["time"]):
            found.setdefault((frame.series, frame.row["element"]), []).append(frame)
        return list(found.values())


class Recorder:
    """A subscriber that keeps the data that the live view, the picture and the summary need.

    Its memory does not grow with the number of frames. One thread sends documents; others may read at the same time.

    Parameters
    ----------
    frame_row : callable
        Receives the row of descriptors.csv of each frame.
    decision_row : callable
        Receives the row of decisions.csv of each decision with a final status.
    """

    def __init__(
        self,
        frame_row: Callable[[dict[str, Any]], None] = _ignore,
        decision_row: Callable[[dict[str, Any]], None] = _ignore,
    ) -> None:
        self.frames = 0
        """Number of answered frames."""
        self.latest: deque[dict[str, Any]] = deque(maxlen=LATEST)
        """Rows of the latest frames."""
        self.frame_at: float | None = None
        """``time.monotonic()`` at the arrival of the newest frame; None before the first one."""
        self.decisions = 0
        """Number of decisions."""
        self.latest_decisions: dict[str, dict[str, Any]] = {}
        """The latest decisions with their latest status, by id."""
        self.statuses: Counter[str] = Counter()
        """Number of decisions that reached each status."""
        self.stopped: dict[str, str] = {}
        """Rule of the first acknowledged stop of each run that was stopped."""
        self.notifications_failed = 0
        """Number of notifications that a destination did not take, or may not have taken."""
        self.notification_failure = ""
        """Destination and cause of the latest failed notification."""
        self.set_aside: Counter[str] = Counter()
        """Number of frames set aside, by reason."""
        self.gaps: Counter[str] = Counter()
        """Number of losses other than frames, by reason: runs joined late, late or lost documents."""
        self.flags: Counter[str] = Counter()
        """Number of frames with each flag."""
        self.samples: Counter[str] = Counter()
        """Number of frames of each named sample."""
        self.numbered = 0
        """Number of frames that were answered or set aside."""
        self.models: dict[str, str] = {}
        """SHA-256 of the models in use, by name."""
        self._estimates: list[str] = []
        """Keys of the descriptors, in the order of the table's columns."""
        self.rules: tuple[Rule, ...] = ()
        """Rules of the session, for the picture."""
        self._notes: deque[DrawnNote] = deque(maxlen=MAX_NOTES)
        self._descriptors: dict[str, str] = {}
        self._readings: list[str] = []
        self.reading_units: dict[str, str] = {}
        """Units of the readings, by name."""
        self._frame_row, self._decision_row = frame_row, decision_row
        self._grid: np.ndarray | None = None
        self._drawn: list[DrawnFrame] = []
        self._random = random.Random(0)
        self._latest_drawn: DrawnFrame | None = None
        self._without_spectrum: dict[str, DrawnFrame] = {}
        """Frames whose spectrum has not arrived, by uid; the spectra of a page follow all its descriptors."""
        self._latencies = np.zeros(len(_LATENCY_BINS_MS), np.int64)
        self.latency_sum_ms = 0.0
        """Sum of the latencies of all frames, ms."""
        self.strays = 0
        """Number of Events without start and Descriptor, as in a file that lost its beginning."""
        self._runs: dict[str, tuple[str, str, str | None]] = {}
        """Uid, series and edge of the watched run, by the uid of the agent's open run."""
        self._streams: dict[str, tuple[str, str]] = {}
        """Name and run of the streams of the agent's open runs."""
        self.lock = threading.RLock()
        """Held while a document is processed; hold it to read values that belong together."""

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        with self.lock:
            if name == "start":
                parent = doc["parent_uid"]
                self._runs[doc["uid"]] = parent, doc.get("series", parent), doc.get("edge")
                if doc["model"]["sha256"]:
                    self.models[doc["model"]["name"]] = doc["model"]["sha256"]
            elif name == "descriptor":
                self._describe(doc)
            elif name == "event" and doc["descriptor"] not in self._streams:
                self.strays += 1
            elif name == "event":
                stream, run = self._streams[doc["descriptor"]]
                getattr(self, f"_on_{stream}")(doc, *self._runs[run])
            elif name == "event_page":
                for event in events_of(doc):
                    self("event", event)
            elif name == "stop":
                self._runs.pop(doc["run_start"], None)
                self._streams = {uid: s for uid, s in self._streams.items() if s[1] != doc["run_start"]}

    @property
    def descriptors(self) -> tuple[str, ...]:
        """Descriptors to show: all except those that have no meaning for a mixture of sites."""
        return tuple(self._descriptors)

    def _describe(self, doc: Mapping[str, Any]) -> None:
        if doc["run_start"] not in self._runs:
            return
        self._streams[doc["uid"]] = doc["name"], doc["run_start"]
        if doc["name"] == "spectra":
            self._grid = np.asarray(doc["configuration"]["xas_agent"]["data"]["energy_relative_ev"])
        if doc["name"] == "descriptors":
            names = [key.removesuffix("_mean") for key in doc["hints"]["xas_agent"]["fields"]]
            keys = (key for name in names for key in keys_of(name) if key in doc["data_keys"])
            self._estimates += [key for key in keys if key not in self._estimates]
            described = {name: doc["data_keys"].get(f"{name}_mean") or {} for name in names}
            self._descriptors |= {name: str(key.get("units") or "") for name, key in described.items()}
            new = [r for r in doc["object_keys"]["readings"] if r not in self._readings]
            self._readings += new[: MAX_READINGS - len(self._readings)]
            units = {r: str(doc["data_keys"][r].get("units") or "") for r in self._readings if r in doc["data_keys"]}
            self.reading_units |= units

    def _on_descriptors(self, doc: Mapping[str, Any], run_uid: str, series: str, edge: str | None) -> None:
        data = doc["data"]
        readings = {f"reading_{key}": data[key] for key in _FIRST_COLUMNS if key in data}
        row = {**data, **readings, "time": data["frame_time"], "run_uid": run_uid, "seq_num": data["frame_seq_num"]}
        self.frames += 1
        self.numbered += 1
        self.latest.append(row)
        self.frame_at = time.monotonic()
        self.flags.update(str(flag) for flag in Flag.of(row["flags"]))
        if sample := row["sample"]:
            self.samples[sample if sample in self.samples or len(self.samples) < MAX_SAMPLES else OTHERS] += 1
        self._latencies[min(np.searchsorted(_LATENCY_BINS_MS, row["latency_ms"]), len(self._latencies) - 1)] += 1
        self.latency_sum_ms += row["latency_ms"]
        self._draw(DrawnFrame(row, series, edge))
        self._frame_row(row)

    def _draw(self, frame: DrawnFrame) -> None:
        """Keep a frame for the picture, each with equal probability (reservoir sampling)."""
        self._latest_drawn = frame
        self._without_spectrum[frame.row["frame_uid"]] = frame
        if len(self._without_spectrum) > MOST_TOGETHER:
            del self._without_spectrum[next(iter(self._without_spectrum))]
        if len(self._drawn) < MAX_DRAWN:
            self._drawn.append(frame)
        elif (place := self._random.randrange(self.frames)) < MAX_DRAWN:
            self._drawn[place] = frame

    def _on_spectra(self, doc: Mapping[str, Any], *_: object) -> None:
        if (frame := self._without_spectrum.pop(doc["data"]["frame_uid"], None)) is not None:
            frame.spectrum = np.asarray(doc["data"]["spectrum"], np.float32)

    def _on_measured(self, *_: object) -> None:
        """Skip a spectrum as measured; documents.jsonl contains it."""

    def _on_decisions(self, doc: Mapping[str, Any], run_uid: str, *_: object) -> None:
        row = {"time": doc["time"], "run_uid": run_uid, **doc["data"]}
        before = self.latest_decisions.get(row["id"], {})
        if before and _settled(before):
            return  # its row was already written
        row |= _history(row, before)
        self.decisions += not before
        self.latest_decisions[row["id"]] = row
        self.statuses[row["status"]] += row["status"] != before.get("status")  # a restart sends it again
        if row["action"] == "stop" and row["status"] == "acknowledged":
            self.stopped.setdefault(run_uid, row["rule"])
        if row["action"] == "notify" and row["status"] in ("rejected", "expired"):
            self.notifications_failed += 1
            self.notification_failure = row["status_reason"]
        if _settled(row):
            self._decision_row(row)
            settled = (uid for uid, decision in self.latest_decisions.items() if _settled(decision))
            if len(self.latest_decisions) > LATEST_DECISIONS:
                del self.latest_decisions[next(settled)]

    def _on_quality(self, doc: Mapping[str, Any], run_uid: str, *_: object) -> None:
        reason, number, count = (doc["data"][key] for key in ("reason", "frame_seq_num", "count"))
        (self.gaps if reason in _GAP_REASONS else self.set_aside)[reason] += count
        detail = doc["data"].get("detail", "")
        self._notes.append(DrawnNote(doc.get("time", 0.0), reason, count, number, run_uid, self.frames, detail))
        self.numbered += count if number else 0

    @property
    def running(self) -> bool:
        """Whether a run of the agent is open, so that frames can be expected."""
        return bool(self._runs)

    @property
    def stopped_by(self) -> str | None:
        """Rules, or the operator, that stopped runs, in the order of their first stop; None if none did."""
        return ", ".join(dict.fromkeys(self.stopped.values())) or None

    def unsettled(self) -> list[dict[str, Any]]:
        """Return the rows of the decisions without a final status."""
        with self.lock:
            return [row for row in self.latest_decisions.values() if not _settled(row)]

    def report_strays(self, file: Path) -> None:
        """Log that the documents in a file lack starts or Descriptors."""
        if self.strays:
            detail = "found no start or descriptor of theirs: somebody has cut the file"
            _log.warning("events passed over", file=str(file), number=self.strays, detail=detail)

    def columns(self) -> list[str]:
        """Return the header of descriptors.csv."""
        with self.lock:
            estimates = list(self._estimates)
            readings = [f"reading_{r}" if r in _FIRST_COLUMNS else r for r in self._readings]
        return [*_FIRST_COLUMNS, *NAME_COLUMNS, *estimates, *_QUALITY_COLUMNS, *readings]

    def drawn(self) -> Drawn:
        """Return the present data of the picture."""
        with self.lock:
            frames = list(self._drawn)
            if self._latest_drawn is not None and all(frame is not self._latest_drawn for frame in frames):
                frames.append(self._latest_drawn)
            decisions = list(self.latest_decisions.values())
            return Drawn(
                frames,
                self.frames,
                decisions,
                tuple(self.models),
                self._grid,
                rules=self.rules,
                notes=list(self._notes),
                set_aside=dict(self.set_aside),
                descriptors=dict(self._descriptors),
                units=dict(self.reading_units),
            )

    def latency_ms(self) -> dict[str, float]:
        """Return the 50th and 99th percentiles of the frames' latencies, ms, to 1 %."""
        if not self.frames:
            return {}
        ranks = np.searchsorted(np.cumsum(self._latencies), [0.5 * self.frames, 0.99 * self.frames])
        p50, p99 = (float(_LATENCY_BINS_MS[rank]) for rank in ranks)
        return {"p50": round(p50, 3), "p99": round(p99, 3)}

    def faster_than(self, limit_ms: float) -> int:
        """Return the number of frames whose latency is at most a limit; the limit is accurate to 1 %."""
        classes = np.searchsorted(_LATENCY_BINS_MS, limit_ms, side="right")
        return int(self._latencies[:classes].sum())


def _settled(decision: Mapping[str, Any]) -> bool:
    """Return whether a decision has its final status."""
    return is_final(decision["status"], decision["status_reason"])


def _history(row: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known ``HISTORY_COLUMNS`` of a decision; the first time of each status counts."""
    step = row["status"] if row["status"] in ("proposed", "approved", "sent") else "settled"
    new = {f"{step}_at": row.get("status_time"), f"{step}_by": row.get("by")}
    return {key: value for key, value in (new | dict(before)).items() if key in HISTORY_COLUMNS}


def leading(row: Mapping[str, Any]) -> str:
    """Return the descriptor of a frame that is shown first: the oxidation state, or the model's first one."""
    estimated = [key.removesuffix("_mean") for key in row if key.endswith("_mean")]
    return "OS" if "OS" in estimated or not estimated else estimated[0]


def named(*rows: Mapping[str, Any]) -> str:
    """Return the known ones of sample, scan id, file and element of rows, in words.

    >>> named({"sample": "NiO", "scan_id": 7, "file": "", "element": "Ni"})
    'NiO, scan 7, Ni'
    """
    samples, scans, files, elements = (
        list(dict.fromkeys(row[name] for row in rows if row[name])) for name in NAME_COLUMNS
    )
    words = [samples[0] if len(samples) == 1 else f"{len(samples)} samples"] if samples else []
    words += [f"scan {scans[0]}" if len(scans) == 1 else f"scans {min(scans)}–{max(scans)}"] if scans else []
    words += [files[0] if len(files) == 1 else f"{len(files)} files"] if files else []
    return ", ".join([*words, *elements])
