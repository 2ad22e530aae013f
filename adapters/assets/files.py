"""The files that documents point to: where they are, whether they are whole, and the arrays in them.

Handlers are those of event-model's ``Filler``: ``handler(path, inside=…, **resource_kwargs)(**datum_kwargs)``. They
open the file at each call and keep nothing of it, since it may still be growing. A file, dataset or row that is not
there yet raises NotYet, an ``OSError`` as the Filler expects it; what waiting cannot mend raises AssetRefused.
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
"""A file without rows of a known number is whole once it has not been written to for so long."""
APB_TICK_NS = 8.0051232
"""Nanoseconds per count of the analog pizza-box's clock."""
_APB_COLUMNS = 10
"""32-bit integers per row of its file: eight channels, seconds, ticks."""

Inside = Callable[[Path], Any]
"""Raises AssetRefused for a path that may not be read."""


class NotYet(OSError):  # noqa: N818  says what happened
    """Not there yet, or not whole."""

    def __init__(self, why: str, rows: int = 0) -> None:
        super().__init__(why)
        self.rows = rows
        """How many rows of a dataset are there already."""


class AssetRefused(Exception):  # noqa: N818  says what happened
    """Cannot be read however long one waits; the message says why."""


class AssetSettings(Settings):
    """How the files that documents point to are found and read."""

    wait_s: float = Field(default=10.0, ge=0)
    """How long a file may lag behind its documents, s; after it the frame that needs the file is set aside. Other
    runs continue meanwhile."""
    path_map: Mapping[str, str] = {}
    """Folders of the beamline, by the start of their paths, and where they are on this machine; the longest match
    counts."""
    roots: tuple[str, ...] = ()
    """Only files within these folders are read, after following symbolic links and links within HDF5. Empty: any file
    that this process may read; set it wherever untrusted senders can publish documents."""

    def locate(self, where: str) -> Path:
        """Return the file of this machine that a path or ``file:`` URI means.

        Raises AssetRefused for other URIs, what is no file, and outside ``roots``.
        """
        path = where
        if "://" in where or where.startswith("file:"):
            uri = urlparse(where)
            if uri.scheme != "file":
                raise AssetRefused(f"{where}: a {uri.scheme} URI; only files are read")
            path = unquote(uri.path)
        for begin in sorted(self.path_map, key=len, reverse=True):
            stem = begin.rstrip("/")
            if path == stem or path.startswith(f"{stem}/"):
                path = self.path_map[begin].rstrip("/") + path.removeprefix(stem)
                break
        found = self.inside(Path(path))
        if found.exists() and not found.is_file():  # to open a pipe may take for ever
            raise AssetRefused(f"{found}: not a file")
        return found

    def inside(self, path: Path) -> Path:
        """Return where a path leads. Raises AssetRefused outside ``roots``."""
        if not self.roots:
            return path
        found = path.resolve()
        if not any(found.is_relative_to(Path(root).resolve()) for root in self.roots):
            raise AssetRefused(f"{found}: outside of assets.roots")
        return found


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open an HDF5 file that its writer may still have open; without locks, since nothing is written."""
    try:
        import h5py
    except ImportError:
        raise AssetRefused("reading HDF5 needs h5py: pip install 'xas-agent[formats]'") from None
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:  # missing, empty, its header not flushed yet, or open to a writer in SWMR mode
        try:
            file = h5py.File(path, "r", locking=False, swmr=True)
        except OSError:
            raise NotYet(f"{path}: {' '.join(str(error).split())[:160]}") from None
    with file:
        yield file


def rows_of(path: Path, dataset: str, start: int, stop: int, inside: Inside | None = None) -> NDArray[Any]:
    """Return rows ``start`` to ``stop`` of a dataset, (stop − start, …). Raises NotYet, AssetRefused.

    ``inside`` refuses files outside of where what it is made of may be.
    """
    with opened(path) as file:
        data = _dataset(file, path, dataset, inside)
        length = data.shape[0] if data.shape else 0
        if length < stop:
            raise NotYet(f"{path}: {dataset} has {length} rows, {stop} are announced", length)
        try:
            return np.asarray(data[start:stop])
        except OSError as error:  # a chunk that is allocated, but not written
            raise NotYet(f"{path}: {dataset}: {error}") from None


def _dataset(file: Any, path: Path, name: str, inside: Inside | None) -> Any:
    """Return a dataset of which all is there and may be read."""
    try:
        data = file.get(name)
    except OSError as error:  # a link to a file that is not whole
        raise NotYet(f"{path}: {name}: {error}") from None
    if not hasattr(data, "shape"):
        raise NotYet(f"{path}: no dataset {name!r} in it")
    if missing := missing_source(data):
        raise NotYet(f"{path}: {name} is made of {missing}, which is not there")
    if inside is not None:
        _keep_inside(data, inside)
    return data


def _keep_inside(data: Any, inside: Inside, depth: int = 5) -> None:
    """Raise AssetRefused where an HDF5 link, or a part of a virtual dataset, leads outside."""
    if not depth:
        raise AssetRefused(f"{data.file.filename}: {data.name} is made of others too deep to follow")
    inside(Path(data.file.filename))
    for path, name in sources(data):
        inside(path)
        if "%" in f"{path.name}{name}":
            raise AssetRefused(f"{path}: a series of files, which cannot be held against assets.roots")
        if name:
            with opened(path) as file:
                if hasattr(part := file.get(name), "shape"):
                    _keep_inside(part, inside, depth - 1)


class AreaDetectorHDF5:
    """One point's frames of an areaDetector file; of several frames per point, all (n, …)."""

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
    """Of an Xspress3 file one spectrum (``frame``, ``channel``), or the counts in a region over all frames.

    The regions are the attributes ``CHANnROIm`` that its IOC writes; at ISS a datum asks for one with
    ``data_type="roi"``, in fly scans at BMM without a frame for all of a channel's spectra.
    """

    def __init__(self, path: Path, key: str = "entry/data/data", inside: Inside | None = None, **_: Any) -> None:
        self._path, self._key, self._inside = path, key, inside

    def __call__(
        self, frame: int | None = None, channel: int = 1, data_type: str = "spectrum", roi_num: int = 1, **_: Any
    ) -> NDArray[Any]:
        if data_type == "roi":
            return self._whole(f"entry/instrument/detector/NDAttributes/CHAN{channel}ROI{roi_num}").reshape(-1)
        if frame is None:
            return self._whole(self._key)[:, channel - 1]
        return rows_of(self._path, self._key, int(frame), int(frame) + 1, self._inside)[0, channel - 1]

    def _whole(self, dataset: str) -> NDArray[Any]:
        _refuse_growing(self._path)
        with opened(self._path) as file:
            return np.asarray(_dataset(file, self._path, dataset, self._inside))


