"""True values of a simulated beamline, and the errors of the estimates."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .recorder import OOD_LIMIT, Recorder

FEWEST_CORRELATED = 10
"""Smallest number of frames for a correlation. One in twelve sets of five unrelated pairs has a rank correlation of
±0.9 or more; of sets of ten pairs, one in twenty exceeds ±0.65."""


@dataclass
class Truth:
    """True values of a simulated beamline, from documents that the agent does not receive."""

    open_loop_x: float | None = None
    """Li content at the end of the charge if no control stops it; None if unknown."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """True values of each frame, with ``x``, the Li content; ``frame``, its number; and ``run``, the uid of the
    measured run. The last row of a run is the final state after its last frame."""
    _runs: dict[str, str] = field(default_factory=dict)
    """Measured run, by run of true values."""
    _streams: dict[str, str] = field(default_factory=dict)
    """Measured run, by descriptor."""

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        if name == "start":
            self.open_loop_x = doc.get("x_open_loop_end")
            self._runs[doc["uid"]] = doc.get("measured_run", "")
        elif name == "descriptor":
            self._streams[doc["uid"]] = self._runs.get(doc["run_start"], "")
        elif name == "event":
            data = doc["data"]
            value = next((v for k, v in data.items() if k in ("x", "x_Li", "x_true")), None)
            if value is not None:
                frame = int(data.get("frame", doc["seq_num"]))
                run = self._streams.get(doc["descriptor"], "")
                self.rows.append({**data, "x": float(value), "frame": frame, "run": run})

    def x_at_end(self, run: str) -> float | None:
        """Return the Li content at the end of a measured run; None if it is unknown."""
        return next((row["x"] for row in reversed(self.rows) if row["run"] == run), None)

    def by_frame(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Return the true values during each measurement, by uid of the run and number of the frame."""
        found: dict[tuple[str, int], dict[str, Any]] = {}
        for row in self.rows:
            found.setdefault((row["run"], row["frame"]), row)
        return found

    def x_of(self, rows: Iterable[Mapping[str, Any]]) -> list[float | None]:
        """Return the true x for rows of descriptors.csv; None if unknown.

        A repeated recording has other uids, so that the true values of a single run apply to any.
        """
        found = self.by_frame()
        single = len({run for run, _ in found}) == 1
        only = next(iter(found), ("", 0))[0]
        keys = ((only if single else row["run_uid"], row["seq_num"]) for row in rows)
        return [found[key]["x"] if key in found else None for key in keys]


def compare_with_truth(recorder: Recorder, truth: Truth) -> dict[str, float] | None:
    """Compare the mean oxidation states of the picture with 4 − x, their value by charge balance in LixMO2.

    Frames that are unfamiliar to the model are left out.

    Returns
    -------
    dict or None
        Correlation coefficients ``spearman`` and ``pearson``, for at least :data:`FEWEST_CORRELATED` frames; mean
        absolute error ``mae_e``, e; ``mae_two_point_e``, the same after a linear calibration at the first and the
        most oxidised frame, as for a series with known end points; and ``mae_anchored_e``, that of anchored values,
        if any. None for fewer than three different true values.
    """
    familiar = (frame.row for frame in recorder.drawn().frames if frame.row["ood_score"] <= OOD_LIMIT)
    rows = sorted(familiar, key=lambda row: row["time"])
    known = [(row, 4 - x) for row, x in zip(rows, truth.x_of(rows), strict=True) if x is not None]
    pairs = [(row["OS_mean"], true) for row, true in known if "OS_mean" in row]
    if len({true for _, true in pairs}) < 3:
        return None
    estimates, true = np.array(pairs).T
    anchored = [abs(row["OS_anchored_mean"] - true) for row, true in known if "OS_anchored_mean" in row]
    return {
        **_correlations(estimates, true),
        "mae_e": round(float(np.abs(estimates - true).mean()), 3),
        "mae_two_point_e": round(float(np.abs(_calibrate(estimates, true) - true).mean()), 3),
        **({"mae_anchored_e": round(float(np.mean(anchored)), 3)} if anchored else {}),
    }


def _correlations(estimates: np.ndarray, true: np.ndarray) -> dict[str, float]:
    if len(true) < FEWEST_CORRELATED:
        return {}
    from scipy.stats import rankdata

    return {
        "spearman": round(float(np.corrcoef(rankdata(estimates), rankdata(true))[0, 1]), 3),
        "pearson": round(float(np.corrcoef(estimates, true)[0, 1]), 3),
    }


def _calibrate(estimates: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return estimates, linearly transformed to be exact at the first frame and at the highest true value."""
    top = int(true.argmax())
    difference = estimates[top] - estimates[0]
    scale = (true[top] - true[0]) / difference if difference else 1.0
    return true[0] + scale * (estimates - estimates[0])
