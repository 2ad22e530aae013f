"""Histories of made frames, for the plots and the widget."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from recorded_frames import NAMES, frame, started

from xas_agent.app.output.history import History

E = np.linspace(7560.0, 8300.0, 600)
MU = 0.3 - 2e-4 * (E - 7709) + 1 / (1 + np.exp(-(E - 7720.0) / 1.5)) + 0.3 * np.exp(-(((E - 7726.0) / 4) ** 2))
"""A spectrum of cobalt."""


def many(frames: int, samples: Sequence[str] = ("cathode",), aside: int = 0, ood: Sequence[int] = ()) -> History:
    """Return the history of frames at 0, 1, … s for each sample, then of ``aside`` frames set aside."""
    history: Any = History()
    for run in samples:
        started(history, run)
        for k in range(frames):
            mean = 3.1 + 0.02 * k
            values = {"OS": 3, "OS_p": 0.9, "OS_mean": mean, "OS_lo": mean - 0.6, "OS_hi": mean + 0.6}
            values |= {"OS_sd_frame": 0.01, "voltage": 3.8 + 0.01 * k, "sample": run}
            frame(history, k, run, **values, ood_score=1.5 if k in ood else 0.1)
        for k in range(frames, frames + aside):
            data = {"uid": f"{run}/{k}", "reason": "NaN in data", "detail": "", "frame_seq_num": k + 1, "count": 1}
            history("event", {"descriptor": f"quality/{run}", "time": float(k), "data": {**data, **NAMES}})
    history.units |= {"OS_mean": "e", "voltage": "V"}
    return history
