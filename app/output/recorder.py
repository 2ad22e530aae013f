"""What a session remembers: the agent's own documents as rows, and what really happened."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...agent.types import Flag, Reason

VOLTAGES = ("voltage", "Ewe_V", "potential", "Ewe")
"""Names of the cell voltage among the readings, the first that a frame has."""
FRAME_FIRST = ("time", "run_uid", "seq_num")
GAPS = frozenset({Reason.JOINED_LATE, Reason.LATE, Reason.QUEUE_FULL, Reason.EVENTS_LOST})
FRAME_THEN = ("ood_score", "e0_ev", "edge_step", "noise", "latency_ms", "flags")


@dataclass
class Recorder:
    """Gathers the agent's own documents as they come; subscribe it to the agent."""

    frames: list[dict[str, Any]] = field(default_factory=list)
    """A row of descriptors.csv per frame."""
    decisions: list[dict[str, Any]] = field(default_factory=list)
    """One per decision, with its latest status."""
    set_aside: Counter[str] = field(default_factory=Counter)
    """What could not become a frame, by reason."""
    gaps: Counter[str] = field(default_factory=Counter)
    """Losses that are no frame: a run joined late, documents that came late or not at all."""
    numbered: int = 0
    """Frames that were answered or set aside."""
    spectra: dict[str, np.ndarray] = field(default_factory=dict)
    """Aligned spectrum by frame uid."""
    grid: np.ndarray | None = None
    models: dict[str, str] = field(default_factory=dict)
    """SHA-256 by name of the models that answered."""
    descriptors: list[str] = field(default_factory=list)
    """Names, in the card's order."""
    readings: list[str] = field(default_factory=list)
    """Names of the scalars that came with the frames."""
    _parents: dict[str, str] = field(default_factory=dict)
    _streams: dict[str, tuple[str, str]] = field(default_factory=dict)

    def __call__(self, name: str, doc: Mapping[str, Any]) -> None:
        if name == "start":
            self._parents[doc["uid"]] = doc["parent_uid"]
            if doc["model"]["sha256"]:
                self.models[doc["model"]["name"]] = doc["model"]["sha256"]
        elif name == "descriptor":
            self._streams[doc["uid"]] = doc["name"], self._parents[doc["run_start"]]
            if doc["name"] == "spectra":
                self.grid = np.asarray(doc["configuration"]["xas_agent"]["data"]["energy_relative_ev"])
            if doc["name"] == "descriptors":
                found = [k.removesuffix("_mean") for k in doc["hints"]["xas_agent"]["fields"]]
                self.descriptors += [d for d in found if d not in self.descriptors]
                self.readings += [r for r in doc["object_keys"]["readings"] if r not in self.readings]
        elif name == "event":
            stream, run_uid = self._streams[doc["descriptor"]]
            getattr(self, f"_{stream}")(doc, run_uid)

    def _descriptors(self, doc: Mapping[str, Any], run_uid: str) -> None:
        data = doc["data"]
        clashing = {f"reading_{k}": data[k] for k in FRAME_FIRST if k in data}
        own = {"time": data["frame_time"], "run_uid": run_uid, "seq_num": data["frame_seq_num"]}
        self.frames.append({**data, **clashing, **own})
        self.numbered += 1

    def _spectra(self, doc: Mapping[str, Any], _: str) -> None:
        self.spectra[doc["data"]["frame_uid"]] = np.asarray(doc["data"]["spectrum"], np.float32)

    def _decisions(self, doc: Mapping[str, Any], run_uid: str) -> None:
        row = {"time": doc["time"], "run_uid": run_uid, **doc["data"]}
        known = [i for i, d in enumerate(self.decisions) if d["id"] == row["id"]]
        if known:
            self.decisions[known[0]] = row
        else:
            self.decisions.append(row)

    def _quality(self, doc: Mapping[str, Any], _: str) -> None:
        reason, number = doc["data"]["reason"], doc["data"]["seq_num"]
        (self.gaps if reason in GAPS else self.set_aside)[reason] += 1
        self.numbered += bool(number)

    def columns(self) -> list[str]:
        """Header of descriptors.csv."""
        own = [c for d in self.descriptors for c in (d, f"{d}_p", f"{d}_mean", f"{d}_lo", f"{d}_hi")]
        readings = [f"reading_{r}" if r in FRAME_FIRST else r for r in self.readings]
        return [*FRAME_FIRST, *own, *FRAME_THEN, *readings]

    def flags(self) -> dict[str, int]:
        """How many frames have each flag."""
        return dict(Counter(str(flag) for row in self.frames for flag in Flag.of(row["flags"])))

    def latency_ms(self) -> dict[str, float]:
        """p50 and p99 over the frames."""
        values = [row["latency_ms"] for row in self.frames]
        if not values:
            return {}
        p50, p99 = np.percentile(values, [50, 99])
        return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


@dataclass
class Truth:
    """What really happened, from the beamline's documents that the agent does not read."""

    open_loop_x: float | None = None
    x: list[float] = field(default_factory=list)
    """Li content during each frame; the last entry repeats the last frame as it was left."""
    frame: list[int] = field(default_factory=list)

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
        """x by frame number, as it was while the frame was measured."""
        found: dict[int, float] = {}
        for frame, x in zip(self.frame, self.x, strict=True):
            found.setdefault(frame, x)
        return found


def against_truth(recorder: Recorder, truth: Truth) -> dict[str, float] | None:
    """How the mean oxidation state goes with 4 − x, its value by charge balance in LixMO2; None where unknown.

    ``mae_two_point_e`` is the error that is left when the first frame and the most oxidised one are set right, as one
    calibrates a series whose ends are known.
    """
    x = truth.by_frame()
    pairs = [(r["OS_mean"], 4 - x[r["seq_num"]]) for r in recorder.frames if "OS_mean" in r and r["seq_num"] in x]
    if len({true for _, true in pairs}) < 3:
        return None
    from scipy.stats import rankdata

    found, true = np.array(pairs).T
    return {
        "spearman": round(float(np.corrcoef(rankdata(found), rankdata(true))[0, 1]), 3),
        "pearson": round(float(np.corrcoef(found, true)[0, 1]), 3),
        "mae_e": round(float(np.abs(found - true).mean()), 3),
        "mae_two_point_e": round(float(np.abs(_set_right(found, true) - true).mean()), 3),
    }


def _set_right(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    """``found`` on the straight line that is right at the first frame and at the one of highest truth."""
    top = int(true.argmax())
    apart = found[top] - found[0]
    scale = (true[top] - true[0]) / apart if apart else 1.0
    return true[0] + scale * (found - found[0])
