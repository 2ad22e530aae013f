"""External files of documents: their location, their completeness, and the arrays in them.

The handlers have the interface of event-model's ``Filler``: ``handler(path, inside=…, **resource_kwargs)`` returns a
callable of ``**datum_kwargs``. They open the file at each call and cache nothing, because the file may still grow. A
missing file, dataset or row raises NotYet, an ``OSError`` as the Filler expects; every lasting error raises
AssetRefused.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...agent.types import Settings
from .hdf5 import missing_source, sources

QUIET_S = 0.2
"""Time without a change after which a file without an announced number of rows is complete, s."""
_APB_TICK_NS = 8.0051232
"""Clock period of the analog pizza box, ns."""
_APB_COLUMNS = 10
"""32-bit integers per row of the analog pizza box's file: eight channels, seconds, clock ticks."""
_TRIGGER_COLUMNS = 3
"""32-bit integers per row of the trigger file: level, seconds, clock ticks."""
_MAX_LINK_DEPTH = 5
"""Largest depth of nested virtual datasets; deeper ones may be circular."""

Inside = Callable[[Path], Any]
"""Raises AssetRefused for a path that may not be read."""


class NotYet(OSError):  # noqa: N818  named after the event
    """A file, dataset or row that does not exist yet or is incomplete."""

    def __init__(self, reason: str, rows: int = 0) -> None:
        super().__init__(reason)
        self.rows = rows
        """Number of rows that the dataset already has."""


class AssetRefused(Exception):  # noqa: N818  named after the event
    """A file that waiting does not make readable."""