class AnalogPizzaBox:
    """The electrometers' file of ISS and QAS: (M, 9) of Unix seconds and eight channels, as recorded.

    Rows of ten 32-bit integers: the channels in ADC units (µV at ISS), seconds, and ticks of 8.005 ns.
    Read after NSLS-II-ISS/xas 4a9818c, ``handlers.py``.
    """

    def __init__(self, path: Path, **_: Any) -> None:
        self._path = path

    def __call__(self, **_: Any) -> NDArray[Any]:
        raw = _binary(self._path, _APB_COLUMNS)
        seconds = raw[:, -2] + raw[:, -1] * (APB_TICK_NS * 1e-9)
        return np.column_stack([seconds, raw[:, :-2]])


class PizzaBoxTrigger:
    """Trigger edges of ISS and QAS: (M, 2) of Unix seconds and the new level."""

    def __init__(self, path: Path, **_: Any) -> None:
        self._path = path

    def __call__(self, **_: Any) -> NDArray[Any]:
        raw = _binary(self._path, 3)
        return np.column_stack([raw[:, 1] + raw[:, 2] * (APB_TICK_NS * 1e-9), raw[:, 0]])


class PizzaBoxEncoder:
    """The encoder's text file of ISS and QAS: (M, 5) of seconds, nanoseconds, counts, index, state."""

    def __init__(self, path: Path, **_: Any) -> None:
        self._path = path

    def __call__(self, **_: Any) -> NDArray[Any]:
        _refuse_growing(self._path)
        text = _content(self._path)
        if not text.endswith(b"\n"):
            raise NotYet(f"{self._path}: its last line is not whole")
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
"""By the ``spec`` of a Resource."""


def _binary(path: Path, columns: int) -> NDArray[Any]:
    _refuse_growing(path)
    raw = np.frombuffer(_content(path), dtype="<i4") if os.path.getsize(path) % (4 * columns) == 0 else None
    if raw is None or raw.size == 0:
        raise NotYet(f"{path}: {os.path.getsize(path)} bytes are no whole rows of {4 * columns}")
    return raw.reshape(-1, columns).astype(np.float64)


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read()


def _refuse_growing(path: Path) -> None:
    """Raise NotYet for a file that was written to a moment ago, FileNotFoundError for none."""
    if 0 <= time.time() - path.stat().st_mtime < QUIET_S:
        raise NotYet(f"{path}: still being written")
