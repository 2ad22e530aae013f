"""What a frame was measured on, as people name it."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Scan:
    """The sample, number and file of a scan, decided once per run from its RunStart.

    >>> Scan("cell-7", "LiCoO2", 252).named()
    {'sample': 'LiCoO2', 'scan_id': 252}
    """

    series: str = ""
    """Key of the series to which the scan belongs; empty if the sample is not named: then the run is the series."""
    sample: str = ""
    """Name of the sample; empty if it has none."""
    scan_id: int = 0
    """Number of the scan at the beamline; 0 if it has none."""
    file: str = ""
    """Name of the scan's file, without its folder; empty if the documents name none."""

    def named(self) -> dict[str, Any]:
        """Return what is known of sample, scan id and file, for a log line."""
        known = {"sample": self.sample, "scan_id": self.scan_id, "file": self.file}
        return {name: value for name, value in known.items() if value}
