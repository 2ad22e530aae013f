"""Text lines on the newest frames, their descriptors, and the latest decisions."""

import math
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.text import Text

from ...agent.types import Z90
from .pen import Column, Field, Pen
from .recorder import NAME_COLUMNS, OOD_LIMIT, TEMPERATURE_FIELDS, VOLTAGE_FIELDS, Recorder, leading, named

_MOST_DIGITS = 3
"""Largest number of decimals of a value."""
_STATUS_STYLES = {"acknowledged": "green", "rejected": "red", "expired": "red"}


def digits_of(row: Mapping[str, Any], name: str) -> int:
    """Return the number of decimals that a frame's scatter justifies: two digits of it, at least two decimals."""
    scatter = row.get(f"{name.removesuffix('_anchored')}_sd_frame", math.nan)
    if not (isinstance(scatter, int | float) and math.isfinite(scatter) and scatter > 0):
        return 2
    return min(max(1 - math.floor(math.log10(scatter)), 2), _MOST_DIGITS)


def scatter(row: Mapping[str, Any], name: str) -> str:
    """Return half the width that holds 90 % of a frame's repeats, as in the picture and the dashboard."""
    sd = row.get(f"{name}_sd_frame")
    return number(Z90 * sd if isinstance(sd, int | float) else sd, digits_of(row, name))


def number(value: Any, digits: int) -> str:
    """Return a number with these decimals; empty if there is none, with an exponent if it is very large."""
    if not isinstance(value, int | float):
        return ""
    if 0 < value < 0.5 * 10.0**-digits:  # instead of 0.000
        return f"<{10.0**-digits:g}"
    return f"{value:.{digits}f}" if not math.isfinite(value) or abs(value) < 1e6 else f"{value:.3g}"


def _interval(row: Mapping[str, Any], name: str, digits: int = 2) -> str:
    lo, hi = row.get(f"{name}_lo"), row.get(f"{name}_hi")
    return "" if lo is None or hi is None else f"{number(lo, digits)}…{number(hi, digits)}"


def newest_lines(
    pen: Pen, row: Mapping[str, Any], units: Mapping[str, str], recorder: Recorder, height: int
) -> list[Text]:
    """Return the newest frame's leading descriptor with both of its errors, and the quality of the frame."""
    first = leading(row)
    digits = digits_of(row, first)
    unit = f" {units[first]}" if units.get(first) else ""
    fields: list[Field] = []
    if f"{first}_mean" in row:
        fields.append(Field(f"{first} {number(row[f'{first}_mean'], digits)}{unit}", 9, "bold"))
    if f"{first}_sd_frame" in row:
        fields.append(Field(f"± {scatter(row, first)}{unit} frame to frame", 7))
    if interval := _interval(row, first):
        fields.append(Field(f"90 %: {interval}{unit}", 6))
    anchored = f"{first}_anchored"
    if f"{anchored}_mean" in row:
        within = _interval(row, anchored)
        said = f"anchored {number(row[f'{anchored}_mean'], digits)}{unit}{within and f' ({within})'}"
        fields.append(Field(said, 8, "bold"))
    score, unlike = row["ood_score"], not row["ood_score"] <= OOD_LIMIT
    said = f"! score {score:.2f}, limit {OOD_LIMIT:g}: UNLIKE WHAT THE MODEL KNOWS" if unlike else ""
    fields.append(Field(said or f"score {score:.2f} (limit {OOD_LIMIT:g})", 8, "bold red" if unlike else ""))
    fields.append(Field(f"{row['latency_ms']:.1f} ms{_usual(recorder)}", 3))
    if reading := _reading(row):
        unit = recorder.reading_units.get(reading) or "V" * (reading in VOLTAGE_FIELDS)
        fields.append(Field(f"{reading} {number(row[reading], 3)}{unit and f' {unit}'}", 4))
    if row["flags"]:
        fields.append(Field(f"! {row['flags']}", 5, "yellow"))
    return pen.flow(fields, height)


def _reading(row: Mapping[str, Any]) -> str:
    """Return the shown reading: the voltage, or the temperature; empty if a frame has neither."""
    return next((name for name in (*VOLTAGE_FIELDS, *TEMPERATURE_FIELDS) if name in row), "")


