"""The results of an agent, kept in memory for a program or notebook that reads them as tables."""

import json
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...agent.publish import events_of
from ...agent.types import Array, InputError, get_logger
from .recorder import MOST_TOGETHER, NAME_COLUMNS, Recorder

_log = get_logger()

_END_OF_PAUSE = ("resume", "stop", "abort")
"""Actions after which an experiment is not paused."""
_EXPECTED = "expected the --out of a session of run or replay"
_OF_NOTES = ("uid", "reason", "detail", "count")


@dataclass(slots=True)
class KeptFrame:
    """A frame that was answered or set aside."""

    keys: tuple[str, ...]
    """Names of ``values``; frames with equal names share one object."""
    values: tuple[Any, ...]
    grid: Array | None = None
    """(G,) energies of the spectrum, eV relative to the tabulated edge."""
    spectrum: NDArray[np.float32] | None = None
    """(G,) aligned spectrum."""

    @property
    def row(self) -> dict[str, Any]:
        """Row of descriptors.csv, with ``series``, ``frame_uid``, ``reason`` and ``detail``."""
        return dict(zip(self.keys, self.values, strict=True))


class History:
    """A subscriber that keeps the frames, decisions and notes of the agent's documents; it never raises.

    One thread sends documents; others may read at the same time, and hold :attr:`lock` to read data that belong
    together. A frame takes some 4 kB.

    Parameters
    ----------
    most : int or None
        Number of latest frames, decisions and notes to keep; None: all.
    """

    def __init__(self, most: int | None = None) -> None:
        self.recorder = Recorder(self._answered)
        self.lock = threading.RLock()
        self.frames: deque[KeptFrame] = deque(maxlen=most)
        """Frames that were answered or set aside, in this order."""
        self.numbered = 0
        """Number of all frames, including those no longer kept."""
        self.decisions: dict[str, dict[str, Any]] = {}
        """Rows of decisions.csv by id, with the latest status of each."""
        self.notes: deque[dict[str, Any]] = deque(maxlen=most)
        """Notes on data set aside or lost."""
        self.units: dict[str, str] = {}
        """Units of the columns."""
        self.versions: dict[str, str] = {}
        """Versions that the estimates depend on, by package."""
        self.paused = ""
        """Why the experiment is paused, in words; empty if it is not."""
        self.documents = 0
        """Number of documents received."""
        self._most = most
        self._without_spectrum: dict[str, KeptFrame] = {}
        """Frames whose spectrum has not arrived, by uid; the spectra of a page follow all its descriptors."""
        self._runs: dict[str, Mapping[str, Any]] = {}
        """RunStarts of the agent's open runs."""
        self._streams: dict[str, Mapping[str, Any]] = {}
        """Descriptors of the streams of these runs."""
        self._keys: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._paused_run = ""

    @property
    def running(self) -> bool:
        """Whether a run of the agent is open."""
        return bool(self._runs)

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        try:
            with self.lock:
                for event in events_of(doc) if name == "event_page" else ():
                    self._take("event", event)
                if name != "event_page":
                    self._take(name, doc)
        except Exception:  # an error of the reader must not cost a frame
            _log.exception("document not kept", name=name)

    def _take(self, name: str, doc: Mapping[str, Any]) -> None:
        self.documents += 1
        if name == "start":
            self._runs[doc["uid"]] = doc
            self.versions |= doc.get("versions", {})
        elif name == "descriptor" and doc["run_start"] in self._runs:
            self._streams[doc["uid"]] = doc
            self.units |= {key: str(unit) for key, k in doc.get("data_keys", {}).items() if (unit := k.get("units"))}
        self.recorder(name, doc)
        if name == "event" and (stream := self._streams.get(doc["descriptor"])) is not None:
            run = self._runs[stream["run_start"]]
            kind = stream["name"]
            if kind == "spectra":
                self._spectrum(doc["data"], stream)
            elif kind == "quality":
                self._note(doc, run)
            elif kind == "decisions":
                self._decision(doc["data"], run["parent_uid"])
        elif name == "stop" and (run := self._runs.pop(doc["run_start"], None)) is not None:
            self._streams = {k: s for k, s in self._streams.items() if s["run_start"] != doc["run_start"]}
            if run["parent_uid"] == self._paused_run:
                self.paused = self._paused_run = ""

    def _answered(self, row: Mapping[str, Any]) -> None:
        self._keep({**row, "reason": "", "detail": ""}, self._series_of(row["run_uid"]))

    def _series_of(self, run_uid: str) -> str:
        starts = (run for run in self._runs.values() if run["parent_uid"] == run_uid)
        return next((str(run.get("series", run_uid)) for run in starts), run_uid)

    def _keep(self, row: Mapping[str, Any], series: str) -> None:
        keys = (*row, "series")
        keys = self._keys.setdefault(keys, keys)
        kept = KeptFrame(keys, (*row.values(), series))
        self.frames.append(kept)
        self.numbered += 1
        if not row["reason"]:
            self._without_spectrum[row["frame_uid"]] = kept
            if len(self._without_spectrum) > MOST_TOGETHER:
                del self._without_spectrum[next(iter(self._without_spectrum))]

    def _spectrum(self, data: Mapping[str, Any], stream: Mapping[str, Any]) -> None:
        if (kept := self._without_spectrum.pop(data["frame_uid"], None)) is not None:
            configuration = stream["configuration"].get("xas_agent", {"data": {}})["data"]
            kept.grid = np.asarray(configuration.get("energy_relative_ev", ()))
            kept.spectrum = np.asarray(data["spectrum"], np.float32)

    def _note(self, doc: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        data = doc["data"]
        names = {"time": doc["time"], "run_uid": run["parent_uid"], "seq_num": data["frame_seq_num"]}
        names |= {name: data[name] for name in NAME_COLUMNS}
        self.notes.append(names | {name: data[name] for name in _OF_NOTES})
        if data["frame_seq_num"]:
            told = {"frame_uid": data["uid"], "reason": data["reason"], "detail": data["detail"]}
            self._keep(names | told, str(run.get("series", run["parent_uid"])))

    def _decision(self, data: Mapping[str, Any], run_uid: str) -> None:
        if (row := self.recorder.latest_decisions.get(data["id"])) is not None:
            self.decisions[data["id"]] = row
        if self._most is not None and len(self.decisions) > self._most:
            del self.decisions[next(iter(self.decisions))]
        if data["status"] == "acknowledged" and data["action"] == "pause":
            self.paused, self._paused_run = f"by {data['rule']}: {data['reason']}", run_uid
        elif data["status"] == "acknowledged" and data["action"] in _END_OF_PAUSE and run_uid == self._paused_run:
            self.paused = self._paused_run = ""


class Tail:
    """Sends each document in a file to a history once, even while another process adds documents. Thread-safe.

    Parameters
    ----------
    path : Path
        A .jsonl file with documents of an agent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._lock = threading.Lock()

    def __call__(self, history: History) -> None:
        """Send the new complete documents.

        Raises
        ------
        InputError
            The file cannot be read, or holds no documents of an agent.
        """
        try:
            with self._lock, self.path.open("rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        return  # another process is still writing it
                    self._send(line, history)
                    self._offset += len(line)
        except OSError as error:
            raise InputError(f"{self.path}: {error.strerror}; {_EXPECTED}") from None

    def _send(self, line: bytes, history: History) -> None:
        try:
            name, doc = json.loads(line)
            ours = self._offset > 0 or doc.get("xas_agent") is True
        except (ValueError, TypeError, AttributeError):
            name, doc, ours = "", {}, self._offset > 0
        if not ours:
            raise InputError(f"{self.path}: found documents that no agent wrote; {_EXPECTED}")
        if name:
            history(name, doc)
        else:
            _log.warning("record skipped", file=str(self.path), byte=self._offset)
