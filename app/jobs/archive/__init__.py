"""``xas-agent backfill``: the spectra of an archive, some million, as one table of descriptors in parts."""

from .backfill import Summary, backfill, identity_of
from .engines import DaskEngine, Engine, LocalEngine
from .folder import ArchiveFolder
from .plan import Plan, plan
from .sources import Sources
from .table import require_pyarrow
from .work import PART_ROWS, WorkFailed

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
    "identity_of",
    "plan",
    "require_pyarrow",
]
