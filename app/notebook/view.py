"""The data that the live widget shows, as JSON."""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from ...agent.types import Z90
from ..output.data_frames import ENERGY, Results
from ..output.history import History, KeptFrame
from ..output.recorder import leading, named

_POINTS = 500
"""Largest number of frames of a series that are shown."""
_SERIES = 4
"""Number of latest series that are shown."""
_FACTORS, _DIFFERENCE = (20, 10, 5, 2), 0.8
"""Factors for drawing the difference of spectra; the first one that keeps it below this height is used."""
_HOURS_FROM_S, _MINUTES_FROM_S = 3 * 3600, 300


def view_of(results: Results, quantity: str | None = None) -> dict[str, Any]:
    """Return the series, the latest spectrum with the first of its series, the state and the last decision.

    Parameters
    ----------
    results : Results
    quantity : str, optional
        Descriptor or column; by default the oxidation state, or the first descriptor.
    """
    history = results.history
    with history.lock:
        frames = list(history.frames)
        answered = [frame for frame in _thinned(frames) if "ood_score" in frame.keys]
        rows = [frame.row for frame in answered]
        name = quantity or (leading(rows[-1]) if rows else "OS")
        column = f"{name}_mean" if any(f"{name}_mean" in row for row in rows) else name
        unit = history.units.get(column, "")
        series, x_title = _series(rows, name, column)
        return {
            "title": f"{name} ({unit})" if unit not in ("", "dimensionless") else name,
            "x_title": x_title,
            "series": series,
            "spectrum_title": "latest spectrum, aligned",
            "energy_title": f"{ENERGY} (eV)",
            "spectra": _spectra(frames),
            "state": _state(history, rows, name),
            "paused": history.paused,
            "decision": _decision(history),
        }


def _thinned(frames: Sequence[KeptFrame]) -> list[KeptFrame]:
    """Return at most ``_POINTS`` frames, evenly chosen, including the latest."""
    if len(frames) <= _POINTS:
        return list(frames)
    return [frames[i] for i in np.linspace(0, len(frames) - 1, _POINTS).astype(int)]


def _series(rows: Sequence[Mapping[str, Any]], name: str, column: str) -> tuple[list[dict[str, Any]], str]:
    times = [row["time"] for row in rows] or [0.0]
    span = max(times) - min(times)
    scale, unit = (3600.0, "h") if span > _HOURS_FROM_S else (60.0, "min") if span > _MINUTES_FROM_S else (1.0, "s")
    by_series: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: row["time"]):
        by_series.setdefault((row["series"], row["element"]), []).append(row)
    series = []
    for number, of_one in enumerate([*by_series.values()][-_SERIES:]):
        y = [row.get(column, math.nan) for row in of_one]
        half = [Z90 * row.get(f"{name}_sd_frame", math.nan) for row in of_one]
        series.append(
            {
                "name": named(*of_one) or "run",
                "kind": str(number),
                "x": _plain((row["time"] - min(times)) / scale for row in of_one),
                "y": _plain(y),
                "lo": _plain(a - b for a, b in zip(y, half, strict=True)),
                "hi": _plain(a + b for a, b in zip(y, half, strict=True)),
            }
        )
    return series, f"time since the first frame ({unit}); band: repeats of one sample, 90 %"


def _spectra(frames: Sequence[KeptFrame]) -> list[dict[str, Any]]:
    """Return the latest spectrum and, below it, the first stored spectrum of its series."""
    latest = next((frame for frame in reversed(frames) if frame.spectrum is not None), None)
    if latest is None:
        return []
    row = latest.row
    known = ((frame, frame.row) for frame in frames if frame.spectrum is not None)
    first = next(f for f, other in known if all(other[name] == row[name] for name in ("series", "element")))
    grid, now, before = latest.grid, latest.spectrum, first.spectrum
    assert now is not None
    lines = [("latest", "0", now)]
    if first is not latest and before is not None and before.shape == now.shape:
        lines.insert(0, (f"first (frame {first.row['seq_num']})", "first", before))
        largest = float(np.nanmax(np.abs(now - before), initial=0.0))
        factor = next((k for k in _FACTORS if k * largest < _DIFFERENCE), 1)
        name = "latest − first" if factor == 1 else f"{factor} × (latest − first)"
        lines.append((name, "1", factor * (now - before)))
    return [{"name": name, "kind": kind, "still": True, "x": _plain(grid), "y": _plain(y)} for name, kind, y in lines]


def _state(history: History, rows: Sequence[Mapping[str, Any]], name: str) -> str:
    count, aside = history.recorder.frames, history.recorder.set_aside.total()
    words = ["running" if history.running else "ended" if history.documents else "waiting for a run"]
    words += [f"{count} {'frame' if count == 1 else 'frames'}"]
    words += [f"{aside} set aside ({', '.join(history.recorder.set_aside)})"] if aside else []
    if rows:
        words += [_value(rows[-1], name), named(rows[-1]), f"last frame {_clock(rows[-1]['time'])}"]
    return " · ".join(word for word in words if word)


def _value(row: Mapping[str, Any], name: str) -> str:
    """Return the latest value with two 90 % intervals: that of repeats, and that of a single value."""
    mean = row.get(f"{name}_mean")
    if mean is None:
        return f"{name} {row[name]:.4g}" if isinstance(row.get(name), int | float) else ""
    half = (row[f"{name}_hi"] - row[f"{name}_lo"]) / 2
    return f"{name} {mean:.3g} ± {Z90 * row[f'{name}_sd_frame']:.1g} (repeats), ± {half:.1g} (single value)"


def _decision(history: History) -> str:
    if not history.decisions:
        return "no decision yet"
    row = next(reversed(history.decisions.values()))
    status = f"{row['status']}, {row['status_reason']}" if row["status_reason"] else row["status"]
    return f"last decision {_clock(row['time'])}: {row['action']} by {row['rule']}, {row['reason']} ({status})"


def _clock(time: float) -> str:
    return datetime.fromtimestamp(time).strftime("%Y-%m-%d %H:%M:%S")


def _plain(values: Any) -> list[float | None]:
    """Return numbers as JSON values; None for NaN."""
    return [round(float(v), 5) if math.isfinite(v) else None for v in values]
