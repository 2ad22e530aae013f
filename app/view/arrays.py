"""Finds the spectra of a session in its documents file, from which they are read on request."""

import json
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .tail import Line

STREAMS = ("spectra", "measured")
"""Streams whose Events are only located in the file."""
_FRAME_UID = re.compile(rb'"frame_uid":\s*"([^"\\]*)"')
_DESCRIPTOR = re.compile(rb'"descriptor":\s*"([^"\\]*)"')


class Arrays:
    """The positions in the file of the Events of spectra, by the number of their frame.

    Parameters
    ----------
    path : Path
        File of the documents.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets = {name: array("q") for name in STREAMS}
        """Byte offset of each frame's Event, by stream; -1 if there is none."""
        self._streams: dict[bytes, str] = {}
        """Stream by the uid of its Descriptor."""
        self.grid: list[float] = []
        """Energies of the aligned spectra relative to the tabulated edge, eV."""

    def describe(self, stream: str, uid: str, configuration: Mapping[str, Any]) -> None:
        """Record the Descriptor of a stream."""
        if stream in STREAMS:
            self._streams[uid.encode()] = stream
        if stream == "spectra" and "energy_relative_ev" in configuration:
            self.grid = list(configuration["energy_relative_ev"])

    def add_frame(self) -> None:
        """Add the next frame, whose spectra are still unknown."""
        for offsets in self._offsets.values():
            offsets.append(-1)

    def event_of(self, line: Line) -> tuple[str, str] | None:
        """Return stream and frame of a spectrum's Event without reading its numbers; None for any other line."""
        at = line.text.rfind(b'"descriptor"')
        found = _DESCRIPTOR.match(line.text, at) if at >= 0 else None
        stream = self._streams.get(found[1]) if found else None
        if stream is None:
            return None
        uid = _FRAME_UID.search(line.text)
        return stream, uid[1].decode() if uid else ""

    def found(self, stream: str, number: int, line: Line) -> None:
        """Record the position of a frame's spectrum."""
        self._offsets[stream][number] = line.offset

    def offset(self, stream: str, number: int) -> int:
        """Return the byte offset of a frame's Event; -1 if there is none."""
        return self._offsets[stream][number]

    def read(self, places: Sequence[tuple[int, str]]) -> Iterator[dict[str, Any] | None]:
        """Yield the data of Events, given the byte offset of each (or of its page) and the uid of its frame.

        None if there is no such Event or the offset is -1.
        """
        try:
            file = self._path.open("rb")
        except OSError:
            yield from [None] * len(places)
            return
        read: tuple[int, Any] = -1, ("", {})  # the document at an offset, since neighbours may share a page
        with file:
            for offset, uid in places:
                data = None
                if offset >= 0:
                    try:
                        if offset != read[0]:
                            file.seek(offset)
                            read = offset, json.loads(file.readline())
                        name, doc = read[1]
                        data = _data_of(name, doc, uid)
                    except (ValueError, LookupError, TypeError):
                        data = None
                yield data


def _data_of(name: str, doc: Mapping[str, Any], uid: str) -> dict[str, Any]:
    """Return the data of an Event, or of the Event in a page that belongs to this frame."""
    if name != "event_page":
        return doc["data"]
    row = doc["data"]["frame_uid"].index(uid)
    return {key: column[row] for key, column in doc["data"].items()}


def as_measured(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spectrum as measured, with its normalisation lines at every energy."""
    energy = np.array(data["energy"], float)
    nodes = np.array(data["line_energy"], float)
    curves = {name: np.interp(energy, nodes, data[name]).tolist() for name in ("pre_edge", "post_edge")}
    answer = {
        "energy_ev": data["energy"],
        "mu": data["mu"],
        **curves,
        "e0_ev": data["e0_measured_ev"],
        "edge_step": data["edge_step"],
    }
    if "reference" in data:
        answer["reference"] = {"mu": data["reference"], "e0_ev": data.get("reference_e0_ev")}
    return answer
