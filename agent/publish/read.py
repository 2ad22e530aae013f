"""The agent's own documents → the frames, estimates and notes in them."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..types import DescriptorEstimate, Estimate, Frame, Reason, Scan, SetAside
from .data_keys import ALIGNMENT_UNITS
from .pages import events_of

Answered = tuple[Frame, Estimate, Mapping[str, float]]
"""A frame without its spectrum, its estimate, and the quantities of its alignment."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of a watched run."""

    run_uid: str


class PublishedReader:
    """Reads the documents of :class:`~xas_agent.agent.publish.AgentRun`; it skips all other documents."""

    def __init__(self) -> None:
        self._runs: dict[str, Mapping[str, Any]] = {}
        self._streams: dict[str, tuple[str, Mapping[str, Any], Mapping[str, Any]]] = {}
        """Name, RunStart and Descriptor of each stream, by the Descriptor's uid."""
        self.units: dict[str, str] = {}
        """Units of all quantities by name; dimensionless ones are absent."""

    def __call__(self, name: str, doc: Mapping[str, Any]) -> Iterator[Answered | SetAside | Ended]:
        """Yield the frame or note that a document holds, or the end of the run that it ends."""
        if name == "start" and doc.get("xas_agent") is True:
            self._runs[doc["uid"]] = doc
        elif name == "descriptor" and doc["run_start"] in self._runs:
            self._streams[doc["uid"]] = doc["name"], self._runs[doc["run_start"]], doc
            for key, described in doc["data_keys"].items():
                unit = described.get("units")
                if unit and unit != "dimensionless":
                    self.units |= {key: unit, key.removesuffix("_mean"): unit}
        elif name == "event" and doc["descriptor"] in self._streams:
            stream, start, descriptor = self._streams[doc["descriptor"]]
            if stream == "descriptors":
                yield _answered(start, descriptor, doc["data"])
            elif stream == "quality":
                yield _note(start, doc)
        elif name == "event_page" and doc["descriptor"] in self._streams:
            for event in events_of(doc):
                yield from self("event", event)
        elif name == "stop" and (start := self._runs.pop(doc["run_start"], None)):
            self._streams = {uid: known for uid, known in self._streams.items() if known[1]["uid"] != start["uid"]}
            watched = start["parent_uid"]
            if all(other["parent_uid"] != watched for other in self._runs.values()):
                yield Ended(watched)


def _answered(start: Mapping[str, Any], descriptor: Mapping[str, Any], data: Mapping[str, Any]) -> Answered:
    names = [key.removesuffix("_sd_frame") for key in data if key.endswith("_sd_frame")]
    estimates = {
        name: DescriptorEstimate(
            data[f"{name}_mean"],
            data[f"{name}_lo"],
            data[f"{name}_hi"],
            data.get(name),
            data.get(f"{name}_p"),
            sd_frame=data[f"{name}_sd_frame"],
        )
        for name in names
    }
    readings = {k: float(data[k]) for k in descriptor.get("object_keys", {}).get("readings", ())}
    scan = Scan(start["series"], data["sample"], data["scan_id"], data["file"])
    frame = Frame(
        uid=data["frame_uid"],
        run_uid=start["parent_uid"],
        seq_num=data["frame_seq_num"],
        time=data["frame_time"],
        energy=np.empty(0),
        mu=np.empty(0),
        element=data["element"] or None,
        edge=start.get("edge"),
        scan=scan,
        readings={k: v for k, v in readings.items() if not math.isnan(v)},
    )
    quantities = {k: data[k] for k in ALIGNMENT_UNITS if k in data}
    return frame, Estimate(estimates, data["ood_score"]), quantities


def _note(start: Mapping[str, Any], event: Mapping[str, Any]) -> SetAside:
    data = event["data"]
    number = data["frame_seq_num"] or None
    reason, uid = Reason(data["reason"]), start["parent_uid"]
    return SetAside(uid, data["uid"], event["time"], reason, data["detail"], number, data["file"], data["count"])
