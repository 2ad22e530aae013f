"""Tables of a session: the agent's documents as rows, and the true values of a simulated beamline."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...agent.types import Flag, Reason

VOLTAGE_FIELDS = ("voltage", "Ewe_V", "potential", "Ewe")
"""Names of the cell voltage among the readings, in order of preference."""
OOD_LIMIT = 1.0
"""Out-of-distribution score above which a spectrum is flagged as out of distribution."""
_FIRST_COLUMNS = ("time", "run_uid", "seq_num")
NAME_COLUMNS = ("sample", "scan_id", "file", "element")
"""Columns of every table of a session that say what was measured."""
_QUALITY_COLUMNS = ("ood_score", "e0_ev", "edge_step", "noise", "latency_ms", "flags")
_GAP_REASONS = frozenset({Reason.JOINED_LATE, Reason.LATE, Reason.QUEUE_FULL, Reason.EVENTS_LOST})


@dataclass
class Recorder:
    """A subscriber that collects the agent's documents."""

    frames: list[dict[str, Any]] = field(default_factory=list)
    """A row of descriptors.csv per frame."""
    decisions: list[dict[str, Any]] = field(default_factory=list)
    """One per decision, with its latest status."""
    set_aside: Counter[str] = field(default_factory=Counter)
    """Number of frames set aside, by reason."""
    gaps: Counter[str] = field(default_factory=Counter)
    """Number of losses other than frames, by reason: runs joined late, documents and Events late or lost."""
    numbered: int = 0
    """Number of frames that were answered or set aside."""
    spectra: dict[str, np.ndarray] = field(default_factory=dict)
    """Aligned spectrum by frame uid."""
    grid: np.ndarray | None = None
    models: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the models in use, by name."""
    descriptors: list[str] = field(default_factory=list)
    """Names of the descriptors, in the card's order."""
    readings: list[str] = field(default_factory=list)
    """Names of the scalar readings of the frames."""
    series: dict[str, str] = field(default_factory=dict)
    """Key of the series of each watched run, by the run's uid."""
    _parents: dict[str, str] = field(default_factory=dict)
    _streams: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        if name == "start":
            self._parents[doc["uid"]] = doc["parent_uid"]
            self.series[doc["parent_uid"]] = doc.get("series", doc["parent_uid"])
            if doc["model"]["sha256"]:
                self.models[doc["model"]["name"]] = doc["model"]["sha256"]
        elif name == "descriptor":
            self._streams[doc["uid"]] = doc["name"], self._parents[doc["run_start"]]
            if doc["name"] == "spectra":
                self.grid = np.asarray(doc["configuration"]["xas_agent"]["data"]["energy_relative_ev"])
            if doc["name"] == "descriptors":
                names = [key.removesuffix("_mean") for key in doc["hints"]["xas_agent"]["fields"]]
                self.descriptors += [name for name in names if name not in self.descriptors]
                self.readings += [r for r in doc["object_keys"]["readings"] if r not in self.readings]
        elif name == "event":
            stream, run_uid = self._streams[doc["descriptor"]]
            getattr(self, f"_{stream}")(doc, run_uid)

    def _descriptors(self, doc: Mapping[str, Any], run_uid: str) -> None:
        data = doc["data"]
        readings = {f"reading_{key}": data[key] for key in _FIRST_COLUMNS if key in data}
        frame = {"time": data["frame_time"], "run_uid": run_uid, "seq_num": data["frame_seq_num"]}
        self.frames.append({**data, **readings, **frame})
        self.numbered += 1

    def _spectra(self, doc: Mapping[str, Any], _: str) -> None:
        self.spectra[doc["data"]["frame_uid"]] = np.asarray(doc["data"]["spectrum"], np.float32)

    def _decisions(self, doc: Mapping[str, Any], run_uid: str) -> None:
        row = {"time": doc["time"], "run_uid": run_uid, **doc["data"]}
        earlier = [i for i, decision in enumerate(self.decisions) if decision["id"] == row["id"]]
        if earlier:
            self.decisions[earlier[0]] = row
        else:
            self.decisions.append(row)

    def _quality(self, doc: Mapping[str, Any], _: str) -> None:
        reason, number, count = (doc["data"][key] for key in ("reason", "frame_seq_num", "count"))
        (self.gaps if reason in _GAP_REASONS else self.set_aside)[reason] += count
        self.numbered += count if number else 0

    def columns(self) -> list[str]:
        """Return the header of descriptors.csv."""
        estimates = [c for d in self.descriptors for c in (d, f"{d}_p", f"{d}_mean", f"{d}_lo", f"{d}_hi")]
        readings = [f"reading_{r}" if r in _FIRST_COLUMNS else r for r in self.readings]
        return [*_FIRST_COLUMNS, *NAME_COLUMNS, *estimates, *_QUALITY_COLUMNS, *readings]

    def by_series(self) -> list[list[dict[str, Any]]]:
        """Return the rows of each series and element in the order of time, the earliest series first."""
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in sorted(self.frames, key=lambda r: r["time"]):
            found.setdefault((self.series[row["run_uid"]], row["element"]), []).append(row)
        return list(found.values())

    def samples(self) -> dict[str, int]:
        """Return the number of frames of each named sample."""
        return dict(Counter(row["sample"] for row in self.frames if row["sample"]))

    def flags(self) -> dict[str, int]:
        """Return the number of frames with each flag."""
        return dict(Counter(str(flag) for row in self.frames for flag in Flag.of(row["flags"])))

    def latency_ms(self) -> dict[str, float]:
        """Return the 50th and 99th percentile of the latency over the frames, ms."""
        values = [row["latency_ms"] for row in self.frames]
        if not values:
            return {}
        p50, p99 = np.percentile(values, [50, 99])
        return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


