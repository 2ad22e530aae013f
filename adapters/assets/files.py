"""External files of documents: their location, their completeness, and the arrays in them.

The handlers have the interface of event-model's ``Filler``: ``handler(path, inside=…, **resource_kwargs)`` returns a
callable of ``**datum_kwargs``. They open the file at each call and cache nothing, because the file may still grow. A
missing file, dataset or row raises NotYet, an ``OSError`` as the Filler expects; every lasting error raises
AssetRefused.
"""

import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...agent.types import Settings
from .hdf5 import Inside, rows_of
from .opening import AssetRefused, NotYet, content

QUIET_S = 0.2
"""Time without a change after which a file without an announced number of rows counts as complete, s."""
_APB_TICK_NS = 8.0051232
"""Clock period of the analog pizza box, ns."""
_APB_COLUMNS = 10
"""32-bit integers per row of the analog pizza box's file: eight channels, seconds, clock ticks."""
_TRIGGER_COLUMNS = 3
"""32-bit integers per row of the trigger file: level, seconds, clock ticks."""
_MAX_TEXT_BYTES = 32 * 2**20
"""Largest size of a text file, bytes; numpy needs ten times as much to read it."""


class AssetSettings(Settings):
    """Location and reading of external files."""

    wait_s: float = Field(default=10.0, ge=0)
    """Longest delay of a file after its documents, s; then a frame that needs the file is set aside. Other runs
    continue meanwhile."""
    read_s: float = Field(default=5.0, gt=0)
    """Longest time of one read, s. A longer read is abandoned, for example if a file server hangs."""
    path_map: Mapping[str, str] = {}
    """Folders on this machine, by the beginnings of the paths in the documents; the longest match applies."""
    roots: tuple[str, ...] = ()
    """Folders of the data on this machine. Only regular files inside them are read, after symbolic links and links
    within HDF5 are followed. Unset: no file named in a document is read. Links in the names of the folders themselves
    are followed once, at the first read."""

    def locate(self, address: str) -> Path:
        """Return the file on this machine for a path or ``file:`` URI in a document.

        Raises
        ------
        AssetRefused
            The URI has another scheme, ``roots`` is not set, or the path lies outside them or is not a regular file.
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
        return self.inside(Path(path))

    def inside(self, path: Path) -> Path:
        """Return the resolved path; raise AssetRefused if it lies outside ``roots`` or is no regular file."""
        if not self.roots:
            raise AssetRefused(
                f"{path}: not read, because assets.roots is not set; name the folders of the data there"
            )
        resolved = path.resolve()
        if not any(resolved.is_relative_to(root) for root in self._resolved_roots):
            raise AssetRefused(f"{resolved}: outside of assets.roots")
        if resolved.exists() and not resolved.is_file():  # to open a pipe may block
            raise AssetRefused(f"{resolved}: not a regular file")
        return resolved

    @cached_property
    def _resolved_roots(self) -> tuple[Path, ...]:
        return tuple(Path(root).resolve() for root in self.roots)


class AreaDetectorHDF5:
    """Handler of areaDetector files: the frame of one point or, for several frames per point, all of them, (n, …)."""

    def __init__(
        self,
        path: Path,
        frame_per_point: int = 1,
        dataset: str = "/entry/data/data",
        *,
        inside: Inside = Path.resolve,
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

    def __init__(self, path: Path, key: str = "entry/data/data", *, inside: Inside = Path.resolve, **_: Any) -> None:
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
        return rows_of(self._path, dataset, 0, None, self._inside)


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
        text = content(self._path, _MAX_TEXT_BYTES)
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
    raw = content(path)
    if len(raw) % (4 * columns) or not raw:
        raise NotYet(f"{path}: {len(raw)} bytes, expected complete rows of {4 * columns}")
    return np.frombuffer(raw, dtype="<i4").reshape(-1, columns).astype(np.float64)


def _refuse_growing(path: Path) -> None:
    """Raise NotYet if a file changed within ``QUIET_S``, FileNotFoundError if it is missing."""
    if 0 <= time.time() - path.stat().st_mtime < QUIET_S:
        raise NotYet(f"{path}: still being written")
