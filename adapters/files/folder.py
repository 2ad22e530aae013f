"""Watches a folder that a beamline fills, and reads each file as soon as it is complete."""

import fnmatch
import hashlib
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...agent.types import Document, Reason, get_logger
from ..formats import Columns, FileSpectrum, SpectrumFileError, flaw, read_spectra
from .conversion import RunComposer, moment_of

log = get_logger()

IGNORED_SUFFIXES = (".tmp", ".part", ".partial", ".swp", ".lock", "~", ".jsonl", ".msgpack")
"""Suffixes of files being copied or edited, and of documents."""
SETTLE_PAUSES = 3.0
"""Factor by which the rest of a file that grows point by point must exceed the time between its points."""
MAX_PAUSE_SETTLE_S = 60.0
"""Upper limit of this rest, s; ``settle_s`` may be longer."""

_OF_FILE = "file "
"""Beginning of the key of a file's position."""

State = tuple[int, int, int]
"""Inode, size in bytes, and time of the last change in ns."""


@dataclass(slots=True)
class _Seen:
    state: State
    since: float
    """Time since which the state is unchanged, s."""
    rested: float = 0.0
    """Duration for which the file was unchanged before it last grew, s."""
    pause: float = 0.0
    """Shorter of the last two such durations, s, so that a file written in two parts causes no long wait."""
    early: bool = False
    """Whether the file was already in this state at the first poll."""
    processed: bool = False
    """Whether the file was read or refused in this state."""
    yielded: frozenset[bytes] = frozenset()
    """Digests of the file's spectra when it was last yielded."""
    before: frozenset[bytes] = frozenset()
    """Digests of its spectra when it was yielded before that."""
    new: list[bytes] = field(default_factory=list)
    """Digests of the spectra that were new then, in order."""
    waits: str = ""
    """Why the watch waits for the file; empty once it is read."""


