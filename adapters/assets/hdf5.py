"""Source files of virtual and external HDF5 datasets; for a missing one HDF5 returns fill values without an error."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any


def sources(data: Any) -> Iterator[tuple[Path, str]]:
    """Yield the source files of an h5py dataset, each with the dataset in it, or "" for raw bytes."""
    file = Path(data.file.filename)
    for part in data.virtual_sources() if data.is_virtual else ():
        yield file if part.file_name == "." else file.parent / part.file_name, part.dset_name
    for name, _, _ in data.external or ():
        yield Path(name).absolute(), ""


def missing_source(data: Any) -> Path | None:
    """Return the first missing source file of an h5py dataset, or None."""
    return next((file for file, _ in sources(data) if not _is_series(file) and not file.exists()), None)


def _is_series(file: Path) -> bool:
    """Whether the name is a pattern of numbered files, of which HDF5 reads all that exist."""
    return "%b" in file.name
