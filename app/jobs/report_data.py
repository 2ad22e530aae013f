"""Collects the data of a report from a session's documents, as sums and short tables of limited size."""

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...adapters.files import FileSource
from ...agent.publish import events_of
from ...agent.types import InputError
from ..output.audit import AUDIT
from ..output.folder import TRUTH
from ..output.names import DOCUMENTS, SESSION, SUMMARY
from ..output.recorder import OOD_LIMIT, Recorder
from ..output.truth import Truth
from .rebuild import rules_of, truth_of

FRAMES = 40
"""Smallest number of table rows for a series with at least this many frames."""
DECISIONS = 500
"""Largest number of decisions in the table."""
ORDERS = 200
"""Largest number of persons' commands in the table."""
_DETAILS = 3
"""Number of examples of each reason for setting frames aside."""
QUANTITIES = {
    "e0_ev": ("E0", "eV"),
    "energy_shift_ev": ("energy shift to FEFF's scale", "eV"),
    "foil_shift_ev": ("of which the foil", "eV"),
    "edge_step": ("edge step", ""),
    "noise": ("noise per point", "edge steps"),
    "ood_score": ("score", ""),
    "latency_ms": ("latency", "ms"),
}
"""Quantities of a frame's alignment and estimate, with their names and units."""


_ESTIMATED = ("_mean", "_sd_frame")
"""Suffixes of quantities that a model estimates."""


@dataclass
class Course:
    """A quantity over the frames of a series."""

    count: int = 0
    first: float = math.nan
    last: float = math.nan
    lowest: float = math.inf
    highest: float = -math.inf
    sum: float = 0.0

    def add(self, value: Any) -> None:
        """Add the value of the next frame, if it is a finite number."""
        if not isinstance(value, int | float) or not math.isfinite(value):
            return
        if not self.count:
            self.first = value
        self.count, self.last, self.sum = self.count + 1, value, self.sum + value
        self.lowest, self.highest = min(self.lowest, value), max(self.highest, value)

    @property
    def mean(self) -> float:
        """Mean over the frames; NaN without frames."""
        return self.sum / self.count if self.count else math.nan


@dataclass
class Measured:
    """The frames of one series and element."""

    series: str
    sample: str
    element: str
    edge: str
    frames: int = 0
    first_s: float = math.nan
    last_s: float = math.nan
    scans: set[int] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    flags: Counter[str] = field(default_factory=Counter)
    courses: dict[str, Course] = field(default_factory=dict)
    """Course of each column of descriptors.csv."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Rows of descriptors.csv, spread evenly over the series."""
    last_row: dict[str, Any] = field(default_factory=dict)
    last_known: dict[str, Any] = field(default_factory=dict)
    """Row of the last frame with a familiar spectrum; empty without one."""
    _every: int = 1

    def add(self, row: Mapping[str, Any]) -> None:
        """Add the next frame."""
        if self.frames % self._every == 0:
            self.rows.append(dict(row))
            if len(self.rows) > 2 * FRAMES:
                self.rows, self._every = self.rows[::2], 2 * self._every
        self.frames += 1
        time = row["time"]
        self.first_s = min(time, self.first_s) if self.frames > 1 else time
        self.last_s = max(time, self.last_s) if self.frames > 1 else time
        self.scans |= {row["scan_id"]} if row["scan_id"] else set()
        self.files |= {row["file"]} if row["file"] and len(self.files) < 1000 else set()
        self.flags.update(filter(None, row["flags"].split(", ")))
        score = row.get("ood_score")
        known = not (isinstance(score, int | float) and score > OOD_LIMIT)
        for key, value in row.items():
            if isinstance(value, int | float) and key not in ("scan_id", "seq_num"):
                course = self.courses.setdefault(key, Course())
                if known or not key.endswith(_ESTIMATED):  # rules and pictures leave these frames out, too
                    course.add(value)
        self.last_row = dict(row)
        self.last_known = self.last_row if known else self.last_known

    @property
    def table(self) -> list[dict[str, Any]]:
        """The rows of the table, including the last row."""
        shown = self.rows if not self.rows or self.rows[-1] == self.last_row else [*self.rows, self.last_row]
        return shown