class FolderWatch:
    """The state of a folder's files.

    A file is complete if it has not changed for ``settle_s``, or for ``SETTLE_PAUSES`` times the pause between its
    points, and if it can be read to its end: no spectrum ends early, and at least one has enough points. An
    incomplete file waits until it changes; a file that cannot be opened is tried again. If a file changes, only its
    new spectra, such as an appended scan, are yielded. A renamed file is not yielded again.

    Parameters
    ----------
    folder : str or Path
    pattern : str
        Shell pattern of file names; hidden and temporary files are ignored.
    settle_s : float
        Time for which a file must be unchanged, s.
    columns : mapping, optional
        Columns by role, as for :func:`read_spectra`.
    """

    def __init__(
        self, folder: str | Path, *, pattern: str = "*", settle_s: float = 2.0, columns: Columns | None = None
    ) -> None:
        self.folder = Path(folder)
        self._pattern, self._settle, self._columns = pattern, settle_s, columns
        self._seen: dict[str, _Seen] = {}
        self._polled = False

    def poll(self, now: float) -> Iterator[tuple[Path, list[FileSpectrum]]]:
        """Yield the files that have become complete, the oldest first, with their new spectra.

        Parameters
        ----------
        now : float
            Time of a monotonic clock, s.

        Raises
        ------
        SpectrumFileError
            The folder cannot be read.
        """
        states = self._states()
        early, self._polled = not self._polled, True
        moved = {seen.state: name for name, seen in self._seen.items() if states.get(name) != seen.state}
        for name, state in sorted(states.items(), key=lambda item: (item[1][2], item[0])):
            seen = self._seen.get(name)
            if seen is None and (before := moved.get(state)) in self._seen:
                seen = self._seen[name] = self._seen.pop(before)
            elif seen is None:
                seen = self._seen[name] = _Seen(state, now, early=early)
            elif seen.state != state:
                grown = seen.state[0] == state[0] and seen.state[1] < state[1]
                rested = now - seen.since if grown else 0.0
                seen = self._seen[name] = _Seen(state, now, rested, min(rested, seen.rested), yielded=seen.yielded)
            settle = max(self._settle, min(SETTLE_PAUSES * seen.pause, MAX_PAUSE_SETTLE_S))
            if not seen.processed and now - seen.since >= settle:
                seen.processed = True
                if spectra := self._new(self.folder / name, seen, now):
                    yield self.folder / name, spectra

    def age_s(self, name: str) -> float:
        """Return the age, s, of a file that was present at the first poll; 0 for a file that came later."""
        seen = self._seen[name]
        return max(0.0, time.time() - seen.state[2] / 1e9) if seen.early else 0.0

    def state(self, name: str, processed: int) -> list[Any]:
        """Return the state of a file for :meth:`restore`, after ``processed`` of its new spectra were processed."""
        seen = self._seen[name]
        digests = [digest.hex() for digest in (*seen.before, *seen.new[:processed])]
        return [seen.state, digests, processed == len(seen.new)]

    def restore(self, name: str, state: Sequence[Any]) -> None:
        """Treat a file as processed as far as another watch had processed it."""
        (inode, size, changed), digests, complete = state
        yielded = frozenset(map(bytes.fromhex, digests))
        self._seen[name] = _Seen((inode, size, changed), 0.0, early=True, processed=complete, yielded=yielded)

    @property
    def unread(self) -> dict[str, str]:
        """Names of the files that are unread in their present state, with the reasons."""
        return {
            name: seen.waits or "still being written"
            for name, seen in self._seen.items()
            if (seen.waits or not seen.processed) and (self.folder / name).exists()
        }

    def _new(self, path: Path, seen: _Seen, now: float) -> list[FileSpectrum]:
        """Return the new spectra of a file; empty if it is incomplete, which is logged."""
        try:
            spectra = read_spectra(path, columns=self._columns)
        except SpectrumFileError as error:
            if isinstance(error.__cause__, OSError):  # a locked file or a missing share: tried again without a change
                seen.processed, seen.pause, seen.since = False, now - seen.since, now
            reason = str(error).removeprefix(f"{path}: ")
            if reason != seen.waits:
                log.warning("waiting for file", file=str(path), reason=reason)
            seen.waits = reason
            return []
        broken = [note for s in spectra if not s.complete for note in s.notes]
        flaws = [flaw(s) for s in spectra]
        if broken or all(f is not None and f.reason is Reason.TOO_FEW_POINTS for f in flaws):
            seen.waits = "; ".join(broken) or str(flaws[0])
            log.info("waiting for file", file=str(path), reason=seen.waits)
            return []
        if _state(path) != seen.state:  # changed while being read; the next poll sees its new state
            seen.processed = False
            return []
        seen.waits = ""
        digests = list(map(_digest, spectra))
        seen.before, seen.yielded = seen.yielded, frozenset(digests)
        new = [pair for pair in zip(spectra, digests, strict=True) if pair[1] not in seen.before]
        seen.new = [digest for _, digest in new]
        return [spectrum for spectrum, _ in new]

    def _states(self) -> dict[str, State]:
        found: dict[str, State] = {}
        try:
            with os.scandir(self.folder) as entries:
                for entry in entries:
                    if is_ignored(entry.name) or not fnmatch.fnmatch(entry.name, self._pattern):
                        continue
                    try:
                        state = _state(entry) if entry.is_file() else None
                    except OSError:  # removed meanwhile, or a link to itself
                        continue
                    if state is not None:
                        found[entry.name] = state
        except OSError as error:
            raise SpectrumFileError(
                f"{self.folder}: {error.strerror or error}, expected a folder to watch"
            ) from error
        return found


def is_ignored(name: str) -> bool:
    """Return whether a file with this name is hidden, is being copied or edited, or contains documents."""
    return name.startswith(".") or name.lower().endswith(IGNORED_SUFFIXES)


