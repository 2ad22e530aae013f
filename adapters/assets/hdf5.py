"""Other files that an HDF5 dataset is made of: where one of them lacks, HDF5 gives fill values without a word."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any


def sources(data: Any) -> Iterator[tuple[Path, str]]:
    """Yield the files that hold the values of a dataset of h5py, and the dataset in each; "" for bare bytes."""
    own = Path(data.file.filename)
    for part in data.virtual_sources() if data.is_virtual else ():
        yield own if part.file_name == "." else own.parent / part.file_name, part.dset_name
    for name, _, _ in data.external or ():
        yield Path(name).absolute(), ""


def missing_source(data: Any) -> Path | None:
    """Return a file that is not there and that values of ``data`` should come from."""
    return next((file for file, _ in sources(data) if not _numbered(file) and not file.exists()), None)


def _numbered(file: Path) -> bool:
    """Whether it stands for a series of files, of which HDF5 takes as many as there are."""
    return "%b" in file.name