def _usual(recorder: Recorder) -> str:
    latency = recorder.latency_ms()
    return f" (99 %: {latency['p99']:.3g} ms)" if "p99" in latency else ""


def frame_lines(pen: Pen, rows: Sequence[Mapping[str, Any]], height: int) -> list[Text]:
    """Return lines on the latest frames, the newest first."""
    shown = list(rows)[::-1][: max(height - 1, 0)]
    if not shown:
        return []
    first = leading(rows[-1])
    digits = max(digits_of(row, first) for row in shown)
    reading = _reading(rows[-1])
    differ = [name for name in NAME_COLUMNS if len({row[name] for row in shown}) > 1]
    names = [named({name: row[name] if name in differ else "" for name in NAME_COLUMNS}) for row in shown]
    scores = [f"{row['ood_score']:.2f}{'!' * (not row['ood_score'] <= OOD_LIMIT)}" for row in shown]
    columns = [
        Column("FRAME", [str(row["seq_num"]) for row in shown], 9),
        Column(first, [number(row.get(f"{first}_mean"), digits) for row in shown], 10, styles=["bold"] * len(shown)),
        Column("±", [scatter(row, first) for row in shown], 6),
        Column("90 %", [_interval(row, first) for row in shown], 5),
        Column("ANCHORED", [number(row.get(f"{first}_anchored_mean"), digits) for row in shown], 8),
        Column("SCORE", scores, 7, styles=["red" if s.endswith("!") else "" for s in scores]),
        Column("TIME", [clock(row["time"]) for row in shown], 4),
        Column(reading, [number(row.get(reading), 3) for row in shown], 3),
        Column("MS", [f"{row['latency_ms']:.1f}" for row in shown], 2),
        Column("MEASURED", names, 8, right=False, most=16),
    ]
    return pen.table([c for c in columns if any(c.cells)], height)


def descriptor_lines(
    pen: Pen, row: Mapping[str, Any], units: Mapping[str, str], shown: Collection[str]
) -> list[Text]:
    """Return the shown descriptors of a frame, with the scatter of repeats and the interval."""
    names = [name for name in shown if f"{name}_mean" in row and f"{name}_lo" in row]
    columns = [
        Column("DESCRIPTOR", names, 9, right=False, most=16),
        Column("MEAN", [number(row[f"{n}_mean"], digits_of(row, n)) for n in names], 10),
        Column("±", [scatter(row, n) for n in names], 6),
        Column("90 %", [_interval(row, n) for n in names], 8),
        Column("UNIT", [units.get(n, "") for n in names], 5, right=False),
    ]
    return pen.table([c for c in columns if any(c.cells)], 1 + len(names))


def decision_lines(pen: Pen, decisions: Sequence[Mapping[str, Any]], height: int) -> list[Text]:
    """Return lines on the latest decisions with their outcomes, the newest first."""
    newest = sorted(decisions, key=lambda d: d["time"])[::-1][: height - 1]
    samples = [d.get("sample", "") for d in newest]
    columns = [
        Column("DECIDED", [clock(d["time"]) for d in newest], 6),
        Column("ACTION", [d["action"] for d in newest], 9, right=False),
        Column("STATUS", [d["status"] for d in newest], 10, False, None, [_status_style(d) for d in newest]),
        Column("SAMPLE", samples if len(set(samples)) > 1 else [""] * len(samples), 7, right=False, most=10),
        Column("WHY", [_why(d) for d in newest], 8, right=False, most=20),
    ]
    return pen.table([c for c in columns if any(c.cells)], height)


def _status_style(decision: Mapping[str, Any]) -> str:
    return _STATUS_STYLES.get(decision["status"], "yellow")


def _why(decision: Mapping[str, Any]) -> str:
    """Return the reasons of a decision and of its status; the reason of a failure comes first."""
    about = f"{decision['rule']}: {decision['reason']}"
    status = decision.get("status_reason", "")
    if not status:
        return about
    failed = decision["status"] in ("rejected", "expired")
    return f"{status} | {about}" if failed else f"{about} | {status}"


def clock(at: float) -> str:
    """Return a time of day; empty if it is unknown."""
    try:
        return time.strftime("%H:%M:%S", time.localtime(at))
    except (ValueError, OverflowError, OSError):
        return ""
