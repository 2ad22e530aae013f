"""Documents of answered frames, as a recorder receives them from the agent."""

from typing import Any

from xas_agent.app.output.recorder import Recorder

NAMES = {"sample": "", "scan_id": 0, "file": "", "element": "Co"}


def started(recorder: Recorder, run: str = "run") -> Recorder:
    """Begin a run of the agent, with its streams."""
    start = {"uid": f"a/{run}", "parent_uid": run, "series": run, "model": {"name": "none", "sha256": ""}}
    recorder("start", start)
    for name in ("descriptors", "spectra", "decisions", "quality"):
        descriptor: dict[str, Any] = {"uid": f"{name}/{run}", "name": name, "run_start": f"a/{run}"}
        if name == "descriptors":
            names = ("OS", "OS_p", "OS_mean", "OS_lo", "OS_hi", "OS_sd_frame", "voltage")
            keys = {name: {"units": "V" if name == "voltage" else None} for name in names}
            descriptor |= {"hints": {"xas_agent": {"fields": ["OS_mean"]}}, "object_keys": {"readings": ["voltage"]}}
            descriptor |= {"data_keys": keys}
        if name == "spectra":
            descriptor["configuration"] = {"xas_agent": {"data": {"energy_relative_ev": [0.0, 1.0]}}}
        recorder("descriptor", descriptor)
    return recorder


def frame(recorder: Recorder, number: int, run: str = "run", **more: Any) -> None:
    data = {
        "frame_uid": f"{run}/{number}",
        "frame_time": float(number),
        "frame_seq_num": number,
        "flags": "",
        "ood_score": 0.1,
        **NAMES,
    }
    recorder("event", {"descriptor": f"descriptors/{run}", "data": data | {"latency_ms": 1.0} | more})
    spectrum = {"frame_uid": f"{run}/{number}", "spectrum": [float(number), 0.0]}
    recorder("event", {"descriptor": f"spectra/{run}", "data": spectrum})
