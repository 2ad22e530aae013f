"""Output files of a session: documents, tables, summary, picture and log."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ...agent.types import InputError, get_logger
from .csv_table import CsvTable
from .kept import Alarm, DocumentFile, replace_file
from .log_file import LogFile
from .recorder import NAME_COLUMNS, Recorder, Truth

_log = get_logger()

DOCUMENTS, SUMMARY, PICTURE = "documents.jsonl", "summary.json", "operando.png"
TRUTH = "truth.jsonl"
"""The true values of the embedded beamline."""
_TABLES = ("descriptors.csv", "decisions.csv")
OF_DOCUMENTS = (DOCUMENTS, *_TABLES)
"""Files that are whole only if they contain all documents."""
# Without the log, to which every session in the folder adds.
_OF_A_SESSION = (*OF_DOCUMENTS, TRUTH, SUMMARY, PICTURE)
_LOCK = ".lock"
_DECISION_COLUMNS = ("time", "run_uid", *NAME_COLUMNS, "id", "rule", "action", "args", "status", "status_reason")
_DECISION_COLUMNS += ("confidence", "reason")
_WRITE_S = 2.0
"""Interval at which tables and summary are written, s."""
_FIRST_PICTURE_S, _PICTURE_S = 10.0, 60.0
"""Time from the first frame to the first picture, and least time between two, s."""
_PICTURE_SHARE = 0.02
"""Largest share of the time in which the picture is drawn."""
_HURRIED_S = 1.0
"""Longest wait for a picture in progress at a hurried end, s."""


class Tables:
    """The tables of a folder, which a recorder fills."""

    def __init__(self, folder: Path, alarm: Alarm) -> None:
        self.recorder = Recorder(self._frame, self._decision)
        descriptors, decisions = _TABLES
        self._descriptors = CsvTable(folder / descriptors, self.recorder.columns, alarm)
        self._decisions = CsvTable(folder / decisions, lambda: _DECISION_COLUMNS, alarm)

    @property
    def lost(self) -> int:
        """Number of rows that are not in the files."""
        return self._descriptors.lost + self._decisions.lost

    @property
    def not_whole(self) -> set[str]:
        """Names of the files that lack rows."""
        return {table.path.name for table in (self._descriptors, self._decisions) if table.lost}

    @property
    def dropped(self) -> int:
        """Number of rows given up."""
        return self._descriptors.dropped + self._decisions.dropped

    def write(self) -> None:
        """Write the rows that came since the last call."""
        self._descriptors.write()
        self._decisions.write()

    def close(self) -> None:
        """Write the rows that remain, among them those of decisions without a last status."""
        for row in self.recorder.unsettled():
            self._decision(row)
        self.write()
        self._descriptors.close()
        self._decisions.close()

    def _frame(self, row: dict[str, Any]) -> None:
        self._descriptors.append(row)

    def _decision(self, row: dict[str, Any]) -> None:
        self._decisions.append(row)


class OutputFolder:
    """Output folder of one session, which holds it alone.

    Documents are written at once; tables, summary and picture as the session goes, on a thread.

    Parameters
    ----------
    folder : Path
        It is created unless it exists.

    Raises
    ------
    InputError
        The folder cannot be written, is in use, or contains a session.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = lock_folder(folder)
        if found := next((name for name in _OF_A_SESSION if _size(folder / name)), None):
            self._lock.release()
            raise InputError(
                f"{folder}: found {found} of an earlier session, which is never overwritten; "
                "expected a new or empty folder: name another --out, or move this one away"
            )
        self._alarm = Alarm(folder)
        self._log_file = LogFile(folder, self._alarm)
        self.documents = DocumentFile(folder / DOCUMENTS, self._alarm)
        self._tables = Tables(folder, self._alarm)
        self.recorder = self._tables.recorder
        self._summary: Callable[[], Mapping[str, Any]] = dict
        self._truth: Truth | None = None
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._cut_off: set[str] = set()
        self._drawn = 0
        """Number of frames at the last picture."""
        self._thread = threading.Thread(target=self._work, name="output", daemon=True)

    @property
    def lost(self) -> dict[str, int]:
        """Number of documents and of rows of tables that are not in the files."""
        return {"documents": self.documents.lost, "rows": self._tables.lost}

    @property
    def refused(self) -> dict[str, int]:
        """Number of documents and of rows given up and, while the disk takes nothing, of those that wait."""
        if self._alarm.broken:
            return self.lost
        return {"documents": self.documents.dropped, "rows": self._tables.dropped}

    @property
    def not_whole(self) -> list[str]:
        """Names of the files that lack something, after :meth:`finish`."""
        names = self._alarm.broken | self._tables.not_whole | self._cut_off
        if self.documents.lost:
            names.add(DOCUMENTS)
        if self._drawn < self.recorder.frames:
            names.add(PICTURE)
        return sorted(names)

    def cut_off(self, *names: str) -> None:
        """Note files whose writers were ended before they were complete."""
        self._cut_off.update(names)

    def start(self, summary: Callable[[], Mapping[str, Any]], truth: Truth | None) -> None:
        """Begin to write.

        Parameters
        ----------
        summary : callable
            Returns the contents of summary.json; called from a thread.
        truth : Truth or None
            True values, for the picture.
        """
        self._summary, self._truth = summary, truth
        self._thread.start()

    def finish(self, *, hurried: bool = False) -> None:
        """Write what remains and release the folder.

        Parameters
        ----------
        hurried : bool
            Whether to leave the picture as it was drawn last.
        """
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join(_HURRIED_S if hurried else None)
        with self._writing:
            self.documents.close()
            self._tables.close()
        if not hurried:
            self._draw()
        self._write_summary()  # after all else, since it counts what was not written
        self._log_file.close()
        self._lock.release()

    def release(self) -> None:
        """Give up the folder before a session began."""
        self.documents.close()
        self._log_file.close()
        self._lock.release()

    def _work(self) -> None:
        picture_due = float("inf")
        while not self._ended.wait(_WRITE_S):
            with self._writing:
                if self._ended.is_set():
                    return
                self.documents.flush()
                self._tables.write()
            self._log_file.retry()
            self._write_summary()
            frames, now = self.recorder.frames, time.monotonic()
            if frames and picture_due == float("inf"):
                picture_due = now + _FIRST_PICTURE_S
            if frames > self._drawn and now > picture_due:
                self._draw()
                taken = time.monotonic() - now
                picture_due = now + max(_PICTURE_S, taken / _PICTURE_SHARE)

    def _write_summary(self) -> None:
        text = json.dumps(self._summary(), indent=2) + "\n"
        self._guarded(SUMMARY, lambda new: _write_text(new, text))

    def _draw(self) -> None:
        drawn = self.recorder.drawn()
        if drawn.frames:
            from .figures import draw_operando

            if self._guarded(PICTURE, lambda new: draw_operando(new, drawn, self._truth)):
                self._drawn = drawn.count

    def _guarded(self, name: str, write: Callable[[Path], None]) -> bool:
        """Replace a file; return whether this succeeded, and log why not."""
        try:
            replace_file(self.folder / name, write)
        except OSError as error:
            self._alarm.failed(name, error)
        except Exception:
            _log.exception("output not written", file=name)
        else:
            self._alarm.written(name)
            return True
        return False


