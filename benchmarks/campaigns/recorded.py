"""Documents of a made-up experiment: spectra whose edge rises, in whole spectra and in step scans."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import event_model
import numpy as np

from xas_agent.adapters.files import FileSink

POINTS, STEP_POINTS = 341, 121
RULES = """
rules:
  - name: high
    trigger: {kind: threshold, descriptor: mean_bond, above: 2.085, hysteresis: 0.005,
      window_frames: 7, max_times: 99}
    action: pause
"""
"""Decides when the edge of these spectra rises."""
CYCLE_FRAMES = 60
"""Number of frames in which the edge rises and falls."""


def spectrum(frame: int, points: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return the noisy spectrum of a frame, (points,) each."""
    energy = np.linspace(7640, 7860, points)
    edge = 7720 + 2 * np.sin(2 * np.pi * frame / CYCLE_FRAMES)
    mu = 0.8 + np.arctan((energy - edge) / 1.5) / np.pi + 0.5 * np.exp(-(((energy - edge - 5) / 4) ** 2))
    i0 = np.full(points, 1e6)
    return {"energy": energy, "I0": i0, "It": i0 * np.exp(-mu + rng.normal(0, 1e-3, points))}


class Scans:
    """Composes the documents of one watched run, frame by frame."""

    def __init__(self, seed: int, **metadata: Any) -> None:
        self._rng = np.random.default_rng(seed)
        self._run = event_model.compose_run(metadata={"element": "Co", "edge": "K", **metadata}, validate=False)
        self.uid: str = self._run.start_doc["uid"]
        self._streams: dict[str, Any] = {}
        self._frames = 0

    def begin(self) -> Iterator[tuple[str, Any]]:
        yield "start", self._run.start_doc
        for name, shape in (("whole", [POINTS]), ("primary", [])):
            about = {"source": "campaign", "dtype": "array" if shape else "number", "shape": shape}
            keys: Any = dict.fromkeys(("energy", "I0", "It"), about)
            self._streams[name] = self._run.compose_descriptor(name=name, data_keys=keys, validate=False)
            yield "descriptor", self._streams[name].descriptor_doc

    def whole(self, at: float) -> tuple[str, Any]:
        """Return the Event of a whole spectrum."""
        self._frames += 1
        return self._event("whole", spectrum(self._frames, POINTS, self._rng), at)

    def step(self, at: float) -> Iterator[tuple[str, Any]]:
        """Yield the Events of a step scan."""
        self._frames += 1
        columns = spectrum(self._frames, STEP_POINTS, self._rng)
        for k in range(STEP_POINTS):
            yield self._event("primary", {key: float(column[k]) for key, column in columns.items()}, at)

    def end(self) -> tuple[str, Any]:
        return "stop", self._run.compose_stop()

    def _event(self, stream: str, data: dict[str, Any], at: float) -> tuple[str, Any]:
        event = self._streams[stream].compose_event(
            data=data, timestamps=dict.fromkeys(data, at), time=at, validate=False
        )
        return "event", event


def record(path: Path, seed: int, runs: int, frames: int) -> None:
    """Write runs of ``frames`` whole spectra, with a step scan after every tenth, of two samples in turn."""
    sink, at = FileSink(path), 1.8e9
    for number in range(runs):
        scans = Scans(seed + number, sample_name=f"cell {number % 2}")
        for name, doc in scans.begin():
            sink(name, doc)
        for frame in range(frames):
            at += 1.0
            sink(*scans.whole(at))
            for name, doc in scans.step(at) if frame % 10 == 9 else ():
                sink(name, doc)
        sink(*scans.end())
    sink.close()
