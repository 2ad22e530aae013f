"""The data of one series in a picture: frames on a clock, decisions, frames set aside, and judgements."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from ....agent.decide import Compared
from ....agent.publish import ALIGNMENT_UNITS, Answered
from ....agent.types import DescriptorEstimate, Estimate, Frame, Reason, Scan, SetAside
from ..judged import Judgement, decided, series_of
from ..recorder import MAX_DRAWN, OOD_LIMIT, Drawn, DrawnFrame, DrawnNote, leading, named
from .style import short

_HOURS_FROM_S, _MINUTES_FROM_S = 3 * 3600, 300
"""Durations above which the time axis is in hours or in minutes, s."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A comparison by a condition of a rule, at a time of the clock."""

    at: float
    rule: str
    part: int
    compared: Compared


@dataclass(frozen=True)
class Column:
    """The frames of one series and element, in the order of time."""

    name: str
    """Sample, element and edge in words."""
    rows: list[dict[str, Any]]
    spectra: list[np.ndarray | None]
    clock: np.ndarray
    """(n,) times since the first frame of the session."""
    unit: str
    """Unit of the clock."""
    decisions: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    """Time of the clock and row of decisions.csv of each decision."""
    notes: list[tuple[float, DrawnNote]] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)

    @property
    def first(self) -> str:
        """Descriptor that is shown first; the anchored form if there is one."""
        bare = leading(self.rows[-1])
        return f"{bare}_anchored" if self.has(f"{bare}_anchored") else bare

    @property
    def familiar(self) -> np.ndarray:
        """(n,) whether the spectrum is familiar to the model."""
        return np.array([row["ood_score"] <= OOD_LIMIT for row in self.rows])

    def has(self, descriptor: str) -> bool:
        """Return whether some frame has a descriptor; an anchored one begins with its first anchor."""
        return any(f"{descriptor}_mean" in row for row in self.rows)

    def values(self, key: str) -> np.ndarray:
        """Return a column of descriptors.csv, (n,); NaN if a frame lacks it."""
        return np.array([_number(row.get(key)) for row in self.rows])


def columns_of(drawn: Drawn) -> list[Column]:
    """Return the series of a session, the earliest first."""
    # Frames of a replayed folder carry the recorded time.
    key = "recorded_time" if all("recorded_time" in f.row for f in drawn.frames) else "time"
    times = np.array([f.row[key] for f in drawn.frames])
    published = np.array([f.row["time"] for f in drawn.frames])
    order = np.argsort(published)
    start = times.min()
    scale, unit = _unit(float(np.ptp(times)))

    def clock(time: float) -> float:
        """Convert the time of a document to the clock."""
        at = float(np.interp(time, published[order], times[order]))
        beyond = time - published.max() if key == "time" and time > published.max() else 0.0
        return (at + beyond - start) / scale

    judged = _judged(drawn)
    columns: list[Column] = []
    for frames in drawn.by_series():
        rows = [frame.row for frame in frames]
        runs, element = {row["run_uid"] for row in rows}, rows[0]["element"]
        mine = series_of(_frame(frames[0], drawn.units))
        columns.append(
            Column(
                name=_name(frames),
                rows=rows,
                spectra=[frame.spectrum for frame in frames],
                clock=(np.array([row[key] for row in rows]) - start) / scale,
                unit=unit,
                decisions=[
                    (clock(d["time"]), d)
                    for d in drawn.decisions
                    if d["run_uid"] in runs and d.get("element", element) in ("", element)
                ],
                notes=[(clock(note.time), note) for note in drawn.notes if note.run_uid in runs],
                judged=[
                    Judged(clock(j.time), j.rule, j.part, j.compared)
                    for j in judged
                    if j.series == mine and j.compared is not None
                ],
            )
        )
    return columns


def begun(drawn: Drawn) -> str:
    """Return date and time of the first and the last frame in words, in the time zone of this machine."""
    key = "recorded_time" if all("recorded_time" in f.row for f in drawn.frames) else "time"
    times = [f.row[key] for f in drawn.frames] or [note.time for note in drawn.notes]
    first, last = (datetime.fromtimestamp(time).astimezone() for time in (min(times), max(times)))
    end = last.strftime("%H:%M:%S %Z" if first.date() == last.date() else "%Y-%m-%d %H:%M:%S %Z")
    return f"{first.strftime('%Y-%m-%d %H:%M:%S')} – {end}" if last > first else last.strftime("%Y-%m-%d %H:%M:%S %Z")


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else np.nan


def _unit(seconds: float) -> tuple[float, str]:
    """Return a unit in which a duration is readable: its length, s, and its name."""
    if seconds > _HOURS_FROM_S:
        return 3600.0, "h"
    return (60.0, "min") if seconds > _MINUTES_FROM_S else (1.0, "s")


def _name(frames: list[DrawnFrame]) -> str:
    rows = [frame.row for frame in frames]
    about = [{**row, "element": ""} for row in rows]
    edge = " ".join(filter(None, (rows[0]["element"], frames[0].edge)))
    return ", ".join(filter(None, (short(named(*about) or f"run {rows[0]['run_uid'][:8]}"), edge)))


def _judged(drawn: Drawn) -> list[Judgement]:
    """Return the comparisons by the rules; empty if the picture has only a sample of the frames."""
    found: list[Judgement] = []
    if drawn.rules and drawn.count == len(drawn.frames) <= MAX_DRAWN:
        units = {name: unit for name, unit in (drawn.units | drawn.descriptors).items() if unit}
        decided(drawn.rules, _items(drawn), units, found)
    return found


def _items(drawn: Drawn) -> list[Answered | SetAside]:
    """Return frames and notes in the order of publication."""
    items: list[Answered | SetAside] = []
    notes = iter([*drawn.notes, None])
    note = next(notes)
    for number, frame in enumerate(drawn.frames):
        while note is not None and note.after <= number:
            items.append(
                SetAside(note.run_uid, "", note.time, Reason(note.reason), "", note.number or None, "", note.count)
            )
            note = next(notes)
        items.append(_answered(frame, drawn.units))
    return items


def _frame(drawn: DrawnFrame, units: Mapping[str, str]) -> Frame:
    row = drawn.row
    return Frame(
        uid=row["frame_uid"],
        run_uid=row["run_uid"],
        seq_num=row["seq_num"],
        time=row["time"],
        energy=np.empty(0),
        mu=np.empty(0),
        element=row["element"] or None,
        edge=drawn.edge,
        scan=Scan(drawn.series, row["sample"], row["scan_id"], row["file"]),
        readings={name: row[name] for name in units if isinstance(row.get(name), float)},
    )


def _answered(drawn: DrawnFrame, units: Mapping[str, str]) -> Answered:
    """Return a frame with its estimate and the quantities of its alignment, from its row of descriptors.csv."""
    row = drawn.row
    names = [
        key.removesuffix("_mean") for key in row if key.endswith("_mean") and f"{key.removesuffix('mean')}lo" in row
    ]
    estimates = {
        name: DescriptorEstimate(
            row[f"{name}_mean"],
            row[f"{name}_lo"],
            row[f"{name}_hi"],
            row.get(name),
            row.get(f"{name}_p"),
            sd_frame=row.get(f"{name}_sd_frame", 0.0),
        )
        for name in names
    }
    quantities = {key: row[key] for key in ALIGNMENT_UNITS if key in row}
    return _frame(drawn, units), Estimate(estimates, row["ood_score"]), quantities