def named(*rows: Mapping[str, Any]) -> str:
    """Return the sample, scan id, file and element of rows in words, as far as they are known.

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


@dataclass
class Truth:
    """True values of a simulated beamline, from documents that the agent does not receive."""

    open_loop_x: float | None = None
    """Li content at the end of the charge if no control stops it."""
    x: list[float] = field(default_factory=list)
    """Li content during each frame; the last entry is the final value after the last frame."""
    frame: list[int] = field(default_factory=list)
    """Frame number of each entry of ``x``."""

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        if name == "start":
            self.open_loop_x = doc.get("x_open_loop_end")
        elif name == "event":
            data = doc["data"]
            value = next((v for k, v in data.items() if k in ("x", "x_Li", "x_true")), None)
            if value is not None:
                self.x.append(float(value))
                self.frame.append(int(data.get("frame", doc["seq_num"])))

    def by_frame(self) -> dict[int, float]:
        """Return x during the measurement by frame number."""
        x_by_frame: dict[int, float] = {}
        for frame, x in zip(self.frame, self.x, strict=True):
            x_by_frame.setdefault(frame, x)
        return x_by_frame


def compare_with_truth(recorder: Recorder, truth: Truth) -> dict[str, float] | None:
    """Compare the mean oxidation states with 4 − x, their value by charge balance in LixMO2.

    Returns
    -------
    dict or None
        Correlation coefficients ``spearman`` and ``pearson``; mean absolute error ``mae_e``, e; and
        ``mae_two_point_e``, the same after a linear calibration at the first and the most oxidised frame, as for a
        series whose end points are known. None for fewer than three different true values.
    """
    x = truth.by_frame()
    pairs = [(r["OS_mean"], 4 - x[r["seq_num"]]) for r in recorder.frames if "OS_mean" in r and r["seq_num"] in x]
    if len({true for _, true in pairs}) < 3:
        return None
    from scipy.stats import rankdata

    estimates, true = np.array(pairs).T
    return {
        "spearman": round(float(np.corrcoef(rankdata(estimates), rankdata(true))[0, 1]), 3),
        "pearson": round(float(np.corrcoef(estimates, true)[0, 1]), 3),
        "mae_e": round(float(np.abs(estimates - true).mean()), 3),
        "mae_two_point_e": round(float(np.abs(_calibrate(estimates, true) - true).mean()), 3),
    }


def _calibrate(estimates: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return linearly transformed estimates that are exact at the first frame and at the highest true value."""
    top = int(true.argmax())
    difference = estimates[top] - estimates[0]
    scale = (true[top] - true[0]) / difference if difference else 1.0
    return true[0] + scale * (estimates - estimates[0])
