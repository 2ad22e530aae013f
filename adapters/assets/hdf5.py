"""Reads rows of HDF5 datasets, and finds the files that hold them.

If a source file of a virtual dataset is missing, HDF5 returns fill values without an error. HDF5 holds the
interpreter's lock while it opens a file, so that every file is opened here first.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .opening import MAX_BYTES, AssetRefused, NotYet, regular_file

Inside = Callable[[Path], Path]
"""Resolves a path; raises AssetRefused if it may not be read."""

_MAX_LINK_DEPTH = 5
"""Largest depth of nested links and virtual datasets; deeper ones may be circular."""


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading without locks, since its writer may still have it open."""
    try:
        import h5py
    except ImportError:
        raise AssetRefused("reading HDF5 needs h5py: pip install 'xas-agent[formats]'") from None
    with regular_file(path) as fd:
        os.pread(fd, 1, 0)  # so that a hanging file server hangs here, and not within HDF5
        try:
            file = h5py.File(path, "r", locking=False)
        except OSError as error:  # empty, without its header, or open in SWMR mode
            try:
                file = h5py.File(path, "r", locking=False, swmr=True)
            except OSError:
                raise NotYet(f"{path}: {' '.join(str(error).split())[:160]}") from None
        with file:
            if not os.path.samestat(os.fstat(fd), os.fstat(file.id.get_vfd_handle())):
                raise AssetRefused(f"{path}: exchanged while it was opened")
            yield file


def rows_of(
    path: Path, dataset: str, start: int, stop: int | None, inside: Inside = Path.resolve, row_size: int | None = None
) -> NDArray[Any]:
    """Return rows ``start`` to ``stop`` of a dataset, (stop − start, …).

    Parameters
    ----------
    path : Path
    dataset : str
    start, stop : int
        Range of rows; ``stop`` None: to the last row.
    inside : callable
        Raises AssetRefused for a source file of the dataset that may not be read.
    row_size : int, optional
        Largest number of values in a row, according to the descriptor.

    Raises
    ------
    NotYet
        The file, the dataset or one of the rows does not exist yet.
    AssetRefused
        The dataset has source files that may not be read, is larger than announced or than ``MAX_BYTES``, or does not
        hold numbers.
    """
    with opened(path) as file:
        data = _dataset(file, path, dataset, inside)
        length = int(data.shape[0]) if data.shape else 0
        if stop is None:
            stop = length
        if length < stop:
            raise NotYet(f"{path}: {dataset} has {length} rows, {stop} are announced", length)
        size = prod(data.shape[1:])
        if row_size is not None and size > row_size:
            raise AssetRefused(
                f"{path}: {dataset} has {size} values in a row of {data.shape[1:]}, announced {row_size}"
            )
        _refuse_large(path, dataset, (stop - start) * size * data.dtype.itemsize)
        try:
            return np.asarray(data[start:stop])
        except OSError as error:  # a chunk that is allocated but not yet written
            raise NotYet(f"{path}: {dataset}: {error}") from None


def _dataset(file: Any, path: Path, name: str, inside: Inside) -> Any:
    """Return a dataset of numbers whose source files all exist and may be read."""
    _keep_links(file, name, inside)
    try:
        data = file.get(name)
    except OSError as error:  # a link to an incomplete file
        raise NotYet(f"{path}: {name}: {error}") from None
    if not hasattr(data, "shape"):
        raise NotYet(f"{path}: no dataset {name!r}")
    if missing := missing_source(data):
        raise NotYet(f"{path}: {name} refers to {missing}, which does not exist")
    _keep_inside(data, path, inside)
    return data


def _keep_links(group: Any, name: str, inside: Inside, depth: int = _MAX_LINK_DEPTH) -> None:
    """Raise AssetRefused if a link on the way to a dataset leads to a file that may not be read.

    HDF5 opens the file of an external link at once, even a pipe, which blocks the process.
    """
    from h5py import Group, h5l  # pyright: ignore[reportAttributeAccessIssue]

    if not depth:
        raise AssetRefused(f"{group.file.filename}: more than {_MAX_LINK_DEPTH} nested links")
    here = group.file if name.startswith("/") else group
    parts = [part for part in name.split("/") if part not in ("", ".")]
    for k, part in enumerate(parts):
        links, beyond = here.id.links, "/".join(parts[k + 1 :])
        if not links.exists(part.encode()):
            return
        kind = links.get_info(part.encode()).type
        if kind == h5l.TYPE_EXTERNAL:
            other, within = (os.fsdecode(text) for text in links.get_val(part.encode()))
            with opened(inside(Path(here.file.filename).parent / other)) as file:
                return _keep_links(file, f"/{within}/{beyond}", inside, depth - 1)
        if kind == h5l.TYPE_SOFT:
            target = os.fsdecode(links.get_val(part.encode()))
            return _keep_links(here, f"{target}/{beyond}", inside, depth - 1)
        here = here[part]
        if not isinstance(here, Group):
            return


def _keep_inside(data: Any, checked: Path, inside: Inside, depth: int = _MAX_LINK_DEPTH) -> None:
    """Raise AssetRefused if a dataset needs a file that may not be read.

    Also refuse a dataset that does not hold numbers, or one with too large a chunk, which HDF5 unpacks even for a
    single value. ``checked`` is the file in which the dataset was found; a link may have led to another file.
    """
    where = Path(data.file.filename)
    if not depth:
        raise AssetRefused(f"{where}: {data.name} nests more than {_MAX_LINK_DEPTH} virtual datasets")
    if where != checked:
        checked = inside(where)
    if data.dtype.kind not in "iufb":
        raise AssetRefused(f"{where}: {data.name} holds values of type {data.dtype}, expected numbers")
    _refuse_large(where, f"a chunk of {data.name}", prod(data.chunks or ()) * data.dtype.itemsize)
    for path, name in dict.fromkeys(sources(data)):  # each frame may have its own file
        source = checked if path == where else inside(path)
        if "%" in f"{path.name}{name}":
            raise AssetRefused(
                f"{path}: a pattern of file names, which assets.roots cannot check; name each source file "
                "in the virtual dataset"
            )
        if name:
            with opened(source) as file:
                _keep_links(file, name, inside, depth - 1)
                if hasattr(part := file.get(name), "shape"):
                    _keep_inside(part, source, inside, depth - 1)


def _refuse_large(path: Path, what: str, size: int) -> None:
    if size > MAX_BYTES:
        raise AssetRefused(f"{path}: {what} has {size / 2**20:.0f} MiB, at most {MAX_BYTES / 2**20:.0f} MiB are read")


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
    """Return whether the name is a pattern of numbered files, of which HDF5 reads all that exist."""
    return "%b" in file.name