def fresh_folder(parent: Path) -> Path:
    """Create a new folder in ``parent``, named after the time: 2026-11-27T101500."""
    name = datetime.now().strftime("%Y-%m-%dT%H%M%S")
    make_folder(parent)
    for number in range(1, 1000):
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise _unusable(folder, error) from None
        return folder
    raise InputError(f"{parent}: found no free name for a new folder; move some of the earlier ones away")


def make_folder(folder: Path) -> None:
    """Create a folder unless it exists; raise InputError if this fails or the path is a file."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from None


def _unusable(folder: Path, error: OSError) -> InputError:
    return InputError(f"{folder}: cannot be used as the output folder: {error.strerror}; name another one")


def lock_folder(folder: Path) -> FileLock:
    """Create a folder unless it exists, and lock it; the lock ends with the process."""
    make_folder(folder)
    lock = FileLock(folder / _LOCK, timeout=0, thread_local=False)
    try:
        (folder / _LOCK).open("ab").close()  # the lock takes a folder without write permission for one in use
        lock.acquire()
    except Timeout:
        raise InputError(f"{folder}: in use by another agent; end that agent first, or name another folder") from None
    except OSError as error:
        raise _unusable(folder, error) from None
    return lock


def _size(path: Path) -> int:
    """Return the size of a file, bytes; 0 if it does not exist."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
