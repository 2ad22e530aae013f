"""A folder that a beamline fills: its files, each once it is whole."""

import fnmatch
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from ..agent.frame import Document
from .conversion import Conversion
from .formats import Columns, Spectrum, SpectrumFileError, flaw, read_spectra

log = structlog.get_logger(__name__)

UNFINISHED = (".tmp", ".part", ".partial", ".swp", ".lock", "~")
"""Names that end so are of files being copied or edited."""


@dataclass(slots=True)
class _Seen:
    state: tuple[int, int, int]
    """Inode, size, time of change, ns."""
    since: float
    """Since when the file has been so, s."""
    judged: bool = False
    """Whether it was read, or refused, as it is."""


class FolderWatch:
    """The files of a folder, as far as they are known.

    A file is whole when it has not changed for ``settle_s`` and can be read to its end: no spectrum breaks off, and
    one at least has the points that make a spectrum. One that is not waits until it changes. A file is given again
    when it has changed.

    Args:
        pattern: names to look at, as a shell has them; hidden files and those in the making are passed over.
        columns: as ``read_spectra`` takes them.
    """

    def __init__(
        self, folder: str | Path, *, pattern: str = "*", settle_s: float = 2.0, columns: Columns | None = None
    ) -> None:
        self.folder = Path(folder)
        self._pattern, self._settle, self._columns = pattern, settle_s, columns
        self._seen: dict[str, _Seen] = {}

    def poll(self, now: float) -> Iterator[tuple[Path, list[Spectrum]]]:
        """Give the files that have become whole, the oldest first.

        Args:
            now: s, on a clock that never goes back.

        Raises:
            SpectrumFileError: the folder cannot be read.
        """
        states = self._states()
        self._seen = {name: seen for name, seen in self._seen.items() if name in states}
        for name, state in sorted(states.items(), key=lambda item: (item[1][2], item[0])):
            seen = self._seen.get(name)
            if seen is None or seen.state != state:
                seen = self._seen[name] = _Seen(state, now)
            if not seen.judged and now - seen.since >= self._settle:
                seen.judged = True
                if spectra := self._whole(self.folder / name, state):
                    yield self.folder / name, spectra

    def _whole(self, path: Path, state: tuple[int, int, int]) -> list[Spectrum]:
        """The spectra of a file; none when it is not whole, which is logged once for each state of it."""
        try:
            spectra = read_spectra(path, columns=self._columns)
        except SpectrumFileError as error:
            log.info("file waits", file=str(path), because=str(error))
            return []
        broken = [note for s in spectra if not s.complete for note in s.notes]
        if broken or all((flaw(s) or "").startswith("too few points") for s in spectra):
            log.info("file waits", file=str(path), because="; ".join(broken) or flaw(spectra[0]))
            return []
        # Written to while it was read: it will come up with its new state.
        return spectra if self._states().get(path.name) == state else []

    def _states(self) -> dict[str, tuple[int, int, int]]:
        found = {}
        try:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    skipped = entry.name.startswith(".") or entry.name.lower().endswith(UNFINISHED)
                    if skipped or not fnmatch.fnmatch(entry.name, self._pattern):
                        continue
                    try:
                        if entry.is_file():
                            status = entry.stat()
                            found[entry.name] = (status.st_ino, status.st_size, status.st_mtime_ns)
                    except OSError:  # gone in between
                        continue
        except OSError as error:
            raise SpectrumFileError(
                f"{self.folder}: {error.strerror or error}, expected a folder to watch"
            ) from error
        return found


def watch(
    folder: str | Path,
    *,
    pattern: str = "*",
    settle_s: float = 2.0,
    poll_s: float = 0.5,
    columns: Columns | None = None,
    stop: threading.Event | None = None,
) -> Iterator[tuple[Path, list[Spectrum]]]:
    """Give each file of a folder, with its spectra, once it is whole, until ``stop`` is set; see ``FolderWatch``.

    Args:
        settle_s: how long a file must have stayed as it is, s.
        poll_s: time between two looks, s.

    Raises:
        SpectrumFileError: the folder cannot be read.
    """
    known, stop = FolderWatch(folder, pattern=pattern, settle_s=settle_s, columns=columns), stop or threading.Event()
    while not stop.is_set():
        for found in known.poll(time.monotonic()):
            yield found
            if stop.is_set():
                return
        stop.wait(poll_s)


class FolderSource:
    """The files of a folder as documents, each once it is whole; the agent's Source.

    Args:
        folder, pattern, settle_s, poll_s, columns: as ``watch`` takes them.
        element, edge, sample: over what the files say.

    Raises:
        SpectrumFileError: there is no such folder.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        element: str | None = None,
        edge: str | None = None,
        sample: str | None = None,
        pattern: str = "*",
        settle_s: float = 2.0,
        poll_s: float = 0.5,
        columns: Columns | None = None,
    ) -> None:
        if not Path(folder).is_dir():
            raise SpectrumFileError(f"{folder}: found no such folder, expected one to watch")
        self._stop = threading.Event()
        self._conversion = Conversion(element, edge, sample)
        self._found = watch(
            folder, pattern=pattern, settle_s=settle_s, poll_s=poll_s, columns=columns, stop=self._stop
        )

    def __iter__(self) -> Iterator[Document]:
        for path, spectra in self._found:
            for note in dict.fromkeys(note for spectrum in spectra for note in spectrum.notes):
                log.info("read", file=str(path), note=note)
            for spectrum in spectra:
                yield from self._conversion.take(spectrum)
        yield from self._conversion.finish()

    def close(self) -> None:
        """End the iteration, from any thread."""
        self._stop.set()
