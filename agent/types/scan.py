"""The sample and scan of a frame, under the names that people use."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Scan:
    """The sample, number and file of a scan, decided once per run from its RunStart.

    >>> Scan("cell-7", "LiCoO2", 252).named()
    {'sample': 'LiCoO2', 'scan_id': 252}
    """

    series: str = ""
    """Key of the scan's series; empty if no sample is named, in which case the run is the series."""
    sample: str = ""
    """Name of the sample; empty if it has none."""
    scan_id: int = 0
    """Number of the scan at the beamline; 0 if it has none."""
    file: str = ""
    """Name of the scan's file, without its folder; empty if the documents name none."""

    def named(self) -> dict[str, Any]:
        """Return the known ones of sample, scan id and file, for a log line."""
        known = {"sample": self.sample, "scan_id": self.scan_id, "file": self.file}
        return {name: value for name, value in known.items() if value}