def _state(file: Path | os.DirEntry[str]) -> State | None:
    """Return the state of a file, or None if it does not exist."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _digest(spectrum: FileSpectrum) -> bytes:
    """Return a digest of the spectrum's data and metadata that does not depend on its place in the file."""
    metadata = (spectrum.element, spectrum.edge, spectrum.sample, spectrum.title, spectrum.time, len(spectrum.mu))
    digest = hashlib.blake2b(repr(metadata).encode(), digest_size=16)
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
    """Yield each file of a folder with its spectra as soon as it is complete, until ``stop`` is set.

    If the folder becomes unreadable, such as a network share that disconnects, the function waits for it. See
    :class:`FolderWatch`.

    Parameters
    ----------
    folder, pattern, settle_s, columns
        As for :class:`FolderWatch`.
    poll_s : float
        Time between two polls, s.
    stop : threading.Event, optional
        Ends the iteration.

    Raises
    ------
    SpectrumFileError
        The folder cannot be read at the first poll.
    """
    known = FolderWatch(folder, pattern=pattern, settle_s=settle_s, columns=columns)
    return _follow(known, poll_s, stop or threading.Event())


def _follow(known: FolderWatch, poll_s: float, stop: threading.Event) -> Iterator[tuple[Path, list[FileSpectrum]]]:
    begun = logged = False
    while not stop.is_set():
        try:
            for new in known.poll(time.monotonic()):
                yield new
                if stop.is_set():
                    return
            begun, logged = True, False
        except SpectrumFileError as error:
            if not begun:
                raise
            if not logged:
                log.warning("waiting for folder", reason=str(error))
            logged = True
        stop.wait(poll_s)


def _once(known: FolderWatch) -> Iterator[tuple[Path, list[FileSpectrum]]]:
    yield from sorted(known.poll(time.monotonic()), key=lambda found: moment_of(found[1][0]))


def _position_key(name: str) -> str:
    """Return the key of a file's position, which a journal can store even if the name is no UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return f"{_OF_FILE}/{os.fsencode(name).hex()}"  # no name contains a slash
    return _OF_FILE + name


def _file_of(key: str) -> str:
    name = key.removeprefix(_OF_FILE)
    return os.fsdecode(bytes.fromhex(name[1:])) if name.startswith("/") else name


class FolderSource:
    """A Source of the documents of a folder's files, each as soon as it is complete.

    Parameters
    ----------
    folder, pattern, settle_s, poll_s, columns
        As for :func:`watch`.
    element, edge, sample : str, optional
        Values that replace those in the files.
    once : bool
        Whether to end with the files that are present now, in the order of measurement. They then count as new,
        whatever their age.

    Raises
    ------
    SpectrumFileError
        The folder does not exist.
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
        once: bool = False,
    ) -> None:
        if not Path(folder).is_dir():
            raise SpectrumFileError(f"{folder}: found no such folder, expected a folder to watch")
        self._stop = threading.Event()
        self._composer = RunComposer(element, edge, sample)
        self._watch = FolderWatch(folder, pattern=pattern, settle_s=0.0 if once else settle_s, columns=columns)
        self._once = once
        self._files = _once(self._watch) if once else _follow(self._watch, poll_s, self._stop)
        self.position: dict[str, Any] = {}
        """The open run after the latest document, as ``run``, and the processed part of its file, by file name."""
        self.age_s = 0.0
        """Age of the latest document's file, s, if it was present when the iteration began; otherwise 0."""

    def __iter__(self) -> Iterator[Document]:
        for path, spectra in self._files:
            self.age_s = 0.0 if self._once else self._watch.age_s(path.name)
            for note in dict.fromkeys(note for spectrum in spectra for note in spectrum.notes):
                log.info("read", file=str(path), note=note)
            for number, spectrum in enumerate(spectra, 1):
                for name, doc in self._composer.add(spectrum):
                    self.position = {"run": self._composer.state()}
                    if name == "event":
                        self.position[_position_key(path.name)] = self._watch.state(path.name, number)
                    yield name, doc
        for document in self._composer.finish():
            self.position = {"run": None}
            yield document

    def resume(self, position: Mapping[str, Any]) -> None:
        """Continue after the document with this position."""
        self._composer.restore(position.get("run"))
        for key, state in position.items():
            if key.startswith(_OF_FILE):
                self._watch.restore(_file_of(key), state)

    @property
    def unread(self) -> dict[str, str]:
        """Names of the unread files, with the reasons; to be read after the iteration."""
        return self._watch.unread

    def close(self) -> None:
        """End the iteration, from any thread."""
        self._stop.set()
