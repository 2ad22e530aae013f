"""``xas-agent backfill``: the spectra of an archive, some million, as one table of descriptors in parts."""

from .backfill import Backfill
from .engines import DaskEngine, Engine, LocalEngine
from .folder import ArchiveFolder
from .plan import Plan
from .table import require_pyarrow
from .work import PART_ROWS, WorkFailed

__all__ = [
    "PART_ROWS",
    "ArchiveFolder",
    "Backfill",
    "DaskEngine",
    "Engine",
    "LocalEngine",
    "Plan",
    "WorkFailed",
    "require_pyarrow",
]
