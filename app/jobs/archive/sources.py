"""Divides the sources of a backfill into pieces, in the same order at every call."""

import glob
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ....adapters.errors import EndpointUnreachable
from ....adapters.files import DOCUMENT_SUFFIXES, is_ignored
from ....adapters.formats import Columns, SpectrumFileError, parquet_rows
from ....adapters.tiled import SCHEMES, TiledEndpoint
from ....agent.types import get_logger, validate_settings
from .work import ABOUT, PART_ROWS, Piece

_log = get_logger()

_BYTES_PER_SPECTRUM = 16_384
"""Size of a spectrum in a file, bytes, from which the number of spectra of a file is estimated."""
_DOCUMENTS_PER_SPECTRUM = 100
"""Documents of a run that count as one spectrum: between one (fly scan) and some hundred (step scan)."""
_PARQUET = (".parquet", ".pq")


class Sources:
    """Files, folders with their subfolders, shell patterns and Tiled catalogues.

    Parameters
    ----------
    given : sequence of str
        Sources as the user names them.
    part_rows : int
        Largest number of rows of a table in one piece.
    endpoint : TiledEndpoint, optional
        Settings for catalogues; the URI is replaced.
    columns : mapping, optional
        As for :func:`read_spectra`; a table without these columns is one piece.
    """

    def __init__(
        self,
        given: Sequence[str],
        part_rows: int = PART_ROWS,
        endpoint: TiledEndpoint | None = None,
        columns: Columns | None = None,
    ) -> None:
        self._given, self._part_rows, self._endpoint, self._columns = given, part_rows, endpoint, columns

    def __iter__(self) -> Iterator[Piece]:
        """Yield the pieces; the memory needed does not depend on the number of files.

        Raises
        ------
        SpectrumFileError
            A source is missing, or contains no file.
        EndpointUnreachable
            A catalogue does not answer.
        """
        for number, source in enumerate(self._given):
            if source in self._given[:number]:
                continue
            if is_catalogue(source):
                yield from self._runs(source)
            else:
                yield from self._of_path(source, [s for s in self._given[:number] if not is_catalogue(s)])

    def _of_path(self, source: str, earlier: Sequence[str]) -> Iterator[Piece]:
        """Yield the pieces of a path, except for files that earlier sources contain."""
        if not source:
            raise SpectrumFileError("found an empty source, expected a file, folder, pattern or catalogue")
        path, count = Path(os.path.abspath(source)), 0
        had = [(Path(os.path.abspath(one)), Path(one).is_dir()) for one in earlier]
        for file in _files(path):
            count += 1
            if _is_link_within(path, file):
                continue  # the file occurs under its own name
            if not any(_has(one, file) if is_folder else _matches(one, file) for one, is_folder in had):
                yield from self._of_file(file)
        if not count:
            raise SpectrumFileError(f"{source}: found no files, expected files of spectra")

    def _of_file(self, path: Path) -> Iterator[Piece]:
        try:
            status = path.stat()
        except OSError:  # the worker reports why it cannot be read
            yield Piece("file", str(path))
            return
        state = f"{status.st_size} {status.st_mtime_ns}"
        if path.suffix.lower() in DOCUMENT_SUFFIXES:
            yield Piece("documents", str(path), state, weight=_weight(status.st_size))
            return
        rows = 0
        if path.suffix.lower() in _PARQUET:
            with suppress(SpectrumFileError):  # the worker reports this too
                rows = parquet_rows(path, self._columns)
        for first in range(0, rows, self._part_rows):
            stop = min(first + self._part_rows, rows)
            yield Piece("rows", str(path), state, first, stop, stop - first)
        if not rows:
            yield Piece("file", str(path), state, weight=_weight(status.st_size))

    def _runs(self, uri: str) -> Iterator[Piece]:
        endpoint = endpoint_of(uri, self._endpoint)
        catalogue = open_catalogue(endpoint)
        try:
            for key, run in catalogue.sort(("start.time", 1)).items():
                start, stop = run.metadata.get("start") or {}, run.metadata.get("stop") or {}
                if start.get("xas_agent"):
                    continue  # answers of an agent
                if not stop:
                    _log.warning("run without a stop is left out", run=key, catalogue=uri)
                    continue
                events = sum(count for count in (stop.get("num_events") or {}).values())
                weight = max(1, events // _DOCUMENTS_PER_SPECTRUM)
                yield Piece("run", f"{uri.rstrip('/')}/{key}", str(stop.get("uid", "")), weight=weight)
        except Exception as error:  # httpx and Tiled raise many types
            raise EndpointUnreachable(uri, f"runs not listed: {type(error).__name__}: {error}"[:300]) from None
        finally:
            catalogue.context.http_client.close()


def is_catalogue(source: str) -> bool:
    """Return whether a source is the URI of a Tiled catalogue."""
    scheme, sign, _ = source.partition("://")
    return bool(sign) and scheme in SCHEMES


def endpoint_of(uri: str, like: TiledEndpoint | None) -> TiledEndpoint:
    """Return the endpoint of a catalogue with the settings of another endpoint.

    Raises
    ------
    InputError
        The URI contains a key, or is not a URI.
    """
    content = {} if like is None else like.model_dump(exclude_unset=True)
    return validate_settings({**content, "uri": uri}, TiledEndpoint, "source")


def open_catalogue(endpoint: TiledEndpoint) -> Any:
    """Return Tiled's client of a catalogue.

    Raises
    ------
    EndpointUnreachable
        The catalogue does not answer within ``connect_timeout_s``.
    InputError
        The client is not installed.
    """
    endpoint.require_client()
    endpoint.wait(endpoint.connect_timeout_s, threading.Event())
    try:
        return endpoint.open()
    except Exception as error:  # httpx and Tiled raise many types of exception
        raise EndpointUnreachable(endpoint.uri, f"{type(error).__name__}: {error}"[:300]) from None


def _files(path: Path) -> Iterator[Path]:
    """Yield the files of a path in the order of their names; a folder's own files precede those of its subfolders."""
    if path.is_dir():
        yield from _of_folder(path)
    elif not path.exists() and glob.has_magic(str(path)):
        for name in sorted(glob.glob(str(path), recursive=True)):
            if not os.path.isdir(name):
                yield Path(name)
    elif path.exists() or path.is_symlink():
        yield path
    else:
        raise SpectrumFileError(f"{path}: No such file or directory, expected files of spectra")


def _of_folder(folder: Path) -> Iterator[Path]:
    """Yield the files of a folder, except hidden files, files still being copied, and documents.

    Links to folders are not followed, since they may form loops. Results of a backfill are not sources.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted((entry.name, _is_folder(entry), entry.is_symlink()) for entry in entries)
    except OSError as error:
        raise SpectrumFileError(f"{folder}: {error.strerror or error}, expected files of spectra") from error
    if any(name == ABOUT for name, *_ in found):
        return
    for name, is_folder, _ in found:
        if not is_folder and not is_ignored(name):
            yield folder / name
    for name, is_folder, is_link in found:
        if is_folder and not is_link and not name.startswith("."):
            if os.access(folder / name, os.R_OK | os.X_OK):
                yield from _of_folder(folder / name)
            else:
                _log.warning("folder not read", folder=str(folder / name), detail="found one without permission")


def _is_link_within(folder: Path, file: Path) -> bool:
    """Return whether a file links to another one that :func:`_files` yields from the same folder."""
    if file == folder or not file.is_symlink():
        return False
    target = Path(os.path.realpath(file))
    try:
        parts = target.relative_to(os.path.realpath(folder)).parts
    except ValueError:
        return False
    hidden = any(part.startswith(".") for part in parts)  # such as the contents of git-annex
    alike = target.suffix.lower() == file.suffix.lower()  # a store's name may have another suffix
    return alike and os.path.isfile(target) and not hidden and not is_ignored(target.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder; a link to itself, which cannot be followed, is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _has(folder: Path, file: Path) -> bool:
    """Return whether a folder's own files, as :func:`_of_folder` finds them, include this one."""
    if not file.is_relative_to(folder):
        return False
    *folders, name = file.relative_to(folder).parts
    return not is_ignored(name) and not any(part.startswith(".") for part in folders)


def _matches(pattern: Path, file: Path) -> bool:
    """Return whether a path or a shell pattern matches a file."""
    return file == pattern or (not pattern.exists() and str(file) in glob.glob(str(pattern), recursive=True))


def _weight(size: int) -> int:
    return max(1, size // _BYTES_PER_SPECTRUM)