@dataclass
class SetAsideSum:
    """The notes with one reason."""

    count: int = 0
    details: list[str] = field(default_factory=list)


class SessionData:
    """The documents of a session's folder, which may still grow.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    InputError
        The folder has no documents of an agent.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / DOCUMENTS).is_file():
            raise InputError(f"{folder}: found no {DOCUMENTS}; name the --out of a session of run or replay")
        self.folder = folder
        self.measured: dict[tuple[str, str], Measured] = {}
        self.decisions: list[dict[str, Any]] = []
        self.more_decisions = 0
        self.notes: dict[str, SetAsideSum] = {}
        self.starts: list[dict[str, Any]] = []
        """RunStarts of the agent, one for each combination of config, model and versions."""
        self.runs: dict[str, str] = {}
        """Exit status of each watched run; empty while unknown."""
        self._streams: dict[str, dict[str, Any]] = {}
        self._open: dict[str, dict[str, Any]] = {}
        self._now: dict[str, Any] = {}
        self.recorder = Recorder(self._frame, self._decision)
        try:
            for name, doc in FileSource(folder / DOCUMENTS):
                self._take(name, doc)
            self.recorder.report_strays(folder / DOCUMENTS)
        except (LookupError, TypeError, AttributeError) as error:
            raise InputError(
                f"{folder / DOCUMENTS}: found a document that no agent writes ({type(error).__name__}: {error}); "
                "name the --out of a session of run or replay"
            ) from None
        for row in self.recorder.unsettled():
            self._decision(row)
        self.recorder.rules = rules_of(folder)
        self.truth: Truth | None = truth_of(folder)
        self.simulated = (folder / TRUTH).is_file()
        self.summary = _json(folder / SUMMARY)
        earlier = sorted(folder.glob(f"{Path(SESSION).stem}-*.json"))
        self.about = [about for path in (*earlier, folder / SESSION) if (about := _json(path))]
        """Records that the session's processes wrote about themselves, one per config, the latest last."""
        self.orders = _orders(folder / AUDIT)

    @property
    def unfinished(self) -> int:
        """Number of the agent's runs without an end."""
        return len(self._open)

    def _take(self, name: str, doc: Mapping[str, Any]) -> None:
        if name == "event_page":  # in a recording by another program
            for event in events_of(doc):
                self._take("event", event)
            return
        if name == "start":
            start = dict(doc)
            self._open[doc["uid"]] = start
            if doc["parent_uid"]:  # empty for decisions and notes without a run
                self.runs.setdefault(doc["parent_uid"], "")
            same = ("config_sha256", "model", "versions")
            if all(any(start.get(key) != other.get(key) for key in same) for other in self.starts):
                self.starts.append(start)
        elif name == "descriptor":
            self._streams[doc["uid"]] = self._open.get(doc["run_start"], {})
        elif name == "stop":
            start = self._open.pop(doc["run_start"], {})
            if start.get("parent_uid"):
                self.runs[start["parent_uid"]] = doc["exit_status"]
        elif name == "event":
            self._now = self._streams.get(doc["descriptor"], {})
            if "reason" in doc["data"] and "frame_seq_num" in doc["data"]:
                self._note(doc["data"])
        self.recorder(name, doc)

    def _note(self, data: Mapping[str, Any]) -> None:
        one = self.notes.setdefault(data["reason"], SetAsideSum())
        one.count += data["count"]
        detail = data["detail"]
        if detail and detail not in one.details and len(one.details) < _DETAILS:
            one.details.append(detail)

    def _frame(self, row: dict[str, Any]) -> None:
        series = self._now.get("series", row["run_uid"])
        key = series, row["element"]
        if key not in self.measured:
            self.measured[key] = Measured(series, row["sample"], row["element"], self._now.get("edge") or "")
        self.measured[key].add(row)

    def _decision(self, row: dict[str, Any]) -> None:
        if len(self.decisions) < DECISIONS:
            self.decisions.append(row)
        else:
            self.more_decisions += 1


def _json(path: Path) -> dict[str, Any]:
    """Return the contents of a JSON file; None if it cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _orders(path: Path) -> list[dict[str, Any]]:
    """Return the latest commands of persons in an audit."""
    found: list[dict[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "command" in entry:
            found.append(entry)
    return found[-ORDERS:]
