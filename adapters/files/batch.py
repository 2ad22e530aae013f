"""The files that a command reads: those of folders and patterns, each on its own."""

import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..formats import Columns, FileSpectrum, SpectrumFileError, read_spectra
from .folder import is_ignored


def expand(paths: Iterable[Path]) -> list[Path]:
    """Return the files that the user names: files, the files of folders, and those that match a shell pattern.

    Raises
    ------
    SpectrumFileError
        A folder contains no file of spectra, or no file matches a pattern.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.is_file() and not is_ignored(file.name))
        elif not path.exists() and glob.has_magic(str(path)):
            found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
        else:
            found = [path]
        if not found:
            raise SpectrumFileError(f"{path}: found no files, expected files of spectra")
        files += found
    return files


def read_all(
    files: Sequence[Path], columns: Columns | None = None, refused: list[SpectrumFileError] | None = None
) -> Iterator[tuple[Path, list[FileSpectrum]]]:
    """Yield each file with its spectra, in the given order.

    Parameters
    ----------
    files : sequence of Path
    columns : mapping, optional
        As for :func:`read_spectra`.
    refused : list of SpectrumFileError, optional
        Gets the error of each file that cannot be read; the other files are read nevertheless. Without it, the first
        error is raised.

    Raises
    ------
    SpectrumFileError
        A file cannot be read, or with ``refused``: none of the files.
    """
    failed: list[SpectrumFileError] = []
    for path in files:
        try:
            spectra = read_spectra(path, columns=columns)
        except SpectrumFileError as error:
            if refused is None:
                raise
            failed.append(error)
            refused.append(error)
        else:
            yield path, spectra
    if failed and len(failed) == len(files):
        raise SpectrumFileError("\n".join(map(str, failed)))
