"""``xas-agent backfill``: the spectra of an archive, some million, as one table of descriptors in parts."""

from .backfill import Summary, backfill
from .engines import DaskEngine, Engine, LocalEngine, WorkFailed
from .folder import ArchiveFolder
from .plan import Plan, plan
from .sources import Sources
from .work import PART_ROWS

__all__ = [
    "PART_ROWS",
    "ArchiveFolder",
    "DaskEngine",
    "Engine",
    "LocalEngine",
    "Plan",
    "Sources",
    "Summary",
    "WorkFailed",
    "backfill",
    "plan",
]