class AssetSettings(Settings):
    """Location and reading of external files."""

    wait_s: float = Field(default=10.0, ge=0)
    """Longest delay of a file after its documents, s; then the frame that needs the file is set aside. Other runs
    continue meanwhile."""
    path_map: Mapping[str, str] = {}
    """Folders on this machine by the beginning of the paths in the documents; the longest match applies."""
    roots: tuple[str, ...] = ()
    """Only files within these folders are read, after following symbolic links and links within HDF5. Empty: any file
    that this process may read; set it wherever untrusted senders can publish documents."""

    def locate(self, address: str) -> Path:
        """Return the file on this machine for a path or ``file:`` URI of a document.

        Raises
        ------
        AssetRefused
            The URI has another scheme, the path is not a file, or it lies outside ``roots``.
        """
        path = address
        if "://" in address or address.startswith("file:"):
            uri = urlparse(address)
            if uri.scheme != "file":
                raise AssetRefused(f"{address}: a {uri.scheme} URI; only file: URIs are read")
            path = unquote(uri.path)
        for begin in sorted(self.path_map, key=len, reverse=True):
            stem = begin.rstrip("/")
            if path == stem or path.startswith(f"{stem}/"):
                path = self.path_map[begin].rstrip("/") + path.removeprefix(stem)
                break
        file = self.inside(Path(path))
        if file.exists() and not file.is_file():  # opening a pipe may block
            raise AssetRefused(f"{file}: not a file")
        return file

    def inside(self, path: Path) -> Path:
        """Return the path, resolved if ``roots`` are set; raise AssetRefused if it lies outside them."""
        if not self.roots:
            return path
        resolved = path.resolve()
        if not any(resolved.is_relative_to(Path(root).resolve()) for root in self.roots):
            raise AssetRefused(f"{resolved}: outside of assets.roots")
        return resolved


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open an HDF5 file for reading without locks, because its writer may still have it open."""
    try:
        import h5py
    except ImportError:
        raise AssetRefused("reading HDF5 needs h5py: pip install 'xas-agent[formats]'") from None
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:  # missing, empty, without its header, or open in SWMR mode
        try:
            file = h5py.File(path, "r", locking=False, swmr=True)
        except OSError:
            raise NotYet(f"{path}: {' '.join(str(error).split())[:160]}") from None
    with file:
        yield file


def rows_of(path: Path, dataset: str, start: int, stop: int, inside: Inside | None = None) -> NDArray[Any]:
    """Return rows ``start`` to ``stop`` of a dataset, (stop − start, …).

    Parameters
    ----------
    path : Path
    dataset : str
    start, stop : int
    inside : callable, optional
        Raises AssetRefused for a source file of the dataset that may not be read.

    Raises
    ------
    NotYet
        The file, the dataset or one of the rows does not exist yet.
    AssetRefused
        The dataset has source files that may not be read.
    """
    with opened(path) as file:
        data = _dataset(file, path, dataset, inside)
        length = data.shape[0] if data.shape else 0
        if length < stop:
            raise NotYet(f"{path}: {dataset} has {length} rows, {stop} are announced", length)
        try:
            return np.asarray(data[start:stop])
        except OSError as error:  # a chunk that is allocated but not written
            raise NotYet(f"{path}: {dataset}: {error}") from None


def _dataset(file: Any, path: Path, name: str, inside: Inside | None) -> Any:
    """Return a dataset whose source files all exist and may be read."""
    try:
        data = file.get(name)
    except OSError as error:  # a link to an incomplete file
        raise NotYet(f"{path}: {name}: {error}") from None
    if not hasattr(data, "shape"):
        raise NotYet(f"{path}: no dataset {name!r}")
    if missing := missing_source(data):
        raise NotYet(f"{path}: {name} refers to {missing}, which does not exist")
    if inside is not None:
        _keep_inside(data, inside)
    return data


def _keep_inside(data: Any, inside: Inside, depth: int = _MAX_LINK_DEPTH) -> None:
    """Raise AssetRefused if an HDF5 link or a source of a virtual dataset leads to a file that may not be read."""
    if not depth:
        raise AssetRefused(f"{data.file.filename}: {data.name} nests more than {_MAX_LINK_DEPTH} virtual datasets")
    inside(Path(data.file.filename))
    for path, name in sources(data):
        inside(path)
        if "%" in f"{path.name}{name}":
            raise AssetRefused(f"{path}: a pattern of file names, which assets.roots cannot check")
        if name:
            with opened(path) as file:
                if hasattr(part := file.get(name), "shape"):
                    _keep_inside(part, inside, depth - 1)


class AreaDetectorHDF5:
    """Handler of areaDetector files: the frame of one point or, for several frames per point, all of them, (n, …)."""

    def __init__(
        self,
        path: Path,
        frame_per_point: int = 1,
        dataset: str = "/entry/data/data",
        inside: Inside | None = None,
        **_: Any,
    ) -> None:
        self._path, self._per_point, self._dataset, self._inside = path, int(frame_per_point), dataset, inside

    def __call__(self, point_number: int, **_: Any) -> NDArray[Any]:
        first = int(point_number) * self._per_point
        rows = rows_of(self._path, self._dataset, first, first + self._per_point, self._inside)
        return rows[0] if self._per_point == 1 else rows


class Xspress3HDF5:
    """Handler of Xspress3 files: one spectrum (``frame``, ``channel``), all spectra of a channel, or ROI counts.

    A Datum of ISS requests the counts of a region over all frames with ``data_type="roi"``; they are the attributes
    ``CHANnROIm`` that the IOC writes. A Datum of BMM's fly scans has no ``frame`` and requests all spectra of a
    channel.
    """

    def __init__(self, path: Path, key: str = "entry/data/data", inside: Inside | None = None, **_: Any) -> None:
        self._path, self._key, self._inside = path, key, inside

    def __call__(
        self, frame: int | None = None, channel: int = 1, data_type: str = "spectrum", roi_num: int = 1, **_: Any
    ) -> NDArray[Any]:
        if data_type == "roi":
            return self._read_all(f"entry/instrument/detector/NDAttributes/CHAN{channel}ROI{roi_num}").reshape(-1)
        if frame is None:
            return self._read_all(self._key)[:, channel - 1]
        return rows_of(self._path, self._key, int(frame), int(frame) + 1, self._inside)[0, channel - 1]

    def _read_all(self, dataset: str) -> NDArray[Any]:
        _refuse_growing(self._path)
        with opened(self._path) as file:
            return np.asarray(_dataset(file, self._path, dataset, self._inside))


class AnalogPizzaBox:
    """Handler of the electrometers' binary files of ISS and QAS: (M, 9) of Unix seconds and eight channels.

    A row has ten 32-bit integers: the channels in ADC units (µV at ISS), seconds, and ticks of 8.005 ns. Reference:
    NSLS-II-ISS/xas 4a9818c, ``handlers.py``.
    """

    def __init__(self, path: Path, **_: Any) -> None:
        self._path = path

    def __call__(self, **_: Any) -> NDArray[Any]:
        raw = _binary(self._path, _APB_COLUMNS)
        seconds = raw[:, -2] + raw[:, -1] * (_APB_TICK_NS * 1e-9)
        return np.column_stack([seconds, raw[:, :-2]])


class PizzaBoxTrigger:
    """Handler of the trigger files of ISS and QAS: (M, 2) of Unix seconds and the new level."""

    def __init__(self, path: Path, **_: Any) -> None:
        self._path = path

    def __call__(self, **_: Any) -> NDArray[Any]:
        raw = _binary(self._path, _TRIGGER_COLUMNS)
        return np.column_stack([raw[:, 1] + raw[:, 2] * (_APB_TICK_NS * 1e-9), raw[:, 0]])


class PizzaBoxEncoder:
    """Handler of the encoder's text files of ISS and QAS: (M, 5) of s, ns, counts, index and state."""

    def __init__(self, path: Path, **_: Any) -> None:
        self._path = path

    def __call__(self, **_: Any) -> NDArray[Any]:
        _refuse_growing(self._path)
        text = _content(self._path)
        if not text.endswith(b"\n"):
            raise NotYet(f"{self._path}: the last line is incomplete")
        try:
            return np.loadtxt(text.decode("ascii").splitlines(), ndmin=2)
        except ValueError as error:
            raise AssetRefused(f"{self._path}: not a table of numbers: {error}") from None


HANDLERS: Mapping[str, Callable[..., Callable[..., NDArray[Any]]]] = {
    **dict.fromkeys(
        ("AD_HDF5", "AD_HDF5_SWMR", "AD_HDF5_SWMR_STREAM", "AD_HDF5_SWMR_SLICE", "AD_HDF5_TS", "hdf5"),
        AreaDetectorHDF5,
    ),
    **dict.fromkeys(("XSP3", "XSP3_STEP", "XSP3_FLY", "XSP3_BULK"), Xspress3HDF5),
    "APB": AnalogPizzaBox,
    "APB_TRIGGER": PizzaBoxTrigger,
    "PIZZABOX_ENC_FILE_TXT_PD": PizzaBoxEncoder,
}
"""Handlers by the ``spec`` of a Resource."""


def _binary(path: Path, columns: int) -> NDArray[Any]:
    _refuse_growing(path)
    raw = np.frombuffer(_content(path), dtype="<i4") if os.path.getsize(path) % (4 * columns) == 0 else None
    if raw is None or raw.size == 0:
        raise NotYet(f"{path}: {os.path.getsize(path)} bytes, expected complete rows of {4 * columns}")
    return raw.reshape(-1, columns).astype(np.float64)


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read()


def _refuse_growing(path: Path) -> None:
    """Raise NotYet for a file that changed within ``QUIET_S``, FileNotFoundError for a missing one."""
    if 0 <= time.time() - path.stat().st_mtime < QUIET_S:
        raise NotYet(f"{path}: still being written")
