"""A folder that a beamline fills: its files, each once it is whole."""

import fnmatch
import hashlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...agent.types import Document, Reason, get_logger
from ..formats import Columns, FileSpectrum, SpectrumFileError, flaw, read_spectra
from .conversion import Conversion

log = get_logger()

PASSED_OVER = (".tmp", ".part", ".partial", ".swp", ".lock", "~", ".jsonl", ".msgpack")
"""Names that end so are of files being copied or edited, or of documents."""
PAUSES = 3.0
"""How many times as long as between two points a file must stand still that is written point by point."""
LONGEST_S = 60.0
"""The longest that a file must, unless ``settle_s`` is longer."""

State = tuple[int, int, int]
"""Inode, size, time of change, ns."""


@dataclass(slots=True)
class _Seen:
    state: State
    since: float
    """Since when the file has been so, s."""
    stood: float = 0.0
    """How long it had stood still when it last grew, s."""
    pause: float = 0.0
    """The shorter such time of the last two, s: a file written in two goes has no points to wait for."""
    judged: bool = False
    """Whether it was read, or refused, as it is."""
    given: frozenset[bytes] = frozenset()
    """What it held when it was last given."""
    told: str = ""
    """Why it waits."""


class FolderWatch:
    """The files of a folder, as far as they are known.

    A file is whole when it has not changed for ``settle_s``, or ``PAUSES`` times as long as it stands still between
    points, and can be read to its end: no spectrum breaks off, and one at least has the points that make a
    spectrum. One that is not waits until it changes; one that cannot be opened is tried again. Of a file that has
    changed only the spectra are given that it did not hold before: a scan that is appended, not those above it. A
    file that was only renamed is not given again.

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

    def poll(self, now: float) -> Iterator[tuple[Path, list[FileSpectrum]]]:
        """Give the files that have become whole, the oldest first.

        Args:
            now: s, on a clock that never goes back.

        Raises:
            SpectrumFileError: the folder cannot be read.
        """
        states = self._states()
        moved = {seen.state: name for name, seen in self._seen.items() if states.get(name) != seen.state}
        for name, state in sorted(states.items(), key=lambda item: (item[1][2], item[0])):
            seen = self._seen.get(name)
            if seen is None and (before := moved.get(state)) in self._seen:
                seen = self._seen[name] = self._seen.pop(before)
            elif seen is None:
                seen = self._seen[name] = _Seen(state, now)
            elif seen.state != state:
                grown = seen.state[0] == state[0] and seen.state[1] < state[1]
                stood = now - seen.since if grown else 0.0
                seen = self._seen[name] = _Seen(state, now, stood, min(stood, seen.stood), given=seen.given)
            settle = max(self._settle, min(PAUSES * seen.pause, LONGEST_S))
            if not seen.judged and now - seen.since >= settle:
                seen.judged = True
                if spectra := self._new(self.folder / name, seen, now):
                    yield self.folder / name, spectra

    def _new(self, path: Path, seen: _Seen, now: float) -> list[FileSpectrum]:
        """The spectra of a file that it did not hold before; none when it is not whole, which is logged."""
        try:
            spectra = read_spectra(path, columns=self._columns)
        except SpectrumFileError as error:
            if isinstance(error.__cause__, OSError):  # locked, not readable, a share that is away: without a change
                seen.judged, seen.pause, seen.since = False, now - seen.since, now
            if str(error) != seen.told:
                log.warning("file waits", file=str(path), because=str(error))
            seen.told = str(error)
            return []
        broken = [note for s in spectra if not s.complete for note in s.notes]
        flaws = [flaw(s) for s in spectra]
        if broken or all(f is not None and f.reason is Reason.TOO_FEW_POINTS for f in flaws):
            log.info("file waits", file=str(path), because="; ".join(broken) or str(flaws[0]))
            return []
        if _state(path) != seen.state:  # written to while it was read: it will come up with its new state
            return []
        before, seen.given = seen.given, frozenset(map(_digest, spectra))
        return [spectrum for spectrum in spectra if _digest(spectrum) not in before]

    def _states(self) -> dict[str, State]:
        found: dict[str, State] = {}
        try:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    skipped = entry.name.startswith(".") or entry.name.lower().endswith(PASSED_OVER)
                    if skipped or not fnmatch.fnmatch(entry.name, self._pattern):
                        continue
                    try:
                        state = _state(entry) if entry.is_file() else None
                    except OSError:  # gone in between, or a link to itself
                        continue
                    if state is not None:
                        found[entry.name] = state
        except OSError as error:
            raise SpectrumFileError(
                f"{self.folder}: {error.strerror or error}, expected a folder to watch"
            ) from error
        return found


def _state(file: Path | os.DirEntry[str]) -> State | None:
    """None where the file is gone."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _digest(spectrum: FileSpectrum) -> bytes:
    """Tells a spectrum from every other by what it says, wherever in its file it stands."""
    about = (spectrum.element, spectrum.edge, spectrum.sample, spectrum.title, spectrum.time, len(spectrum.mu))
    digest = hashlib.blake2b(repr(about).encode(), digest_size=16)
    for column in (spectrum.energy, spectrum.mu, spectrum.reference):
        digest.update(b"" if column is None else column.tobytes())
    return digest.digest()


def watch(
    folder: str | Path,
    *,
    pattern: str = "*",
    settle_s: float = 2.0,
    poll_s: float = 0.5,
    columns: Columns | None = None,
    stop: threading.Event | None = None,
) -> Iterator[tuple[Path, list[FileSpectrum]]]:
    """Give each file of a folder, with its spectra, once it is whole, until ``stop`` is set; see ``FolderWatch``.

    A folder that cannot be read any more, such as one of a share that is away, is waited for.

    Args:
        settle_s: how long a file must have stayed as it is, s.
        poll_s: time between two looks, s.

    Raises:
        SpectrumFileError: the folder cannot be read at first.
    """
    known, stop = FolderWatch(folder, pattern=pattern, settle_s=settle_s, columns=columns), stop or threading.Event()
    begun = told = False
    while not stop.is_set():
        try:
            for found in known.poll(time.monotonic()):
                yield found
                if stop.is_set():
                    return
            begun, told = True, False
        except SpectrumFileError as error:
            if not begun:
                raise
            if not told:
                log.warning("folder waited for", because=str(error))
            told = True
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
