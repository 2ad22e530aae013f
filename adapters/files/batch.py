"""Reads the files of a command, including those of folders and patterns, independently of each other."""

import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..formats import Columns, FileSpectrum, SpectrumFileError, read_spectra
from .folder import is_ignored

_NAMED = 3
"""Number of files that a message lists."""


@dataclass(slots=True)
class Batch:
    """The failures in a command's files."""

    refused: dict[Path, SpectrumFileError] = field(default_factory=dict)
    """Errors of the files that cannot be read."""
    interrupted: bool = False
    """Whether Ctrl-C ended the work early."""


def expand(paths: Iterable[Path]) -> list[Path]:
    """Return the files that the user names: files, files in folders, and files that match a shell pattern.

    Subfolders are not searched. A link without a target and a pipe count as files, so that they are refused with
    their reason.

    Raises
    ------
    SpectrumFileError
        A folder contains no file of spectra or cannot be read, or no file matches a pattern.
    """
    files: list[Path] = []
    for path in paths:
        try:
            if path.is_dir():
                found = sorted(file for file in path.iterdir() if not file.is_dir() and not is_ignored(file.name))
            elif not path.exists() and glob.has_magic(str(path)):
                found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if not Path(name).is_dir())
            else:
                found = [path]
        except OSError as error:
            raise SpectrumFileError(f"{path}: {error.strerror or error}, expected files of spectra") from error
        if not found:
            raise SpectrumFileError(f"{path}: found no files, expected files of spectra")
        files += found
    return files


def read_all(
    files: Sequence[Path], columns: Columns | None = None, batch: Batch | None = None
) -> Iterator[tuple[Path, list[FileSpectrum]]]:
    """Yield each file with its spectra, in the given order.

    Parameters
    ----------
    files : sequence of Path
    columns : mapping, optional
        As for :func:`read_spectra`.
    batch : Batch, optional
        Collects the errors of unreadable files; the other files are read. Without it, the first error is raised.

    Raises
    ------
    SpectrumFileError
            A file cannot be read; with ``batch``, no file can be read.
    """
    good = False
    for path in files:
        try:
            spectra = read_spectra(path, columns=columns)
        except SpectrumFileError as error:
            if batch is None:
                raise
            batch.refused[path] = error
        else:
            good = True
            yield path, spectra
    if batch is not None and batch.refused and not good:
        raise SpectrumFileError("\n".join(reasons_of(batch.refused)))


def file_names(files: Sequence[Path]) -> dict[str, str]:
    """Return the name of each file by its path; the folder is added if several files have the same name.

    >>> file_names([Path("day1/NiO.dat"), Path("day2/NiO.dat"), Path("day2/CoO.dat")])
    {'day1/NiO.dat': 'day1/NiO.dat', 'day2/NiO.dat': 'day2/NiO.dat', 'day2/CoO.dat': 'CoO.dat'}
    """
    folders: dict[str, set[Path]] = {}
    for path in files:
        folders.setdefault(path.name, set()).add(path.parent)
    return {str(path): path.name if len(folders[path.name]) == 1 else str(path) for path in files}


def reasons_of(refused: Mapping[Path, SpectrumFileError]) -> list[str]:
    """Return a line for each reason, with the files that it applies to.

    >>> error = SpectrumFileError("a.txt: found an empty file")
    >>> reasons_of({Path("a.txt"): error, Path("b.txt"): SpectrumFileError("b.txt: found an empty file")})
    ['a.txt, b.txt: found an empty file']
    """
    return by_reason((str(path), str(error).removeprefix(f"{path}: ")) for path, error in refused.items())


def by_reason(reasons: Iterable[tuple[str, str]]) -> list[str]:
    """Return a line for each reason, with the first names that it applies to and the number of the others.

    >>> by_reason([(name, "found an empty file") for name in "abcde"])
    ['a, b, c and 2 more: found an empty file']
    """
    names: dict[str, list[str]] = {}
    for name, reason in reasons:
        names.setdefault(reason, []).append(name)
    return [f"{_listed(concerned)}: {reason}" for reason, concerned in names.items()]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
