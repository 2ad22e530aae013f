"""``xas-agent backfill``: estimates the spectra of an archive, up to millions, into one table in parts."""

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
